"""Batches and samples of any size: the code must do what its table does."""

from functools import partial

import torch
from torch import Tensor

from diffexp.certify.bindings import OfCode
from diffexp.certify.bound import Bound
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.runs import Points, distance
from diffexp.certify.subject import Subject
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level
from diffexp.plan.method import Noise
from diffexp.plan.table import Plan

STEPS = 5
SMALL = (1, 2, 3)
BATCHES = (*range(1, 10), 12, 16, 17, 24, 32, 33, 64, 65, 100, 128, 129, 256, 1025, 4097)
IMAGES = (
    *((1, n, n) for n in (1, 2, 5, 8, 16, 17, 28, 32, 33, 64, 65, 128)),
    *((4, 64, 64), (3, 32, 48), (3, 48, 32), (16, 8, 8), (64, 4, 4), (4, 96, 128), (3, 256, 256)),
)
OTHERS = ((1,), (2,), (7,), (64,), (1000,), (4097,), (3, 8), (4, 3, 8, 8), (16, 5, 12, 20))
"""Points, sequences and videos."""
ALLOWED = 1e-7
"""Relative difference of the code to its table that is rounding."""


def sizes(subject: Subject) -> Outcome:
    """The same at every batch size, and on samples of every shape and number of elements."""
    bound = subject.bind(STEPS)
    sampler = bound.sampler
    if not isinstance(bound, OfCode):
        return skipped("is a plan, which works on every element alike")
    difference = partial(_to_table, bound, sampler) if isinstance(sampler, Plan) else partial(_on_points, bound)
    allowed = max(bound.output_tolerance, ALLOWED)
    if not difference((1, 1, 2, 2)) <= allowed:
        return skipped("no table to compare with, and not exact where the data is a point")
    wrong: dict[str, float] = {}
    notes: list[str] = []
    batches = [(f"batches of {n}", (n, *SMALL)) for n in BATCHES]
    shapes = [(f"samples of shape {list(shape)}", (2 if len(shape) < 3 else 1, *shape)) for shape in (*IMAGES, *OTHERS)]
    for name, size in (*batches, *shapes):
        try:
            error = difference(size)
        except Exception as raised:  # code that is meant for images may raise anything on other shapes
            if len(size) == 4:
                return failed(f"with {name} it raises {subject.describe_error(raised)}")
            notes.append(f"with {name} it raises {subject.describe_error(raised)}")
            continue
        if not error <= allowed:
            wrong[name] = error
    tried = [name for name, _ in (*batches, *shapes)]
    if wrong:
        right = [name for name in tried if name not in wrong]
        first, others = next(iter(wrong)), f" and {len(wrong) - 1} other sizes" if len(wrong) > 1 else ""
        return failed(
            f"does something else with {first}{others} than with others (off by {max(wrong.values()):.1e}); right with "
            f"{_nearest_before(first, tried, right) or 'none'}",
            largest=max(wrong.values()),
        )
    if notes:
        return warned(f"the same with every size of images, but {notes[0]}")
    return passed(f"the same with batches of 1 to {BATCHES[-1]} and samples of every shape")


def _to_table(bound: Bound, plan: Plan, size: tuple[int, ...]) -> float:
    """Return the relative difference between code and table from one start with one noise."""

    def network(u: Tensor, level: Level) -> Tensor:
        return 0.5 * u + 0.1

    start = bound.start_std * _noise(size)()
    planned = execute(plan, network, start, _noise(size))
    made = bound.run_as_sampled(network, start, _noise(size))
    return distance(made, planned) / max(1.0, planned.abs().max().item())


def _on_points(bound: Bound, size: tuple[int, ...]) -> float:
    """Return the error of the output where the data is a point, of code that is no table."""
    data, (level, scale) = Points(torch.full(size, 0.5, dtype=torch.float64)), bound.first_level()
    start = (level.alpha * data.x0 + level.sigma * _noise(size)()) / scale
    return distance(bound.walk(data, start=start, noise=_noise(size)).output, bound.end.alpha * data.x0)


def _noise(size: tuple[int, ...]) -> Noise:
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(size, dtype=torch.float64, generator=generator)


def _nearest_before(name: str, tried: list[str], right: list[str]) -> str:
    """Return the last size that is right before ``name``, or the first one after it."""
    before = [one for one in right if tried.index(one) < tried.index(name)]
    return [*right[:1], *before][-1] if right else ""
