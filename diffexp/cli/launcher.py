"""``hydra/launcher=batched``: all cells of a multirun in this process, those that share a model in common batches."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from diffexp.catalog.discover import discover
from diffexp.cli.cells import ComposedCell, Task, compose_job, save_hydra_files, sweep_info
from diffexp.cli.fast_compose import fast_copy
from diffexp.cli.hydra_internals import register_plugin
from diffexp.errors import InputError
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.objective import objective_value
from diffexp.sweeps.record import read_sweep

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext
    from diffexp.sweeps.runner import Runner

log = logging.getLogger(__name__)

NAME = "hydra_plugins.diffexp.BatchedLauncher"
"""Hydra accepts launchers below ``hydra_plugins`` only."""


class BatchedLauncher(Launcher):
    """Composes the cells and hands them to ``diffexp.sweeps.runner``.

    Args:
        batch: samples in one call of the model; None: the number that is fastest on its device.

    Raises:
        InputError: ``batch`` is less than 1.
    """

    def __init__(self, batch: int | None = None) -> None:
        if batch is not None and batch < 1:
            raise InputError(f"hydra.launcher.batch={batch} must be at least 1")
        self._batch = batch
        self._runner: Runner | None = None
        self._composed: dict[int, DictConfig] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context = hydra_context
        self._task = cast(Task, task_function)  # as ``launch`` hands it to Hydra
        self._config = config
        self._catalog = discover()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the cells; one that fails has no value, and the others continue.

        Raises:
            InputError: two cells have the same folder.
            KeyboardInterrupt: after every cell has written its finished samples.
        """
        setup_globals()
        hydra = self._config.hydra
        configure_log(hydra.hydra_logging, hydra.verbose)
        loader, callbacks = self._context.config_loader, self._context.callbacks
        jobs = [compose_job(loader, self._config, initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
        check_folders(jobs)
        log.info("%d cells in %s", len(jobs), hydra.sweep.dir)
        together = [job for job in jobs if not job.alone]
        for job in together:
            callbacks.on_job_start(config=job.composed, task_function=self._task)
            self._composed[job.number] = job.composed
        self._sweep = Path(hydra.sweep.dir).absolute()
        self._task.failures += self._shared_runner().run(together, sweep_info(self._sweep, 0).resumed)
        returned = {job.number: job_return(job) for job in together}
        for job in together:
            callbacks.on_job_end(config=job.composed, job_return=returned[job.number])
        for job in jobs:
            if job.alone:
                returned[job.number] = self._run_alone(job)
        return [returned[job.number] for job in jobs]

    def _shared_runner(self) -> "Runner":
        """The runner of all batches of cells that a sweeper hands over, so that they share a loaded model."""
        if self._runner is None:
            from diffexp.sweeps.runner import Runner

            record = read_sweep(self._sweep)
            resume = f"resume={self._sweep}" if record and record.cells else ""  # not of a search
            self._runner = Runner(self._run, self._catalog, self._batch, resume=resume)
        return self._runner

    def _run(self, job: Cell, context: "RunContext") -> None:
        from diffexp.experiment.run import run_experiment

        save_hydra_files(self._composed[job.number], job.folder)
        run_experiment(job.config, job.folder, self._catalog, sweep_info(self._sweep, job.number), context)

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


def job_return(job: ComposedCell) -> JobReturn:
    """The result of a cell, for the sweeper."""
    composed = job.composed
    of_task, of_hydra = (fast_copy(composed) for _ in range(2))  # OmegaConf.masked_copy takes four times as long
    with open_dict(of_task), open_dict(of_hydra):
        del of_task["hydra"]
        for key in of_task:
            del of_hydra[key]
    found = JobReturn(
        overrides=job.overrides,
        cfg=of_task,
        hydra_cfg=of_hydra,
        working_dir=os.getcwd(),
        task_name=composed.hydra.job.name,
        status=JobStatus.COMPLETED,
    )
    found.return_value = objective_value(job.config, job.folder)
    return found


def check_folders(jobs: Sequence[ComposedCell]) -> None:
    """Check that each cell has a folder of its own, directly in that of the sweep.

    Raises:
        InputError: the first cell that has not.
    """
    for job in jobs:
        if job.folder.parent != Path(job.composed.hydra.sweep.dir).absolute():
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


def register() -> None:
    """Register ``hydra/launcher=batched``."""
    register_plugin(BatchedLauncher, NAME)
    node = {"_target_": NAME, "batch": None}
    ConfigStore.instance().store(group="hydra/launcher", name="batched", node=node, provider="diffexp")
