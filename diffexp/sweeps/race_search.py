"""``stop=decided`` in a search: the cells that are tried together race, also against the best that was found before.

Optuna's pruners compare intermediate values of trials, but Hydra's sweeper gives a launcher no trial to report to.
This does what ``WilcoxonPruner`` of Optuna does, with the test of ``sequential``: a trial ends once it is significantly
worse than the best one so far at as many samples, from the same noise. Cells race whatever they cost, because a search
has one objective. Its level is divided among all pairs of the trials that it may make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from diffexp.sweeps.cell import Cell
from diffexp.sweeps.conditions import conditions
from diffexp.sweeps.race import Race, racers_of
from diffexp.sweeps.race_decision import ALL, Runs
from diffexp.sweeps.race_record import RaceRecord, read_look, read_race
from diffexp.sweeps.results import CellResult, read_cell


class SearchRace(Race):
    """The race of cells that a search tries together.

    Args:
        folder: of the sweep.
        cells: those of now.
        objective: the metric that decides.
        trials: the number of cells that the search tries in all.

    Raises:
        InputError: ``num_samples`` of a cell leaves no room for two looks.
    """

    def __init__(self, folder: Path, cells: Sequence[Cell], objective: str, trials: int) -> None:
        self._trials = trials
        super().__init__(folder, cells, objective, resumed=False)

    def _at_start(self, cells: Sequence[Cell]) -> RaceRecord:
        earlier = read_race(self._folder) if min(cell.number for cell in cells) else None
        if earlier is None:
            tests = self._trials * (self._trials - 1) // 2
            return replace(super()._at_start(cells), open=True, tests=tests)
        self._ended = {*range(len(earlier.racers))}
        return replace(earlier, racers=[*earlier.racers, *racers_of(cells)], looks=0)

    def _group(self, firsts: Mapping[int, CellResult]) -> None:
        """Have all race that sample the same thing."""
        racers = self.record.racers
        known = [number for number in self._ended if racers[number].why == ALL]
        cells = [*(self._first_of(number) for number in known), *firsts.values()]
        for number, group in zip([*known, *firsts], conditions(cells).of_cell):
            racers[number].group = group

    def _rivals(self, group: int) -> dict[int, Runs]:
        best = best_of(self.record, self._folder, group)
        if best is None:
            return {}
        cells = [read_cell(self._folder / name) for name in self.record.racers[best].folders]
        return {best: {cell.config.get("seed"): cell.folder.name for cell in cells}}

    def _first_of(self, racer: int) -> CellResult:
        return read_cell(self._folder / self.record.racers[racer].folders[0])


def best_of(record: RaceRecord, sweep: Path, group: int) -> int | None:
    """The best racer of a group that has drawn all samples; None where none has."""
    values: dict[int, float] = {}
    for number, racer in enumerate(record.racers):
        if racer.group != group or racer.why != ALL:
            continue
        look = read_look(sweep, racer.most)
        own = [look.values[name] for name in racer.folders if name in look.values] if look else []
        if own:
            values[number] = sum(own) / len(own)
    return (max if record.higher else min)(values, key=values.__getitem__, default=None)


def comparable_value(folder: Path) -> tuple[str, float] | None:
    """The metric that decides the race of a cell's search, and the cell's value as if it had drawn all samples.

    That of the best cell, and the difference of both at the samples that both have: values of different numbers of
    samples do not compare. None where the cell has all samples or is in no such race.
    """
    sweep, name = folder.parent, folder.name
    record = read_race(sweep)
    number = record.racer_of(name) if record and record.open else None
    if record is None or number is None or record.racers[number].samples == record.racers[number].most:
        return None
    best = best_of(record, sweep, record.racers[number].group)
    if best is None:
        return None
    rival = record.racers[best].folders[0]
    now, whole = read_look(sweep, record.racers[number].samples), read_look(sweep, record.racers[best].most)
    if now is None or whole is None or not now.values.keys() >= {name, rival} or rival not in whole.values:
        return None
    return record.metric, whole.values[rival] + now.values[name] - now.values[rival]
