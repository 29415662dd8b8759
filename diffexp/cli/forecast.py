"""Estimates of cells: evaluations, forward passes and time, before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexp.catalog.discover import Catalog
from diffexp.cli.latest import OUTPUTS
from diffexp.experiment.configs import KEYS_OF_THE_REPORT
from diffexp.files import read_json
from diffexp.sweeps.cell import Cell, model_key
from diffexp.sweeps.results import LATEST

if TYPE_CHECKING:
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
