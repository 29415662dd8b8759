"""``--dry-run``: what a command would run, evaluations and time included; nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from diffexp.catalog.discover import Catalog
from diffexp.cli.cells import task_config
from diffexp.cli.check import Checked
from diffexp.cli.composer import CellComposer
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.latest import OUTPUTS
from diffexp.cli.launch import master_config, new_record, sweep_folder
from diffexp.cli.resume import Resumed
from diffexp.errors import BAD_INPUT, FAILED, InputError, one_line
from diffexp.experiment.configs import KEYS_OF_THE_REPORT
from diffexp.files import read_json
from diffexp.sweeps.cell import Cell, model_key
from diffexp.sweeps.console import show
from diffexp.sweeps.outcome import names_of
from diffexp.sweeps.results import LATEST

if TYPE_CHECKING:
    from rich.console import RenderableType

    from diffexp.experiment.estimate import Work

IRRELEVANT = ("seed", "num_samples", "batch_size", *KEYS_OF_THE_REPORT)
"""Keys that change nothing of what one sample takes."""
RECORDS = ("*/*/run.json", "multirun/*/*/*/run.json")
MOST_RECORDS = 3000
"""Records of earlier runs that are read."""


@dataclass(frozen=True)
class Rate:
    """Seconds per forward pass of one sample."""

    seconds: float | None
    source: str
    """Where it is from, as the end of a sentence."""


@dataclass(frozen=True)
class Forecast:
    """A cell, and what it will take."""

    cell: Cell
    work: "Work | None" = None
    rate: Rate | None = None
    done: bool = False
    """Whether it is done already, and is skipped."""
    error: Exception | None = None
    """Why it would fail."""

    @property
    def samples(self) -> int:
        return int(self.cell.config["num_samples"])

    @property
    def passes(self) -> float:
        """Forward passes of all samples; 0 for a cell that does not run."""
        return self.work.forward_passes * self.samples if self.work and not self.done else 0.0

    @property
    def seconds(self) -> float | None:
        """Of sampling; None where unknown."""
        known = self.rate.seconds if self.rate else None
        return None if known is None else self.passes * known


def dry_run(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> int:
    """Print the cells of a command with the evaluations and the time they take; returns the exit code.

    The model is loaded, for the plans depend on it.

    Raises:
        InputError: the cells are not known beforehand.
    """
    HydraConfig.instance().set_config(checked.config)
    cells, swept = _cells(loader, checked, catalog, config_dir, resumed)
    forecasts = Forecaster(catalog, swept).all(cells, skip_done=resumed is not None)
    show(lambda width: _table(forecasts))
    for line in _summary(forecasts, checked.config.workers, checked.config.stop):
        print(line)
    errors = [one.error for one in forecasts if one.error]
    return 0 if not errors else BAD_INPUT if all(isinstance(error, InputError) for error in errors) else FAILED


def _cells(
    loader: CachedLoader, checked: Checked, catalog: Catalog, config_dir: Path | None, resumed: Resumed | None
) -> tuple[Sequence[Cell], frozenset[str] | None]:
    """The cells of a command, and the keys that it sweeps; None for a single run."""
    if not checked.multirun:
        words: Any = OmegaConf.to_container(checked.config.hydra.overrides.task)
        folder = Path(checked.config.hydra.run.dir).absolute()
        return [Cell(0, task_config(checked.config, catalog), folder, tuple(map(str, words)))], None
    if checked.cells is None:
        raise InputError("--dry-run: the sweeper chooses the cells while it runs; give one cell, without the search")
    record = resumed.record if resumed else new_record(loader, checked, config_dir)
    folder = resumed.folder if resumed else sweep_folder(checked.config, checked.words)
    composer = CellComposer(loader, master_config(loader, checked, record, folder), catalog)
    return [composer.compose(number, words) for number, words in enumerate(checked.cells)], record.swept


class Forecaster:
    """Estimates cells; those that differ in nothing that matters are estimated once.

    Args:
        swept: the keys that the sweep varies; None for a single run.
    """

    def __init__(self, catalog: Catalog, swept: frozenset[str] | None) -> None:
        self._catalog = catalog
        self._swept = swept
        self._known: dict[str, Forecast] = {}
        self._rates: dict[str, Rate] = {}
        self._models: dict[str, Any] = {}

    def all(self, cells: Sequence[Cell], *, skip_done: bool) -> list[Forecast]:
        """The forecasts of cells.

        Args:
            skip_done: whether cells that are done already would not run.
        """
        found = []
        for cell in cells:
            done = skip_done and read_json(cell.folder / "run.json").get("status") == "done"
            found.append(self._one(cell, done))
        return found

    def _one(self, cell: Cell, done: bool) -> Forecast:
        config = cell.config
        key = repr([*((name, value) for name, value in config.items() if name not in IRRELEVANT), model_key(config)])
        if key not in self._known:
            try:
                self._known[key] = Forecast(cell, *self._estimate(cell))
            except Exception as error:
                self._known[key] = Forecast(cell, error=error)
        known = self._known[key]
        return Forecast(cell, known.work, known.rate, done, known.error)

    def _estimate(self, cell: Cell) -> "tuple[Work, Rate]":
        from diffexp.experiment.build import assemble
        from diffexp.experiment.context import RunContext
        from diffexp.experiment.effects import Given, check_effects
        from diffexp.experiment.estimate import work_of

        key, models = model_key(cell.config), self._models

        class Context(RunContext):
            """Keeps one model for all cells that share it."""

            def model(self, load: Any) -> Any:
                if key not in models:
                    models.clear()  # the memory of the last one is freed first
                    models[key] = load()
                return models[key]

        run = assemble(cell.config, self._catalog, Context())
        check_effects(run, cell.config, Given.of(cell.overrides, cell.config, self._swept), self._catalog)
        if key not in self._rates:
            self._rates[key] = _rate(run, cell.config)
        return work_of(run, cell.config), self._rates[key]


def _rate(run: Any, config: Mapping[str, Any]) -> Rate:
    from diffexp.experiment.estimate import earlier_rate, measured_rate

    found = (file for pattern in RECORDS for file in Path(OUTPUTS).glob(pattern))
    records = [file for file in found if LATEST not in file.parts]  # which would count twice
    newest = sorted(records, key=lambda file: file.stat().st_mtime, reverse=True)[:MOST_RECORDS]
    if earlier := earlier_rate(newest, run, config):
        seconds, count = earlier
        runs = "an earlier run" if count == 1 else f"{count} earlier runs"
        return Rate(seconds, f"as in {runs} of this model on this machine")
    seconds = measured_rate(run, config)
    return Rate(seconds, "as a short timing now took" if seconds else "unknown: the model cannot be timed by itself")


def _table(forecasts: Sequence[Forecast]) -> "RenderableType":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("folder", overflow="fold")
    for title in ("evaluations", "forward passes", "samples", "time"):
        table.add_column(title, justify="right")
    for one in forecasts:
        name = Text(one.cell.folder.name)
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
