"""A worker: runs open cells of a sweep in this process until nothing is left to do, without Hydra."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from diffexp.catalog.discover import discover
from diffexp.catalog.sources import VARIABLE
from diffexp.errors import BAD_INPUT, INTERRUPTED, InputError, one_line
from diffexp.experiment.allocator import retain_freed_heap
from diffexp.experiment.lock import Watch
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.ending import ANNOUNCED_SECONDS, Ending, end_by_signals
from diffexp.sweeps.work import Work, read_work

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext

log = logging.getLogger(__name__)

HELP_SECONDS = 30.0
"""How long a worker draws parts of one cell before it looks for a cell that nobody runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line of a worker; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexp.sweeps",
        description="Join a sweep that was started with workers=... or hydra/launcher=local, slurm or ray: "
        "run its open cells until none is left.",
    )
    parser.add_argument("folder", type=Path, help="the folder of the sweep")
    parser.add_argument("--job", default="", help="a name for this worker in messages")
    parser.add_argument("--threads", type=int, help="how many cores it may use; OMP_NUM_THREADS takes precedence")
    parser.add_argument(
        "--grace",
        type=float,
        default=ANNOUNCED_SECONDS,
        help="seconds that the batch in work may take after SIGUSR2, the sign of a job that ends soon (%(default)g)",
    )
    given = parser.parse_args(arguments)
    logging.raiseExceptions = False  # a full disk is no reason for a traceback at every line
    retain_freed_heap()
    ending = Ending()
    end_by_signals(ending, given.grace)
    try:
        work = run_worker(given.folder, given.job, given.threads, ending)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    unattended = work.resume and not work.is_run and not Watch().is_held(work.folder)
    advice = f"; for its table and report: python -m diffexp {work.resume}" if unattended else ""
    print(f"nothing is left to do in {work.folder}{advice}")
    return 0


def run_worker(folder: Path, job: str = "", threads: int | None = None, ending: Ending | None = None) -> Work:
    """Run open cells of a sweep until nothing is left to do or to wait for.

    Args:
        folder: of the sweep, with a work file.
        job: the label of the worker; empty: that of its SLURM job, if it is one.
        threads: how many cores it may use; None: those of its SLURM task, or as many as torch likes.
        ending: notes the signals that end this process; None: there are none.

    Returns:
        The work file.

    Raises:
        InputError: there is no work file, or its plugins cannot be read here.
        KeyboardInterrupt: by a signal, after every running cell has written what it had finished.
    """
    work = read_work(folder)
    _prepare_process(work, threads or _number("SLURM_CPUS_PER_TASK"))
    catalog = discover()

    from diffexp.experiment.run import SweepInfo, run_experiment  # imports torch
    from diffexp.experiment.shared import help_run
    from diffexp.sweeps.claims import Claims
    from diffexp.sweeps.runner import Runner
    from diffexp.sweeps.source import Elsewhere
    from diffexp.sweeps.workers import joined

    def run_cell(cell: Cell, context: "RunContext") -> None:
        context.job = label or None
        if claims.helps(cell):
            try:
                help_run(cell.config, cell.folder, catalog, context, HELP_SECONDS)
            except Exception as error:  # the worker that runs the cell records it, should it fail there too
                log.warning("%s goes on without this worker: %s", cell.folder.name, one_line(error))
                claims.refuse(cell)
            raise Elsewhere
        # Resumed: what is in the folder was begun by another worker of this sweep, or at an earlier attempt.
        context.resumed = context.divided = True
        sweep = None if work.is_run else SweepInfo(work.folder, cell.number, swept=work.swept, round=cell.round)
        run_experiment(cell.config, cell.folder, catalog, sweep, context)

    label = job or _slurm_job()
    with joined(work.folder, label, {}) as journal:
        runner = Runner(run_cell, catalog, work.batch, resume=work.resume, ending=ending)
        claims = Claims(work, catalog, journal, runner.add_finished)
        runner.run_from(claims, journal)
    return work


def _prepare_process(work: Work, threads: int | None) -> None:
    """Give this process the working folder, the plugins, the log level and the threads of the sweep.

    Raises:
        InputError: the working folder is not there.
    """
    try:
        os.chdir(work.cwd)  # for the relative paths in configs
    except OSError as error:
        raise InputError(f"the working folder {work.cwd} of the sweep cannot be entered: {error.strerror}") from error
    os.environ[VARIABLE] = os.pathsep.join(map(str, work.plugins))
    logging.getLogger().setLevel(logging.INFO)
    if threads and "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # also for processes that a cell starts
        import torch

        torch.set_num_threads(threads)


def _slurm_job() -> str:
    """The SLURM job of this process as SLURM's commands name it; empty where it is none."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    return f"SLURM job {job}" if job else ""


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else None
