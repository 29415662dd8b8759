"""Starts a checked command: one run, or the cells of a sweep where Hydra's launcher puts them."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, env_override
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.sources import VARIABLE, resolved_paths
from diffexp.cli.cells import Task, as_containers, task_config
from diffexp.cli.check import Checked, Preflight
from diffexp.cli.composer import CellComposer
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME, hydra_session
from diffexp.cli.hydra_files import save_hydra_files
from diffexp.cli.hydra_internals import Callbacks
from diffexp.cli.ranks import Ranks
from diffexp.cli.resume import Resumed, resumed_words
from diffexp.cli.single import launch_run, needs_workers, run_by_workers, share_with_ranks
from diffexp.cli.words import folder_word
from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.experiment.summary import read_metrics
from diffexp.files import read_json
from diffexp.report import report_sweep
from diffexp.report.over_seeds import NAME as OVER_SEEDS, over_seeds
from diffexp.sweeps.failures import Failure, read_failures
from diffexp.sweeps.logs import LOG_FORMAT, LogFile
from diffexp.sweeps.objective import best_text
from diffexp.sweeps.outcome import outcome_table
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import read_cells, write_results
from diffexp.sweeps.work import NAME as WORK

if TYPE_CHECKING:
    from diffexp.experiment.run import RunResult

log = logging.getLogger(__name__)

NO_SWEEP = "a sweep is started from the command line: python -m diffexp -m ..."


def run(overrides: list[str]) -> "RunResult":
    """Run one experiment from Python: ``diffexp.run(["scheduler=euler", "steps=20"])``.

    Writes the same folder as the command does.

    Raises:
        InputError: as on the command line, where it is one line and exit code 2.
    """
    if isinstance(overrides, str):
        raise InputError(f'give a list of words, as in diffexp.run(["{overrides}"])')
    if "-m" in overrides or "--multirun" in overrides:
        raise InputError(NO_SWEEP)
    catalog = discover()
    words, config_dir = resumed_words(overrides)
    with hydra_session(catalog, Path(config_dir) if config_dir else None) as loader:
        checked = Preflight(loader, catalog).check(words, multirun=False)
        if checked.multirun:
            raise InputError(NO_SWEEP)
        ranks = Ranks.of_environment()
        if ranks:
            ranks.choose_device()
        if ranks and ranks.rank > 0:
            return _result(ranks.work())
        HydraConfig.instance().set_config(checked.config)
        folder, settings = Path(checked.config.hydra.run.dir).absolute(), checked.config.hydra
        task = task_config(checked.config)
        if not ranks and needs_workers(task, settings):
            save_hydra_files(as_containers(checked.config), folder)
            for failure in run_by_workers(task, settings, folder, catalog):
                raise (InputError if failure.input_error else RuntimeError)(failure.message)
            return _result(folder)
        from diffexp.experiment.run import run_experiment

        with lock(folder):
            context = share_with_ranks(ranks, task, settings, folder, catalog) if ranks else None
            save_hydra_files(as_containers(checked.config), folder)
            with _log_file(folder / "diffexp.log"):
                return run_experiment(task, folder, catalog, context=context)


def _result(folder: Path) -> "RunResult":
    """The result of a run that other processes have finished."""
    from diffexp.experiment.run import RunResult

    status = str(read_json(folder / "run.json").get("status"))
    return RunResult(folder, status, {key: value for key, value in read_metrics(folder).items() if value is not None})


def launch(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None = None
) -> tuple[Path, list[Failure]]:
    """Run a checked command line; of a sweep, the table of its results is written too.

    Args:
        resumed: the sweep to continue; the other arguments are those it was started with.

    Returns:
        The folder of the run or the sweep, and all failures.

    Raises:
        InputError: the output folder cannot be written, or belongs to a sweep of other cells.
        KeyboardInterrupt: with the folder, after the table of results has been written.
    """
    # Workers find the same plugins, wherever they are started.
    with env_override({VARIABLE: os.pathsep.join(map(str, resolved_paths(catalog.plugin_paths)))}):
        HydraConfig.instance().set_config(checked.config)
        if not checked.multirun:
            return launch_run(loader, checked.config, catalog)
        return _launch_sweep(loader, checked, catalog, config_dir, resumed)


def _launch_sweep(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> tuple[Path, list[Failure]]:
    first, overrides, cells = checked.config, checked.words, checked.cells
    folder = resumed.folder if resumed else _sweep_folder(first, overrides)
    words = [*overrides, "hydra.mode=MULTIRUN", folder_word("hydra.sweep.dir", folder)]
    master = loader.load_configuration(CONFIG_NAME, words, RunMode.MULTIRUN)
    with lock(folder):
        if resumed:
            resumed.check_cells(cells, CellComposer(loader, master, catalog).compose)
        record = resumed.record if resumed else SweepRecord(overrides, cells, str(config_dir) if config_dir else None)
        record.write(folder)
        if ranks := Ranks.of_environment():
            if record.attempts == 1:
                (folder / WORK).unlink(missing_ok=True)  # of an earlier sweep
            ranks.announce(folder)
        task = Task(catalog)
        try:
            with task.ending:
                _run_sweep(loader, master, cells, task)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(folder)) from None
        finally:
            _write_results(folder)
            report_sweep(folder, catalog)
            if table := outcome_table(folder, record):
                log.info("%s", table)
        if first.objective:
            direction = first.hydra.sweeper.get("direction") or "minimize"
            log.info("%s", best_text(read_cells(folder), first.objective, str(direction)))
    return folder, read_failures(folder, task.failures)


def _run_sweep(loader: CachedLoader, master: DictConfig, cells: list[list[str]] | None, task: Task) -> None:
    """Launch the cells, or let the sweeper choose them, as ``Hydra.multirun`` does."""
    plugins = Plugins.instance()
    configure_log(master.hydra.hydra_logging, master.hydra.verbose)
    callbacks = Callbacks(master)
    callbacks.on_multirun_start(config=master, config_name=CONFIG_NAME)
    context = HydraContext(config_loader=loader, callbacks=callbacks)
    if cells is None:
        # Interpolations are those of each cell: iterating over the config would resolve them here.
        words: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
        sweeper = plugins.instantiate_sweeper(config=master, hydra_context=context, task_function=task)
        sweeper.sweep(arguments=words)
    else:
        launcher = plugins.instantiate_launcher(config=master, hydra_context=context, task_function=task)
        OmegaConf.save(master, Path(master.hydra.sweep.dir, "multirun.yaml"))
        size = master.hydra.sweeper.max_batch_size or len(cells)
        for first in range(0, len(cells), size):
            for job in launcher.launch(cells[first : first + size], initial_job_idx=first):
                _ = job.return_value  # raises what a job did not record
    callbacks.on_multirun_end(config=master, config_name=CONFIG_NAME)


def _write_results(folder: Path) -> None:
    try:
        cells = read_cells(folder)
        write_results(folder, cells)
        for line in over_seeds(cells, folder / OVER_SEEDS):
            log.info("%s", line)
    except OSError as error:  # a full disk; the failures are still to be printed
        log.warning("no table of results: %s", error.strerror)


def _sweep_folder(config: DictConfig, overrides: Sequence[str]) -> Path:
    """The folder of a new sweep; if it exists and was not given, as for two sweeps in the same second, another name."""
    given = any(text.startswith("hydra.sweep.dir=") for text in overrides)
    folder = candidate = Path(config.hydra.sweep.dir).absolute()
    number = 1
    while candidate.exists() and not given:
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


@contextmanager
def _log_file(file: Path) -> Iterator[None]:
    handler = LogFile(file)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger("diffexp")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
