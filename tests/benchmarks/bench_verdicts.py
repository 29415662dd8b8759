"""How many images the metrics take to tell schedulers apart, and what ``stop=decided`` saves, on finished sweeps.

    python -m tests.benchmarks.bench_verdicts [sweep ...]

The sweeps are those of ``experiment=compare_schedulers``, finished, with 500 images a cell or more; their first images
are what fewer would have been. Without one, made-up features of four cells show that it runs.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations, islice
from pathlib import Path

import torch
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.feature_metric import FeatureMetric
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.fid_infinity import FIDInfinity
from diffexp.components.metrics.half_samples import Estimate, spread
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.mind import MIND
from diffexp.components.metrics.significance import holm, p_value
from diffexp.components.metrics.traits import needed, needed_by
from diffexp.experiment.sample_files import read_samples
from diffexp.sweeps.race_decision import decide
from diffexp.sweeps.race_record import Look, Racer, RaceRecord
from diffexp.sweeps.results import read_cells
from diffexp.sweeps.sequential import LEVEL, looks

METRICS = {"FID": FID, "FID∞": FIDInfinity, "KID": KID, "MIND": MIND}
COUNTS = (64, 128, 200, 300, 400, 500)
MOST = 500

Pair = tuple[str, str]


class Study:
    """Features of cells, and the values of metrics on the first of them.

    Args:
        features: (MOST, F) by cell.
        costs: of the cells; pairs of equal cost are compared.
    """

    def __init__(self, features: Mapping[str, Tensor], costs: Mapping[str, float]) -> None:
        self.features = features
        self.groups = {cost: [name for name in features if costs[name] == cost] for cost in sorted({*costs.values()})}
        self.pairs = [pair for group in self.groups.values() for pair in combinations(group, 2)]
        self._known: dict[tuple[str, str, int], Estimate | None] = {}

    def value(self, metric: str, cell: str, count: int) -> Estimate | None:
        """The value on the first samples; None where they are too few."""
        key = metric, cell, count
        if key not in self._known:
            measure: FeatureMetric = METRICS[metric]()
            measure.batches = [self.features[cell][:count]]
            run = RunFacts(0, count, 1.0, 1.0, None, None, None, None, few_on_purpose=True)  # pyright: ignore[reportArgumentType]
            found = measure.compute(run)  # pyright: ignore[reportAttributeAccessIssue]
            self._known[key] = next(iter(found.values()), None)
        return self._known[key]

    def p_values(self, metric: str, count: int) -> dict[Pair, float]:
        """Of the differences of pairs of equal cost."""
        found: dict[Pair, float] = {}
        for pair in self.pairs:
            a, b = (self.value(metric, cell, count) for cell in pair)
            if a and b:
                variance, freedom = (part.item() for part in spread(a.halves - b.halves, count))
                found[pair] = p_value(a.value - b.value, math.sqrt(variance), freedom)
        return found

    def verdicts(self, metric: str, count: int) -> set[Pair]:
        """The pairs of equal cost that differ significantly."""
        found = self.p_values(metric, count)
        return {pair for pair, p in zip(found, holm([*found.values()])) if p < LEVEL}

    def race(self, metric: str) -> tuple[RaceRecord, set[Pair]]:
        """The race that ``stop=decided`` would have run, and the pairs that it decides."""
        names, group_of = [*self.features], {name: i for i, own in enumerate(self.groups.values()) for name in own}
        record = RaceRecord([Racer([i], [name], MOST, group_of[name]) for i, name in enumerate(names)])
        record.tests = len(self.pairs)
        for count in looks(MOST):
            going = [number for number, racer in enumerate(record.racers) if not racer.why]
            record.looks += 1
            values = {names[i]: value for i in going if (value := self.value(metric, names[i], count))}
            look = Look(
                {key: own.value for key, own in values.items()}, {key: own.halves for key, own in values.items()}
            )
            for number in going:
                record.racers[number].samples = count
            if count < needed_by(f"{metric.lower()}/mnist_cnn", needed()):
                continue
            for group in {record.racers[number].group for number in going}:
                own = [number for number in going if record.racers[number].group == group]
                decide(record, own, {number: {0: names[number]} for number in own}, look)
        decided = {(names[int(a)], names[int(b)]) for a, b in (key.split("-") for key in record.decided)}
        return record, decided


def read_study(sweeps: Sequence[Path]) -> Study:
    """The study of finished sweeps; runs of fewer than ``MOST`` samples are left out."""
    features, costs, known = dict[str, Tensor](), dict[str, float](), FID().features
    for cell in (cell for sweep in sweeps for cell in read_cells(sweep)):
        samples = read_samples(cell.folder)
        if cell.status == "done" and len(samples) >= MOST:
            name = f"{cell.folder.parent.name}/{cell.folder.name}"
            features[name] = known.of(torch.stack([*islice(samples.values(), MOST)]))
            costs[name] = float(cell.config.get("max_nfe") or cell.record["nfe"])
    return Study(features, costs)


def made_up_study() -> Study:
    generator = torch.Generator().manual_seed(0)
    real = FID().features.reference.samples
    noise = real[torch.randperm(len(real), generator=generator)[:MOST]]
    return Study(
        {name: noise + shift for name, shift in zip("abcd", (0.0, 0.0, 0.15, 0.6))}, dict.fromkeys("abcd", 10.0)
    )


def main(*sweeps: str) -> None:
    study = read_study([*map(Path, sweeps)]) if sweeps else made_up_study()
    print(f"of {len(study.pairs)} pairs of equal cost, those that differ (5 %, Holm) with so many images a cell:")
    print("       ", *(f"{count:>5}" for count in COUNTS))
    for metric in METRICS:
        print(f"{metric:7}", *(f"{len(study.verdicts(metric, count)):>5}" for count in COUNTS))
    for metric in ("FID", "KID", "MIND"):
        wanted, (record, decided) = study.verdicts(metric, MOST), study.race(metric)
        best = {min(own, key=lambda name: _number(study, metric, name)) for own in study.groups.values()}
        beaten = {racer.folders[0] for racer in record.racers if racer.beaten_by}
        worse = {(set(pair) - best).pop() for pair in wanted if len(best & set(pair)) == 1}
        share = sum(racer.samples for racer in record.racers) / MOST / len(record.racers)
        print(
            f"stop=decided by {metric}: {share:.0%} of the images; {len(wanted & decided)} of {len(wanted)} verdicts,"
        )
        print(f"  {len(decided - wanted)} others; {len(worse & beaten)} of the {len(worse)} cells worse than the best")
        print(f"  one that knew the verdicts beforehand would draw {_least(study, metric, wanted):.0%}")


def _number(study: Study, metric: str, cell: str) -> float:
    found = study.value(metric, cell, MOST)
    return found.value if found else math.inf


def _least(study: Study, metric: str, wanted: set[Pair]) -> float:
    """The share of images of which every verdict has, at some look, the p-value that it takes with all of them."""
    steps, last = looks(MOST), study.p_values(metric, MOST)
    limit = max((last[pair] for pair in wanted), default=0.0)
    found = {count: study.p_values(metric, count) for count in steps}
    drawn = dict.fromkeys(study.features, steps[0])
    for pair in wanted:
        first = next(count for count in steps if found[count].get(pair, 1.0) <= limit)
        drawn |= {cell: max(drawn[cell], first) for cell in pair}
    return sum(drawn.values()) / MOST / len(drawn)


if __name__ == "__main__":
    main(*sys.argv[1:])
