"""``--dry-run``: what a command would run, evaluations and time included; nothing is written."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffexp.catalog.discover import Catalog
from diffexp.cli.cells import task_config
from diffexp.cli.check import Checked
from diffexp.cli.composer import CellComposer
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.forecast import Forecast, Forecaster
from diffexp.cli.launch import master_config, new_record, sweep_folder
from diffexp.cli.resume import Resumed
from diffexp.cli.search_space import SearchSpace
from diffexp.errors import BAD_INPUT, FAILED, InputError, one_line
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.console import show
from diffexp.sweeps.outcome import names_of

if TYPE_CHECKING:
    from rich.console import RenderableType


def dry_run(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> int:
    """Print the cells of a command with the evaluations and the time they take; returns the exit code.

    The model is loaded, for the plans depend on it. Of a search, whose cells are chosen while it runs, its space is
    printed, with what trials at the ends of each key take.
    """
    HydraConfig.instance().set_config(checked.config)
    if checked.multirun and checked.cells is None:
        return _dry_search(loader, checked, catalog, config_dir, resumed)
    cells, swept = _cells(loader, checked, catalog, config_dir, resumed)
    forecasts = Forecaster(catalog, swept).all(cells, skip_done=resumed is not None)
    show(lambda width: _table("folder", [one.cell.folder.name for one in forecasts], forecasts))
    for line in _summary(forecasts, checked.config.workers, checked.config.stop):
        print(line)
    return _code([one.error for one in forecasts if one.error])


def _code(errors: Sequence[Exception]) -> int:
    return 0 if not errors else BAD_INPUT if all(isinstance(error, InputError) for error in errors) else FAILED


def _dry_search(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> int:
    record = resumed.record if resumed else new_record(loader, checked, config_dir)
    folder = resumed.folder if resumed else sweep_folder(checked.config, checked.words)
    master = master_config(loader, checked, record, folder)
    space, composer = SearchSpace.of(loader, master), CellComposer(loader, master, catalog)
    show(lambda width: space.table())
    forecaster, names, forecasts = Forecaster(catalog, record.swept), list[str](), list[Forecast]()
    for number, (name, words) in enumerate(space.at_its_ends()):
        try:
            forecasts += forecaster.all([composer.compose(number, words)], skip_done=False)
            names.append(name)
        except Exception as error:  # a combination that does not compose fails as a trial, and costs nothing else
            print(f"would fail: {name}: {one_line(error)}")
    show(lambda width: _table("a trial with", names, forecasts))
    for line in _search_summary(space, forecasts):
        print(line)
    errors = [one.error for one in forecasts if one.error]
    return _code(errors) if len(errors) == len(forecasts) else 0


def _search_summary(space: SearchSpace, forecasts: Sequence[Forecast]) -> list[str]:
    known = [one for one in forecasts if not one.error]
    passes, seconds = [one.passes for one in known], [one.seconds for one in known if one.seconds is not None]
    trials = f"{space.trials:,} trials" if space.trials else "as many trials as the sweeper makes"
    lines = []
    if known:
        each = _between(f"{one:,.0f}" for one in (min(passes), max(passes)))
        lines.append(f"{trials}, each of {each} forward passes")
    if seconds:
        times = min(seconds), max(seconds)
        each = _between(map(duration, times))
        total = f", {_between(duration(space.trials * one) for one in times)} in all" if space.trials else ""
        source = "; ".join(dict.fromkeys(one.rate.source for one in known if one.rate))
        lines.append(f"about {each} of sampling each{total}: {source}; loading, metrics and files add to it")
    return [*lines, "nothing was run or written; leave out --dry-run to run it"]


def _cells(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> tuple[Sequence[Cell], frozenset[str] | None]:
    """The cells of a command, and the keys that it sweeps; None for a single run."""
    if not checked.multirun:
        words: Any = OmegaConf.to_container(checked.config.hydra.overrides.task)
        folder = Path(checked.config.hydra.run.dir).absolute()
        return [Cell(0, task_config(checked.config, catalog), folder, tuple(map(str, words)))], None
    record = resumed.record if resumed else new_record(loader, checked, config_dir)
    folder = resumed.folder if resumed else sweep_folder(checked.config, checked.words)
    composer = CellComposer(loader, master_config(loader, checked, record, folder), catalog)
    return [composer.compose(number, words) for number, words in enumerate(checked.cells or ())], record.swept


def _between(ends: Iterable[str]) -> str:
    """``3 s to 20 s``; one of them where they are equal."""
    return " to ".join(dict.fromkeys(ends))


def _table(title: str, names: Sequence[str], forecasts: Sequence[Forecast]) -> "RenderableType":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")
    for column in ("evaluations", "forward passes", "samples", "time"):
        table.add_column(column, justify="right")
    for own, one in zip(names, forecasts):
        name = Text(own)
        if one.error:
            table.add_row(
                name.append(f"\nwould fail: {one_line(one.error)}", style="red"), "", "", str(one.samples), ""
            )
            continue
        assert one.work
        about = "" if one.work.exact else "about "
        time = "done" if one.done else duration(one.seconds)
        table.add_row(name, f"{about}{one.work.nfe}", f"{about}{one.work.forward_passes:g}", str(one.samples), time)
    return table


def _summary(forecasts: Sequence[Forecast], workers: int | None, stop: str | None) -> list[str]:
    running = [one for one in forecasts if not one.done and not one.error]
    samples, passes = sum(one.samples for one in running), sum(one.passes for one in running)
    about = "" if all(one.work and one.work.exact for one in running) else "about "
    count = f"{len(running)} run{'s' if len(running) != 1 else ''}"
    lines = [f"{count}, {samples:,} samples, {about}{passes:,.0f} forward passes"]
    known = [one.seconds for one in running if one.seconds is not None]
    sources = dict.fromkeys(one.rate.source for one in running if one.rate)
    if known:
        total, several = sum(known), workers if workers and workers > 1 else 0
        shared = f", {duration(total / several)} with {several} workers on as many devices or cores" if several else ""
        lines.append(
            f"about {duration(total)} of sampling{shared}: {'; '.join(sources)}; loading, metrics and files add to it"
        )
    elif sources:
        lines.append(f"time {'; '.join(sources)}")
    if stop:
        lines.append(f"that is the most: with stop={stop} cells leave as soon as it is clear how they compare")
    reasons: dict[str, list[str]] = {}
    for one in forecasts:
        if one.error:
            reasons.setdefault(one_line(one.error), []).append(one.cell.folder.name)
    lines += [f"would fail: {names_of(folders)}: {reason}" for reason, folders in reasons.items()]
    return [*lines, "nothing was run or written; leave out --dry-run to run it"]


def duration(seconds: float | None) -> str:
    """A time as people say it: ``0.4 s``, ``12 s``, ``3 min 20 s``, ``5 h 12 min``; ``?`` where it is unknown."""
    if seconds is None:
        return "?"
    if seconds < 10:
        return f"{seconds:.1g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, more = divmod(minutes, 60)
    return f"{hours} h {more} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
