"""What races with ``stop=decided`` have found about pairs of cells, which may have different numbers of samples."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from diffexp.experiment.rounds import Round
from diffexp.sweeps.race_decision import difference
from diffexp.sweeps.race_record import RaceRecord, pair_text, read_look, read_race
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import number_of_samples


class Raced:
    """The races of some cells.

    Args:
        cells: of a report.
    """

    def __init__(self, cells: Sequence[CellResult]) -> None:
        self._cells = cells
        parents = dict.fromkeys(cell.folder.parent for cell in cells if Round.of(cell.record))
        self._races: Mapping[Path, RaceRecord] = {
            parent: race for parent in parents if (race := read_race(parent)) is not None
        }
        self._adjusted = {parent: race.adjusted for parent, race in self._races.items()}
        self._look = lru_cache(maxsize=32)(read_look)

    def p_value(self, first: int, second: int, metric: str) -> float | None:
        """The p-value over all looks, adjusted for all pairs of the race, of two cells that it has decided."""
        parent, numbers = self._racers(first, second, metric)
        if parent is None or pair_text(*numbers) not in self._races[parent].decided:
            return None
        return self._adjusted[parent][min(numbers), max(numbers)]

    def difference(self, first: int, second: int, metric: str) -> tuple[float, float, float, int] | None:
        """The difference of two cells at the samples that both have, its error, the freedom of that, their number.

        None where they have equally many, or were not in the same race.
        """
        parent, _ = self._racers(first, second, metric)
        cells = self._cells[first], self._cells[second]
        counts = [number_of_samples(cell.runs[0]) for cell in cells]
        if parent is None or counts[0] == counts[1]:
            return None
        look = self._look(parent, min(counts))
        seeds = [{seed: run.folder.name for seed, run in cell.by_seed.items()} for cell in cells]
        pairs = [(seeds[0][seed], seeds[1][seed]) for seed in seeds[0] if seed in seeds[1]]
        known = [pair for pair in pairs if look and look.values.keys() >= {*pair}]
        return (*difference(look, known, min(counts)), min(counts)) if look and known else None

    def _racers(self, first: int, second: int, metric: str) -> tuple[Path | None, tuple[int, int]]:
        """The sweep whose race both cells were in, which this metric has decided, and their racers."""
        parents = {self._cells[number].folder.parent for number in (first, second)}
        parent = parents.pop()
        race = None if parents else self._races.get(parent)
        if race is None or race.metric != metric:
            return None, (0, 0)
        found = [race.racer_of(self._cells[number].folder.name) for number in (first, second)]
        return (None, (0, 0)) if None in found else (parent, (found[0] or 0, found[1] or 0))
