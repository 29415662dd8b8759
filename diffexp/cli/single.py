"""Starts one run: in this process, by workers, or by the ranks of torchrun."""

import io
import logging
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.sources import resolved_paths
from diffexp.cli.cells import Task, task_config
from diffexp.cli.ending import withdrawn_if_refused
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.hydra_internals import Callbacks
from diffexp.cli.latest import link_latest
from diffexp.cli.launcher import WORKERS
from diffexp.cli.ranks import Ranks
from diffexp.experiment.lock import lock
from diffexp.experiment.resume import resumes_itself
from diffexp.files import read_json
from diffexp.sweeps.cell import Cell, batches_of
from diffexp.sweeps.driver import Driver
from diffexp.sweeps.engines import engine_class
from diffexp.sweeps.failures import Failure, clear_failure, read_failure
from diffexp.sweeps.work import NAME, Work
from diffexp.sweeps.workers import FOLDER

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext

log = logging.getLogger(__name__)


@dataclass
class SharedTask:
    """The task function of Hydra for a run by workers; see ``Task``."""

    catalog: Catalog
    failures: list[Failure] = field(default_factory=list)

    def __call__(self, config: DictConfig) -> None:
        settings: Any = HydraConfig.get()
        self.failures += run_by_workers(task_config(config), settings, Path(settings.runtime.output_dir), self.catalog)


def launch_run(loader: CachedLoader, config: DictConfig, catalog: Catalog) -> tuple[Path, list[Failure]]:
    """Run a composed config as ``Hydra.run`` does, which would compose it again from text.

    Returns:
        Its folder, and its failure if it has failed.

    Raises:
        InputError: the folder cannot be written, or another process writes into it.
        KeyboardInterrupt: with the folder, after everything finished has been written.
    """
    OmegaConf.set_readonly(config.hydra, False)
    config.hydra.mode = RunMode.RUN
    ranks = Ranks.of_environment()
    folder, task = Path(config.hydra.run.dir).absolute(), Task(catalog)
    with withdrawn_if_refused(folder), ExitStack() as stack:
        if ranks:
            stack.enter_context(lock(folder))
            task.context = share_with_ranks(ranks, task_config(config), config.hydra, folder, catalog)
        elif needs_workers(task_config(config), config.hydra):
            task = SharedTask(catalog)
        else:
            stack.enter_context(lock(folder))
        link_latest(folder)
        _run_by_hydra(loader, config, task)
    return folder, task.failures


def _run_by_hydra(loader: CachedLoader, config: DictConfig, task: Task | SharedTask) -> None:
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
        raise KeyboardInterrupt(str(Path(config.hydra.run.dir).absolute())) from None
    with redirect_stderr(io.StringIO()):  # where Hydra prints the words of the run first
        _ = returned.return_value  # raises what the experiment did not record


def share_with_ranks(
    ranks: Ranks, task: Mapping[str, Any], settings: DictConfig, folder: Path, catalog: Catalog
) -> "RunContext":
    """Let the other ranks draw samples of a run whose lock this one holds; returns the context for running it.

    Args:
        task: its config.
        settings: those of Hydra.

    Raises:
        InputError: as ``shared_work`` does.
    """
    from diffexp.experiment.context import OwnerContext  # imports torch

    if task["workers"] is not None:
        log.warning("workers=%d has no effect: the ranks of torchrun are the workers", task["workers"])
    shared_work(task, settings, folder, catalog).write()
    ranks.announce(folder)
    return OwnerContext(ranks.job)


def needs_workers(task: Mapping[str, Any], settings: DictConfig) -> bool:
    """Whether a run is one for worker processes.

    Args:
        task: its config.
        settings: those of Hydra.
    """
    workers, batches = task["workers"] or 1, batches_of(task["num_samples"], task)
    if batches < workers:
        number = "is one batch" if batches == 1 else f"consists of {batches} batches"
        log.warning(
            "workers=%d: the run %s of batch_size=%d, and a batch is drawn by one worker; give a smaller batch_size",
            *(workers, number, task["batch_size"]),
        )
    return settings.launcher.get(TARGET) == WORKERS or min(workers, batches) > 1


def run_by_workers(task: Mapping[str, Any], settings: DictConfig, folder: Path, catalog: Catalog) -> list[Failure]:
    """Have workers draw a run, and wait until it is over.

    Args:
        task: its config.
        settings: those of Hydra.

    Returns:
        Its failure, if it has failed.

    Raises:
        FolderInUse: workers draw samples of an earlier run in the folder, or another command waits for them.
        KeyboardInterrupt: after the workers have written what they had finished.
    """
    node: Any = OmegaConf.to_container(settings.launcher, resolve=True)
    own = node.get(TARGET) == WORKERS
    options = {key: value for key, value in node.items() if own and key not in (TARGET, "engine", "batch")}
    engine = engine_class(node["engine"] if own else "local")(task["workers"], **options)
    with lock(folder / FOLDER):
        work = shared_work(task, settings, folder, catalog)
        driver = Driver(engine, replace(work, cells=()))
        lost = driver.run(work.cells, more=False)
        driver.close()
    failure = read_failure(folder)
    log.info("%s", folder)
    return [failure] if failure else lost


def shared_work(task: Mapping[str, Any], settings: DictConfig, folder: Path, catalog: Catalog) -> Work:
    """What other processes need to draw samples of a run; what is in its folder is removed unless it is resumed there.

    Raises:
        FolderInUse: other processes draw samples of an earlier run in the folder.
        InputError: the folder has files of something else.
    """
    earlier = int(read_json(folder / NAME).get("attempt", 1)) if resumes_itself(task, folder) else 0
    if not earlier and ((folder / "run.json").exists() or (folder / "samples").exists()):
        from diffexp.experiment.folder import RunFolder  # imports torch

        output = RunFolder(folder)
        output.begin(task)
        output.replace()
        output.free_reserve()
    clear_failure(folder)
    plugins = tuple(resolved_paths(catalog.plugin_paths))
    words = tuple(map(str, settings.overrides.task))
    resume = f"resume={folder}"
    cells = (Cell(0, dict(task), folder, words),)
    return Work(folder, cells, Path.cwd(), earlier + 1, plugins=plugins, resume=resume)
