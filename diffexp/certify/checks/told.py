"""The timestep that the network gets, against the noise in its input."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from diffexp.certify.bindings import OfClass
from diffexp.certify.bound import Bound
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.subject import Subject
from diffexp.components.grids.choice import Grid
from diffexp.errors import InputError
from diffexp.plan.levels import Level, input_level, timestep_belongs
from diffexp.plan.moments import POINT

STEPS = 20
OFF = 2e-3
"""Relative error of the noise level that belongs to a timestep; interpolation of timesteps makes less."""
USUALLY = 0.75
"""Mean distance, in timesteps, beyond which whole timesteps are not those of the noise rounded up or down."""
ON_PATH = 1e-6


@dataclass(frozen=True)
class Reading:
    """One evaluation: the level of the network's input, under the timestep that the network gets."""

    level: Level
    meant: float
    """The timestep that belongs to the level's noise."""
    off: float
    """Relative error of the noise that belongs to the timestep."""

    @classmethod
    def of(cls, bound: Bound, level: Level) -> "Reading":
        schedule = bound.case.training.schedule
        if bound.trusting or timestep_belongs(schedule, level):
            return cls(level, level.timestep, 0.0)
        taken = input_level(schedule, level.timestep)
        return cls(level, schedule.at_ratio(level.ratio).timestep, abs(taken.ratio / level.ratio - 1))


def told(subject: Subject) -> Outcome:
    """The timestep that the network gets belongs to the noise in its input."""
    if subject.consistency:
        return skipped("has the time scale of a network of its own")
    off, rounded = 0.0, False
    for bound in _bounds(subject):
        readings = [Reading.of(bound, level) for level in _inputs(bound)]
        worst = max(readings, key=lambda reading: reading.off, default=None)
        if worst is None:
            continue
        off = max(off, worst.off)
        if worst.off <= OFF:
            continue
        if not _rounded(bound, readings):
            return failed(
                f"gives the network timestep {worst.level.timestep:.6g} where the noise in its input is that of "
                f"timestep {worst.meant:.6g}, {100 * worst.off:.2g} % off ({bound.case.name} levels)",
                off=worst.off,
                read=isinstance(bound, OfClass) and not bound.has_tables,
            )
        rounded = True
    if rounded:
        low, high = subject.reference_case.training.schedule.timestep_range
        return warned(
            f"gives the network timesteps whose noise is off by up to {100 * off:.2g} % (training: {low:g}..{high:g})",
            off=off,
        )
    return passed("gives the network the timesteps of the noise in its input", off=off)


def _rounded(bound: Bound, readings: list[Reading]) -> bool:
    """Whether the timesteps are those of the noise rounded to whole ones, as in several classes of diffusers."""
    apart = statistics.mean(abs(reading.meant - reading.level.timestep) for reading in readings)
    whole = isinstance(bound, OfClass) and all(bound.rounds(reading.level) for reading in readings)
    return whole and apart <= USUALLY


def _bounds(subject: Subject) -> Iterator[Bound]:
    """Yield the scheduler on its usual timestep schedule and its own, for every kind of model that it accepts."""
    for case in subject.kinds:
        for grid in dict.fromkeys((subject.grid(case), Grid())):
            try:
                yield subject.bind(STEPS, case, grid)
            except InputError:
                continue


def _inputs(bound: Bound) -> list[Level]:
    """Return the level of every input, under the timestep that the network gets."""
    if isinstance(bound, OfClass) and not bound.has_tables:
        return _read(bound)
    return [level for level, _ in replace(bound, trusting=True).usual_walk.seen]


def _read(bound: OfClass) -> list[Level]:
    """Return the levels that the inputs of a class without tables show where the data is a point.

    The network answers for the level that it finds in its input. A start at the level that the class takes it for stays
    on the path of the schedule, so that the start shows how far the timesteps are off.
    """
    first, second = (*bound.code.levels, *bound.code.levels)[:2]
    step = first.timestep - second.timestep
    found: list[Level] = []
    for shift in (0.0, 0.5, -0.5, 1.0, -1.0, step / 2, -step / 2, -step):
        found = _levels_on_path(bound, first.timestep + shift)
        if len(found) == bound.code.nfe:
            return found
    return []


def _levels_on_path(bound: OfClass, timestep: float) -> list[Level]:
    """Return the levels in the inputs of a run that starts at a timestep, of those that lie on the schedule's path."""
    found: list[Level] = []
    schedule = bound.case.training.schedule

    def read(u: Tensor, level: Level) -> Level:
        columns = u[0].flatten()
        own = Level(level.timestep, float(columns[-1]), float(columns[:-1].norm()))
        if own.alpha > 0 and own.sigma > 0:
            meant = schedule.at_ratio(own.ratio)
            if math.isclose(own.alpha, schedule.input_scale(meant) * meant.alpha, rel_tol=ON_PATH):
                found.append(own)
        return own

    bound.respond(POINT, bound.draws, read, start=input_level(schedule, timestep))
    return found
