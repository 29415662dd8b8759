"""Runs a checked command: one run, or the cells of a sweep, in this process or wherever Hydra's launcher puts them."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import DictConfig

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.sources import VARIABLE
from diffexp.cli.cells import ComposedCell, compose_job, save_hydra_files, task_config
from diffexp.cli.check import BASIC_SWEEPER, Checked, Preflight
from diffexp.cli.hydra_config import CONFIG_NAME, PluginConfigs, hydra_session
from diffexp.cli.launcher import BatchedLauncher
from diffexp.cli.resume import Resumed, resumed_words
from diffexp.errors import InputError
from diffexp.experiment.resume import is_done
from diffexp.report import report_sweep
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.failures import FAILED_HERE, Failure, clear_failure, read_failures, record_failure
from diffexp.sweeps.logs import LOG_FORMAT
from diffexp.sweeps.objective import best_text, objective_value
from diffexp.sweeps.record import SweepRecord, exclusive_lock, read_sweep
from diffexp.sweeps.results import read_cells, write_results

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext
    from diffexp.experiment.run import RunResult, SweepInfo
    from diffexp.sweeps.runner import Runner

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
    with hydra_session(catalog, Path(config_dir) if config_dir else None) as hydra:
        checked = Preflight(hydra, catalog).check(words, multirun=False)
        if checked.multirun:
            raise InputError(NO_SWEEP)
        HydraConfig.instance().set_config(checked.config)
        folder = Path(checked.config.hydra.run.dir).absolute()
        claim(folder)
        save_hydra_files(checked.config, folder)
        from diffexp.experiment.run import run_experiment

        with _log_file(folder / "diffexp.log"):
            return run_experiment(task_config(checked.config), folder, catalog)


def launch(
    hydra: Hydra, checked: Checked, overrides: list[str], catalog: Catalog, resumed: Resumed | None = None
) -> tuple[Path, list[Failure]]:
    """Let Hydra run a checked command line; of a sweep, the table of its results is written too.

    Args:
        resumed: the sweep to go on with; the other arguments are its own.

    Returns:
        The run's or the sweep's folder, and what failed.

    Raises:
        InputError: the output folder cannot be written, or belongs to a sweep of other cells.
        KeyboardInterrupt: with the folder, after the table of results has been written.
    """
    FAILED_HERE.clear()
    # Workers find the same plugins, wherever they are started.
    with env_override({VARIABLE: os.pathsep.join(map(str, catalog.plugin_paths))}):
        HydraConfig.instance().set_config(checked.config)
        if checked.multirun:
            return _launch_sweep(hydra, checked, overrides, catalog, resumed)
        return _launch_run(hydra, checked, overrides, catalog)


def _launch_run(hydra: Hydra, checked: Checked, overrides: list[str], catalog: Catalog) -> tuple[Path, list[Failure]]:
    folder = Path(checked.config.hydra.run.dir).absolute()
    claim(folder)
    try:
        hydra.run(CONFIG_NAME, partial(job, catalog=catalog), [*overrides, _override("hydra.run.dir", folder)])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(str(folder)) from None
    return folder, list(FAILED_HERE)


def _launch_sweep(
    hydra: Hydra, checked: Checked, overrides: list[str], catalog: Catalog, resumed: Resumed | None
) -> tuple[Path, list[Failure]]:
    folder = resumed.folder if resumed else _sweep_folder(checked, overrides)
    claim(folder)
    words = [*overrides, "hydra.mode=MULTIRUN", _override("hydra.sweep.dir", folder)]
    cells = cell_overrides(hydra, checked, overrides)
    with exclusive_lock(folder):
        if resumed:
            master = hydra.compose_config(CONFIG_NAME, words, RunMode.MULTIRUN)
            resumed.check_cells(cells, lambda number, cell: compose_job(hydra.config_loader, master, number, cell))
        config_dir = str(PluginConfigs.first) if PluginConfigs.first else None
        record = resumed.record if resumed else SweepRecord(overrides, cells, config_dir)
        record.write(folder)
        try:
            hydra.multirun(CONFIG_NAME, partial(job, catalog=catalog), words)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(folder)) from None
        finally:
            _write_results(folder)
            report_sweep(folder, catalog)
        if checked.config.objective:
            direction = checked.config.hydra.sweeper.get("direction") or "minimize"
            log.info("%s", best_text(read_cells(folder), checked.config.objective, str(direction)))
    return folder, read_failures(folder)


def _write_results(folder: Path) -> None:
    try:
        write_results(folder)
    except OSError as error:  # a full disk; how the cells ended is still to be said
        log.warning("no table of results: %s", error.strerror)


def cell_overrides(hydra: Hydra, checked: Checked, overrides: Sequence[str]) -> list[list[str]] | None:
    """The overrides of each cell, as Hydra's own sweeper makes them; None where another one decides as it goes."""
    sweeper = checked.config.hydra.sweeper
    if sweeper.get(TARGET) != BASIC_SWEEPER:
        return None
    words = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *overrides]
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(words)
    return BasicSweeper.split_arguments([one for one in parsed if not one.is_hydra_override()], None)[0]


def job(config: DictConfig, catalog: Catalog | None = None) -> float | None:
    """Run one composed config: the task function of Hydra, in this process or in a worker.

    Args:
        catalog: found before the first cell, so that a plugin may be edited while a sweep runs.

    Returns:
        The value of the config's ``objective``, for a sweeper that searches.
    """
    settings = HydraConfig.get()
    folder, task = Path(settings.runtime.output_dir), task_config(config)
    sweep = None
    if settings.mode == RunMode.MULTIRUN:
        sweep = sweep_info(Path(settings.sweep.dir).absolute(), int(settings.job.num))
    if not (sweep and sweep.resumed and is_done(folder)):
        clear_failure(folder)
        try:
            from diffexp.experiment.run import run_experiment

            run_experiment(task, folder, catalog or discover(), sweep)
        except Exception as error:  # the other cells of a sweep go on
            record_failure(folder, error)
    return objective_value(task, folder)


def make_runner(sweep: Path, batch: int | None) -> "Runner":
    """Runs cells of a sweep together in this process; ``batch`` samples in one call of a model, None: to be found."""
    from diffexp.experiment.run import run_experiment
    from diffexp.sweeps.runner import Runner

    catalog = discover()

    def run(job: Cell, context: "RunContext") -> None:
        if isinstance(job, ComposedCell):
            save_hydra_files(job.composed, job.folder)
        run_experiment(job.config, job.folder, catalog, sweep_info(sweep, job.number), context)

    return Runner(run, catalog, batch, sweep_info(sweep, 0).resumed)


BatchedLauncher.make_runner = staticmethod(make_runner)


def sweep_info(sweep: Path, number: int) -> "SweepInfo":
    """What a cell knows of its sweep."""
    from diffexp.experiment.run import SweepInfo

    record = read_sweep(sweep)
    return SweepInfo(sweep, number, resumed=record is not None and record.attempts > 1)


def claim(folder: Path) -> None:
    """Make a folder and see that it takes files.

    Raises:
        InputError: it does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        advice = "choose another with hydra.run.dir=... or hydra.sweep.dir=..."
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}; {advice}") from error


def _sweep_folder(checked: Checked, overrides: Sequence[str]) -> Path:
    """Two sweeps may start in the same second; the later one takes another name, unless it was given one."""
    given = any(text.startswith("hydra.sweep.dir=") for text in overrides)
    folder = candidate = Path(checked.config.hydra.sweep.dir).absolute()
    number = 1
    while candidate.exists() and not given:
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _override(key: str, folder: Path) -> str:
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{text}'"


@contextmanager
def _log_file(file: Path) -> Iterator[None]:
    handler = logging.FileHandler(file)
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
