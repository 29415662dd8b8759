"""``stop=decided``: the cells of a sweep draw samples in rounds, and leave as soon as it is clear how they compare.

All cells draw as many samples as the first look takes. Then those race against each other that sample the same thing at
the same cost: the same budget, where there is one, else equally many forward passes. After each look the cells that are
significantly worse than the best of their group leave, and those that will hardly differ by ``num_samples``;
the others go on. The test is that of ``sequential``: the error over all pairs, groups and looks is at most 5 %. Pairs
are compared by their values on the same halves of the samples, from the same start noise, seed by seed.

A round is a sweep that is resumed with more samples: whatever runs cells, threads or workers, runs rounds. What was
decided is in ``race.json`` after each look, and a race that was interrupted goes on from there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from diffexp.catalog.types import flat
from diffexp.components.metrics.traits import needed, needed_by
from diffexp.errors import InputError
from diffexp.experiment.per_sample import read_halves
from diffexp.experiment.rounds import WAITING, Round, samples_of
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.conditions import conditions
from diffexp.sweeps.failures import Failure
from diffexp.sweeps.race_decision import ALL, Runs, decide
from diffexp.sweeps.race_record import FOLDER, Look, Racer, RaceRecord, read_look, read_race
from diffexp.sweeps.replicates import IRRELEVANT_KEYS
from diffexp.sweeps.results import CellResult, read_cell
from diffexp.sweeps.sequential import check_samples, looks
from diffexp.sweeps.values import cost_of, qualities

log = logging.getLogger(__name__)

FAILED = "failed"
"""Why a racer is out of which every cell has failed."""
BUDGETS = ("max_forward_passes", "max_nfe")

RunCells = Callable[[Sequence[Cell], bool], list[Failure]]
"""Runs cells; the second argument says whether they go on with the samples that they have."""


class Race:
    """The race of one sweep.

    Args:
        folder: of the sweep.
        cells: all of them.
        objective: the metric that decides; None: the first that a report of the sweep ranks by.
        resumed: whether to go on with the race that the folder has.

    Raises:
        InputError: ``num_samples`` of a cell leaves no room for two looks.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], objective: str | None, *, resumed: bool) -> None:
        for cell in cells:
            check_samples(int(cell.config["num_samples"]))
        self._folder = folder
        self._cells = {cell.number: cell for cell in cells}
        self._objective = objective
        self._resumed = resumed
        self._ended: set[int] = set()
        """Racers that have been run to their end."""
        self.record = self._at_start(cells)
        self._lost: set[int] = set()
        """Cells that failed in this attempt."""
        for number, racer in enumerate(self.record.racers):
            if racer.why == FAILED and number not in self._ended:  # tried once more
                over = self.record.looks >= len(looks(racer.most))
                racer.samples, racer.why = racer.most, ALL if over else ""

    def _at_start(self, cells: Sequence[Cell]) -> RaceRecord:
        """The record that the race goes on with."""
        found = read_race(self._folder) if self._resumed else None
        if found is None:
            shutil.rmtree(self._folder / FOLDER, ignore_errors=True)
        return found or RaceRecord(racers_of(cells))

    def run(self, run_cells: RunCells) -> list[Failure]:
        """Run all cells, round by round.

        Returns:
            The failures among them.

        Raises:
            InputError: no metric can decide.
            KeyboardInterrupt: after every cell has written what it had finished.
        """
        failures: list[Failure] = []
        self.record.write(self._folder)
        while todo := self._next_round():
            failures += run_cells(todo, self._resumed or self.record.looks > 0)
            self._resumed = True
            if self._racing:
                self._look()
                self.record.write(self._folder)
        if self.record.looks and not self.record.metric:
            log.warning("stop=decided: objective=%s had no interval, so that nothing was decided", self._objective)
        return failures

    @property
    def _racing(self) -> list[int]:
        return [number for number, racer in enumerate(self.record.racers) if not racer.why]

    def _next_round(self) -> list[Cell]:
        """The cells that go on to the next look, and those that have left and are to be run to their end."""
        found: list[Cell] = []
        names = self._choice_of_metric()
        for number, racer in enumerate(self.record.racers):
            if not racer.why:
                now = Round(looks(racer.most)[self.record.looks], False, names)
            elif number not in self._ended:
                self._ended.add(number)
                now = Round(racer.samples, True, why=racer.why)
            else:
                continue
            found += [self._cells[cell].in_round(now) for cell in racer.cells if cell not in self._lost]
        return found

    def _choice_of_metric(self) -> tuple[str, ...]:
        """The choices of ``metric`` that are measured at a look: all at the first, then the one that decides."""
        name = self.record.metric.partition("/")[0]
        return (name,) if name else ()

    def _look(self) -> None:
        """Compare the racers, each with the best of its group, and let go those that need no more samples."""
        record, racing = self.record, self._racing
        alive = {number: self._finished(number) for number in racing}
        for number in racing:
            done = {cell.folder.name for cell in alive[number]}
            racer = record.racers[number]
            self._lost |= {cell for cell, name in zip(racer.cells, racer.folders) if name not in done}
            racer.why = "" if done else FAILED
        racing = [number for number in racing if alive[number]]
        if racing and not record.metric:
            self._choose_metric([cell for number in racing for cell in alive[number]])
        counts = {record.racers[number].samples for number in racing}
        if not record.looks:
            self._group({number: alive[number][0] for number in racing})
        self._write_look([cell for number in racing for cell in alive[number]])
        record.looks += 1
        runs = {number: {cell.config.get("seed"): cell.folder.name for cell in alive[number]} for number in racing}
        least = needed_by(record.metric, needed())
        for group in dict.fromkeys(record.racers[number].group for number in racing):
            own = [number for number in racing if record.racers[number].group == group]
            count = record.racers[own[0]].samples  # the same for all of a group
            look = read_look(self._folder, count)
            if look is None or count < least:
                continue
            rivals = self._rivals(group)
            still = [number for number in own if not record.racers[number].why]
            decide(record, [*rivals, *still], {**rivals, **runs}, look)
        going = len(self._racing)
        if record.tests:
            shown = " and ".join(map(str, sorted(counts)))
            log.info("look at %s samples: %d cells leave, %d go on", shown, len(racing) - going, going)

    def _finished(self, number: int) -> list[CellResult]:
        """The cells of a racer that have all samples of this look."""
        racer = self.record.racers[number]
        wanted = looks(racer.most)[self.record.looks]
        found = [read_cell(self._cells[cell].folder) for cell in racer.cells]
        racer.samples = wanted
        return [cell for cell in found if cell.status == WAITING and samples_of(cell.record) == wanted]

    def _choose_metric(self, cells: Sequence[CellResult]) -> None:
        """Choose the metric that decides; none yet where it may need more samples.

        Raises:
            InputError: there is none that can.
        """
        least, most = needed(), max(int(cell.config["num_samples"]) for cell in cells)
        able = {name for cell in cells for name in read_halves(cell.folder) if needed_by(name, least) <= most}
        known = {quality.name: quality for quality in qualities(cells)}
        asked = self._objective
        if asked and asked not in known and asked.partition("/")[0] in (cells[0].record["config"]["metric"] or {}):
            return
        if (asked and asked not in able) or not able:
            shown = ", ".join(name for name in known if name in able) or "none of those that are measured"
            wanted = f"objective={asked} has none" if asked else "there is none"
            raise InputError(f"stop=decided decides by a metric with an interval, and {wanted} (with one: {shown})")
        chosen = known[asked] if asked else next(own for name, own in known.items() if name in able)
        self.record.metric, self.record.higher = chosen.name, chosen.higher
        log.info("%s decides which cells go on", chosen.name)

    def _group(self, firsts: Mapping[int, CellResult]) -> None:
        """Find the racers that race against each other; those without any other draw all samples."""
        conditioned = conditions([*firsts.values()]).of_cell
        keys = [(condition, *_cost(cell)) for condition, cell in zip(conditioned, firsts.values())]
        for number, key in zip(firsts, keys):
            racer = self.record.racers[number]
            racer.group = keys.index(key)
            if keys.count(key) == 1:
                racer.samples, racer.why = racer.most, "no other cell has its cost"
        sizes = [keys.count(key) for key in {*keys}]
        self.record.tests = sum(size * (size - 1) // 2 for size in sizes)
        if not self.record.tests:
            log.warning("stop=decided: no two cells have the same cost, so that each draws all of its samples")

    def _rivals(self, group: int) -> Mapping[int, Runs]:
        """The racers of a group that have drawn all samples, and that those who race are compared with."""
        return {}

    def _write_look(self, cells: Sequence[CellResult]) -> None:
        """Store the values at this look."""
        name = self.record.metric
        halves = {cell.folder.name: read_halves(cell.folder).get(name) for cell in cells}
        known = {cell.folder.name: cell.metrics.get(name) for cell in cells}
        usable = [key for key, own in halves.items() if own is not None and own.isfinite().all() and own.shape[1]]
        values = {key: float(value) for key in usable if (value := known[key]) is not None}
        known_halves = {key: own for key in values if (own := halves[key]) is not None}
        for count in {samples_of(cell.record) for cell in cells}:
            names = {cell.folder.name for cell in cells if samples_of(cell.record) == count} & values.keys()
            now = Look({key: values[key] for key in names}, {key: known_halves[key] for key in names})
            before = read_look(self._folder, count) or Look({}, {})
            Look({**before.values, **now.values}, {**before.halves, **now.halves}).write(self._folder, count)


def racers_of(cells: Sequence[Cell]) -> list[Racer]:
    """The racers of new cells: those that differ in nothing but the seed are one."""
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        config = flat(cell.config)
        relevant = {key: config[key] for key in sorted(config) if key.partition(".")[0] not in IRRELEVANT_KEYS}
        found.setdefault(repr(relevant), []).append(cell)
    return [
        Racer([cell.number for cell in own], [cell.folder.name for cell in own], int(own[0].config["num_samples"]))
        for own in found.values()
    ]


def _cost(cell: CellResult) -> tuple[str, float | None]:
    """What a cell may or does take: racers of which that is equal race."""
    for key in BUDGETS:
        if cell.config.get(key) is not None:
            return key, float(cell.config[key])
    cost = next((name for name in ("forward_passes", "nfe") if cost_of(cell, name) is not None), "nfe")
    return cost, cost_of(cell, cost)
