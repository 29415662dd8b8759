"""Starts a checked command: one run, or the cells of a sweep where Hydra's launcher puts them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import configure_log, env_override
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.discover import Catalog
from diffexp.catalog.sources import VARIABLE, resolved_paths
from diffexp.cli.cells import OWN_SUBDIR, Task, cell_subdir
from diffexp.cli.check import Checked
from diffexp.cli.composer import CellComposer
from diffexp.cli.ending import end_sweep, has_begun, withdrawn_if_refused
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.hydra_internals import Callbacks
from diffexp.cli.latest import link_latest
from diffexp.cli.ranks import Ranks
from diffexp.cli.resume import Resumed
from diffexp.cli.single import launch_run
from diffexp.cli.words import folder_word
from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.report import live_page
from diffexp.sweeps.failures import Failure, read_failures
from diffexp.sweeps.objective import best_text
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import read_cells
from diffexp.sweeps.work import NAME as WORK

log = logging.getLogger(__name__)


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
    folder = resumed.folder if resumed else sweep_folder(first, overrides)
    record = resumed.record if resumed else new_record(loader, checked, config_dir)
    master = master_config(loader, checked, record, folder)
    with withdrawn_if_refused(folder), lock(folder):
        if resumed:
            resumed.check_cells(cells, CellComposer(loader, master, catalog).compose)
        record.write(folder)
        link_latest(folder)
        if ranks := Ranks.of_environment():
            if record.attempts == 1:
                (folder / WORK).unlink(missing_ok=True)  # of an earlier sweep
            ranks.announce(folder)
        task, is_refused = Task(catalog), False
        try:
            with live_page(folder), task.ending:
                _run_sweep(loader, master, cells, task)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(folder)) from None
        except InputError:
            is_refused = not has_begun(folder)
            raise
        finally:
            if not is_refused:
                end_sweep(folder, record, catalog, first.objective)
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


def new_record(loader: CachedLoader, checked: Checked, config_dir: Path | None) -> SweepRecord:
    """The record of a sweep that begins."""
    first: Any = OmegaConf.to_container(checked.config.hydra, resolve=False)
    record = SweepRecord(checked.words, checked.cells, str(config_dir) if config_dir else None)
    if first["sweep"]["subdir"] != OWN_SUBDIR:
        return record
    swept = record.swept
    if checked.cells is None:
        chosen = [one.get_key_element() for one in loader.parse(checked.words) if one.is_sweep_override()]
        swept = frozenset([*chosen, *(first["sweeper"].get("params") or ())])
    return replace(record, subdir=cell_subdir(len(checked.cells) if checked.cells else None, swept))


def master_config(loader: CachedLoader, checked: Checked, record: SweepRecord, folder: Path) -> DictConfig:
    """The config that the cells of a sweep are composed from.

    Args:
        folder: of the sweep.
    """
    subdir = [f"hydra.sweep.subdir='{record.subdir}'"] if record.subdir else []
    words = [*checked.words, "hydra.mode=MULTIRUN", folder_word("hydra.sweep.dir", folder), *subdir]
    return loader.load_configuration(CONFIG_NAME, words, RunMode.MULTIRUN)


def sweep_folder(config: DictConfig, overrides: Sequence[str]) -> Path:
    """The folder of a new sweep; if it exists and was not given, as for two sweeps in the same second, another name."""
    given = any(text.startswith("hydra.sweep.dir=") for text in overrides)
    folder = candidate = Path(config.hydra.sweep.dir).absolute()
    number = 1
    while candidate.exists() and not given:
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate
