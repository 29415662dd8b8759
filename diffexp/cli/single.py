"""Starts one run, in this process; with other processes that draw parts of it, where there are any."""

from pathlib import Path

from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.discover import Catalog
from diffexp.catalog.sources import resolved_paths
from diffexp.cli.cells import Task, task_config
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.hydra_internals import Callbacks
from diffexp.cli.ranks import Ranks
from diffexp.experiment.lock import lock
from diffexp.experiment.parts import remove_parts
from diffexp.experiment.resume import resumes_itself
from diffexp.files import read_json
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.failures import Failure, clear_failure
from diffexp.sweeps.work import NAME, Work


def launch_run(loader: CachedLoader, config: DictConfig, catalog: Catalog) -> tuple[Path, list[Failure]]:
    """Run a composed config; returns its folder, and its failure if it has failed.

    Raises:
        InputError: the folder cannot be written, or another process writes into it.
        KeyboardInterrupt: with the folder, after everything finished has been written.
    """
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.mode = RunMode.RUN
    ranks = Ranks.of_environment()
    if ranks and (earlier := ranks.earlier_folder()):
        config.hydra.run.dir = config.resume = str(earlier)
    folder = Path(config.hydra.run.dir).absolute()
    task = Task(catalog)
    with lock(folder):
        if ranks:
            from diffexp.experiment.context import OwnerContext  # imports torch

            task.context = OwnerContext(ranks.job)
            share_run(config, folder, catalog)
            ranks.announce(folder)
        _run_by_hydra(loader, config, folder, task)
    return folder, task.failures


def share_run(config: DictConfig, folder: Path, catalog: Catalog) -> None:
    """Write what other processes need to draw samples of a run, whose lock is held.

    Raises:
        FolderInUse: some draw samples of an earlier run in the folder.
    """
    task = task_config(config)
    if not resumes_itself(task, folder):
        remove_parts(folder)
    clear_failure(folder)
    words = tuple(map(str, config.hydra.overrides.task))
    plugins = tuple(resolved_paths(catalog.plugin_paths))
    attempt = int(read_json(folder / NAME).get("attempt", 0)) + 1
    Work(folder, (Cell(0, task, folder, words),), Path.cwd(), attempt, plugins=plugins).write()


def _run_by_hydra(loader: CachedLoader, config: DictConfig, folder: Path, task: Task) -> None:
    """Run a composed config as ``Hydra.run`` does, which would compose it again from text."""
    try:
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)
        callbacks = Callbacks(config)
        callbacks.on_run_start(config=config, config_name=CONFIG_NAME)
        returned = run_job(
            hydra_context=HydraContext(config_loader=loader, callbacks=callbacks),
            task_function=task,
            config=config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
        )
        callbacks.on_run_end(config=config, config_name=CONFIG_NAME, job_return=returned)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(str(folder)) from None
    _ = returned.return_value  # raises what the experiment did not record
