"""The launchers of a multirun: ``batched``, all cells in this process, and those that hand them to workers."""

import logging
import os
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from diffexp.catalog.discover import discover
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.sources import resolved_paths
from diffexp.cli.cells import ComposedCell, Task, sweep_info
from diffexp.cli.composer import CellComposer
from diffexp.cli.fast_compose import CachedLoader, fast_copy
from diffexp.cli.hydra_files import save_hydra_files
from diffexp.cli.hydra_internals import register_plugin
from diffexp.errors import InputError
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.claims import FILE as CLAIM
from diffexp.sweeps.driver import Driver
from diffexp.sweeps.engines import ENGINES, engine_class
from diffexp.sweeps.failures import Failure
from diffexp.sweeps.objective import objective_value
from diffexp.sweeps.record import SweepRecord, read_sweep
from diffexp.sweeps.work import Work

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext
    from diffexp.sweeps.race import Race
    from diffexp.sweeps.runner import Runner

log = logging.getLogger(__name__)

BATCHED, WORKERS = (f"hydra_plugins.diffexp.{name}" for name in ("BatchedLauncher", "WorkersLauncher"))
"""Hydra accepts launchers below ``hydra_plugins`` only."""


class CellLauncher(Launcher):
    """Composes the cells and has them run.

    Args:
        batch: samples in one call of the model; None: the number that is fastest on its device.

    Raises:
        InputError: ``batch`` is less than 1.
    """

    def __init__(self, batch: int | None = None) -> None:
        if batch is not None and batch < 1:
            raise InputError(f"hydra.launcher.batch={batch} must be at least 1")
        self._batch = batch

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._task = cast(Task, task_function)  # as ``launch`` hands it to Hydra
        self._config = config
        self._catalog = discover()
        self._composer = CellComposer(cast(CachedLoader, hydra_context.config_loader), config, self._catalog)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the cells; one that fails has no value, and the others continue.

        Raises:
            InputError: two cells have the same folder.
            KeyboardInterrupt: after every cell has written its finished samples.
        """
        setup_globals()
        hydra = self._config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        callbacks = self._context.callbacks
        jobs = [self._composer.compose(initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
        check_folders(jobs)
        log.info("%d cells in %s", len(jobs), hydra.sweep.dir)
        together = [job for job in jobs if not job.place.alone]
        observed = together if callbacks.callbacks else ()  # without them no config has to be made
        for job in observed:
            callbacks.on_job_start(config=job.composed, task_function=self._task)
        self._sweep = Path(hydra.sweep.dir).absolute()
        record = read_sweep(self._sweep) or SweepRecord([], None)
        resume = f"resume={self._sweep}" if record.cells else ""  # not of a search
        self._task.failures += self._run_all(together, record, resume)
        returned: dict[int, JobReturn] = {job.number: CellReturn(job) for job in together}
        for job in observed:
            callbacks.on_job_end(config=job.composed, job_return=returned[job.number])
        for job in jobs:
            if job.place.alone:
                returned[job.number] = self._run_alone(job)
        return [returned[job.number] for job in jobs]

    def _run_all(self, cells: Sequence[ComposedCell], record: SweepRecord, resume: str) -> list[Failure]:
        """Run all cells of a sweep: to their end at once, or in the rounds of ``stop=decided``."""
        goes_on = record.attempts > 1
        if self._config.stop is None or not cells:
            return self._run_cells(cells, record, resume, goes_on)
        race = self._race(cells, record)
        return race.run(lambda some, begun: self._run_cells(cast(Sequence[ComposedCell], some), record, resume, begun))

    def _race(self, cells: Sequence[ComposedCell], record: SweepRecord) -> "Race":
        from diffexp.sweeps.race import Race
        from diffexp.sweeps.race_search import SearchRace

        if record.cells is None:
            return SearchRace(self._sweep, cells, self._config.objective, self._config.hydra.sweeper.n_trials)
        return Race(self._sweep, cells, self._config.objective, resumed=record.attempts > 1)

    @abstractmethod
    def _run_cells(
        self, cells: Sequence[ComposedCell], record: SweepRecord, resume: str, goes_on: bool
    ) -> list[Failure]:
        """Run cells of a sweep.

        Args:
            resume: what continues the sweep, as in ``resume=outputs/multirun/...``; empty if nothing does.
            goes_on: whether they keep the samples that they have.
        """

    def _run_alone(self, job: ComposedCell) -> JobReturn:
        try:
            return run_job(
                hydra_context=self._context,
                task_function=self._task,
                config=job.composed,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)


class BatchedLauncher(CellLauncher):
    """Runs the cells in this process, those that share a model in common batches."""

    def __init__(self, batch: int | None = None) -> None:
        super().__init__(batch)
        self._runner: Runner | None = None
        self._jobs: dict[int, ComposedCell] = {}

    def _run_cells(
        self, cells: Sequence[ComposedCell], record: SweepRecord, resume: str, goes_on: bool
    ) -> list[Failure]:
        self._jobs = {cell.number: cell for cell in cells}
        self._info = replace(sweep_info(self._sweep, 0), resumed=goes_on)
        for cell in cells if record.attempts > 1 else ():
            (cell.folder / CLAIM).unlink(missing_ok=True)  # of workers that were lost
        if self._runner is None:  # one for all batches of cells of a sweeper, which then share a loaded model
            from diffexp.sweeps.runner import Runner

            self._runner = Runner(self._run, self._catalog, self._batch, resume=resume)
        return self._runner.run(cells, goes_on)

    def _run(self, job: Cell, context: "RunContext") -> None:
        from diffexp.experiment.run import run_experiment

        save_hydra_files(self._jobs[job.number].content, job.folder)
        run_experiment(
            job.config, job.folder, self._catalog, replace(self._info, job=job.number, round=job.round), context
        )


class WorkersLauncher(CellLauncher):
    """Has the cells run by workers.

    Args:
        engine: starts the workers, one of ``diffexp.sweeps.engines.ENGINES``.
        batch: see ``CellLauncher``.
        options: those of the engine.
    """

    def __init__(self, engine: str, batch: int | None = None, **options: Any) -> None:
        super().__init__(batch)
        self._engine = engine
        plain: Any = OmegaConf.to_container(OmegaConf.create(options))
        self._options: dict[str, Any] = plain
        self._driver: Driver | None = None

    def _run_cells(
        self, cells: Sequence[ComposedCell], record: SweepRecord, resume: str, goes_on: bool
    ) -> list[Failure]:
        if self._driver is None:
            plugins = tuple(resolved_paths(self._catalog.plugin_paths))
            swept = tuple(sorted(record.swept))
            work = Work(self._sweep, (), Path.cwd(), record.attempts, self._batch, swept, plugins, resume=resume)
            self._driver = Driver(engine_class(self._engine)(self._config.workers, **self._options), work)
            self._task.ending.callback(self._driver.close)
        for cell in cells:
            save_hydra_files(cell.content, cell.folder)
        launched = max((cell.number for cell in cells), default=-1) + 1
        more = record.cells is None or launched < len(record.cells)
        more = more or any(cell.round and not cell.round.final for cell in cells)
        return self._driver.run(cells, more, goes_on)


class CellReturn(JobReturn):
    """The result of a cell, for the sweeper and callbacks; its configs, which few of these read, are made on demand."""

    def __init__(self, job: ComposedCell) -> None:
        self._job = job
        self.overrides = job.overrides
        self.working_dir = os.getcwd()
        self.task_name = job.content["hydra"]["job"]["name"]
        self.status = JobStatus.COMPLETED
        self.return_value = objective_value(job.config, job.folder)

    @cached_property
    def cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The config of the run."""
        found = fast_copy(self._job.composed)
        with open_dict(found):
            del found["hydra"]
        return found

    @cached_property
    def hydra_cfg(self) -> DictConfig:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Hydra's own settings."""
        found = fast_copy(self._job.composed)
        with open_dict(found):
            for key in self.cfg:
                del found[key]
        return found


def check_folders(jobs: Sequence[ComposedCell]) -> None:
    """Check that each cell has a folder of its own, directly in that of the sweep.

    Raises:
        InputError: the first cell that has not.
    """
    for job in jobs:
        if job.folder.parent != job.place.sweep:
            subdir = job.composed.hydra.sweep.subdir
            raise InputError(
                f"hydra.sweep.subdir={subdir}: the folders of the cells lie side by side; write it without /"
            )
    taken: dict[Path, ComposedCell] = {}
    for job in jobs:
        other = taken.setdefault(job.folder, job)
        if other is not job:
            raise InputError(
                f"hydra.sweep.subdir gives cells {other.number} and {job.number} the same folder {job.folder.name}; "
                "put ${hydra.job.num} into it"
            )


def needed_launcher(sweep: DictConfig, overrides: Sequence[Override]) -> str | None:
    """The word to add to those of a sweep so that ``workers`` has an effect; None if none is missing.

    Raises:
        InputError: the command names a launcher that has no workers.
    """
    choice, launcher = sweep.hydra.runtime.choices["hydra/launcher"], sweep.hydra.launcher.get(TARGET)
    if sweep.workers is None or launcher == WORKERS:
        return None
    if launcher == BATCHED and not any(override.key_or_group == "hydra/launcher" for override in overrides):
        return "hydra/launcher=local"
    more = "runs all cells in this process" if launcher == BATCHED else "has settings of its own"
    raise InputError(f"workers={sweep.workers}: hydra/launcher={choice} {more}; leave one of them out")


def register() -> None:
    """Register ``hydra/launcher=batched`` and those of the engines."""
    register_plugin(BatchedLauncher, BATCHED)
    register_plugin(WorkersLauncher, WORKERS)
    nodes = {"batched": {"_target_": BATCHED, "batch": None}}
    for engine in ENGINES:
        nodes[engine] = {"_target_": WORKERS, "engine": engine, "batch": None, **engine_class(engine).OPTIONS}
    for name, node in nodes.items():
        ConfigStore.instance().store(group="hydra/launcher", name=name, node=node, provider="diffexp")
