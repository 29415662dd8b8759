"""Checks for every scheduler, whatever its method: a run depends on its inputs alone, at any number of steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffexp.certify.bindings import OfClass, OfCode
from diffexp.certify.bound import Bound
from diffexp.certify.checks.point_data import path_error
from diffexp.certify.data import MIXTURE
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.runs import (
    BATCH,
    ONE,
    distance,
    random_state_monitor,
    sample_noise,
)
from diffexp.certify.spacing import GIVEN
from diffexp.certify.subject import Subject
from diffexp.components.grids.choice import Grid
from diffexp.errors import InputError
from diffexp.plan.levels import Level
from diffexp.text import quantity

CONSISTENCY = "a consistency method is exact on no data but that of its network"
STEPS = 8
ROUNDING = 1e-9


def deterministic(subject: Subject) -> Outcome:
    """The same start and the same noise give the same output, bit by bit."""
    bound = subject.bind(STEPS)
    with random_state_monitor() as used:
        first, second = (bound.walk(MIXTURE) for _ in range(2))
        source = used()
    apart = distance(first.output, second.output)
    if source:
        return failed(f"draws from {source} instead of the noise it is given: no seed belongs to a sample", apart=apart)
    if apart:
        return failed(f"two runs from the same start with the same noise differ by {apart:.1e}", apart=apart)
    return passed("the same start and noise give the same output", apart=apart)


def batch(subject: Subject) -> Outcome:
    """A sample does not depend on the others of its batch."""
    bound = subject.bind(STEPS)
    together = bound.usual_walk
    if together.output.shape != (BATCH, *ONE):
        return failed(f"the output has shape {tuple(together.output.shape)} for a start of shape {(BATCH, *ONE)}")
    if together.output.dtype != torch.float64 and not isinstance(bound, OfClass):
        return failed(f"the output is {together.output.dtype} for a start in torch.float64")
    alone = [bound.walk(MIXTURE, start=bound.start([i]), noise=sample_noise([i])).output for i in range(BATCH)]
    apart = distance(together.output, torch.cat(alone))
    if apart <= ROUNDING * max(1.0, together.output.abs().max().item()):
        return passed(f"a batch of {BATCH} gives what its samples give alone", apart=apart)
    same = bound.start([0]).expand(BATCH, *ONE).clone()
    with random_state_monitor() as used:
        copies = bound.walk(MIXTURE, start=same)
        random = copies.draws or used()
    equal = distance(copies.output[0], copies.output[1]) == 0
    if not random and not equal:
        return failed(
            "samples from the same start come out different although none draws from the noise it is given: it makes "
            "noise of its own, which belongs to the place in the batch and not to the sample",
            apart=apart,
        )
    if random and equal:
        return failed(
            "the noise is shared over the batch: samples from the same start with noise of their own come out equal",
            apart=apart,
        )
    others = [0, *range(BATCH, 2 * BATCH - 1)]
    among_others = bound.walk(MIXTURE, start=bound.start(others), noise=sample_noise(others)).output
    cause = "others of" if distance(among_others[0], together.output[0]) > ROUNDING else "number of samples in"
    return failed(f"a sample changes by {apart:.1e} with the {cause} its batch", apart=apart)


def inputs(subject: Subject) -> Outcome:
    """The start, the noise and the network's outputs are left as they are."""
    bound = subject.bind(STEPS)
    if not isinstance(bound, OfCode):
        return skipped("is a plan, which edits nothing")
    passed_on: list[tuple[str, Tensor, Tensor]] = []

    def recorded(name: str, value: Tensor) -> Tensor:
        passed_on.append((name, value, value.clone()))
        return value

    def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
        noisy = MIXTURE.clean_and_noise(u, level)
        return recorded("what the network returned", bound.case.training.prediction.output(level, *noisy))

    noise = sample_noise()
    start = recorded("its start sample", bound.start())
    bound.code(evaluate, start, lambda: recorded("the noise it was given", noise()))
    edited = dict.fromkeys(name for name, now, before in passed_on if not torch.equal(now, before))
    if edited:
        return failed(f"edits {' and '.join(edited)} in place")
    return passed("leaves its start sample, the noise and the network's outputs as they are")


def reuse(subject: Subject) -> Outcome:
    """A run leaves no state behind that would change the next one."""
    bound, other = subject.bind(STEPS), subject.bind(STEPS + 3)
    first = bound.walk(MIXTURE).output
    try:
        other.walk(MIXTURE)
        again = bound.walk(MIXTURE).output
        other.walk(MIXTURE, start=other.start([0]), noise=sample_noise([0]))
        third = bound.walk(MIXTURE).output
        apart = max(distance(first, again), distance(first, third), _object_again(bound))
    except Exception as error:  # foreign code may raise anything on stale state
        return failed(f"a run after another one raises {subject.describe_error(error)}: it keeps state between runs")
    if apart:
        return failed(
            f"a run after another one differs from it by {apart:.1e}: it keeps state between runs", apart=apart
        )
    return passed("a run after another one is the same as the first", apart=apart)


def _object_again(bound: Bound) -> float:
    """Return how far two runs of one object of a class are apart, with ``set_timesteps`` between them."""
    if not isinstance(bound, OfClass):
        return 0.0
    code, scheduler = bound.code, bound.code.prepared(torch.float32)

    def run() -> Tensor:
        def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
            return bound.case.training.prediction.output(level, *MIXTURE.clean_and_noise(u, level))

        torch.manual_seed(0)
        return code.drive(scheduler, evaluate, bound.start())

    state = torch.get_rng_state()
    first = run()
    code.set_timesteps(scheduler)
    second = run()
    torch.set_rng_state(state)
    return distance(first, second)


def few_steps(subject: Subject) -> Outcome:
    """Check that with 1, 2 and 3 steps the output is finite, and right for data that is a point."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    errors, allowed, refused = {}, {}, []
    for steps in (1, 2, 3):
        try:
            bound = subject.bind(steps)
        except InputError as error:
            refused.append(f"{steps} ({error})")
            continue
        try:
            errors[steps], allowed[steps] = path_error(subject, bound)
        except Exception as error:  # code that expects more steps may raise anything
            return failed(f"with {quantity(steps, 'step')} it raises {subject.describe_error(error)}")
    numbers = {"errors": list(errors.values())}
    for steps, error in errors.items():
        if error > allowed[steps]:
            off = f"off by {error:.1e} where the data is a point" if error < float("inf") else "not finite"
            return failed(f"with {quantity(steps, 'step')} the output is {off}", **numbers)
    if refused:
        return warned(f"refuses steps={', '.join(refused)}", **numbers)
    return passed("right with 1, 2 and 3 steps", **numbers)


def timesteps(subject: Subject) -> Outcome:
    """A list of timesteps is visited as given."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    low, high = subject.reference_case.training.schedule.timestep_range
    share = (1.0, 0.93, 0.61, 0.34, 0.12, 0.02)
    chosen = [low + (high - low) * part for part in share]
    chosen = [float(round(t)) for t in chosen] if high > 10 else chosen
    if subject.is_class and not isinstance(subject.scheduler, type):
        return skipped("is an object of a class, whose grid is its own")
    return _on_list(subject, chosen)


def _on_list(subject: Subject, chosen: Sequence[float]) -> Outcome:
    try:
        bound = subject.bind(len(chosen), subject.reference_case, Grid(GIVEN, timesteps=tuple(chosen)))
    except InputError as error:
        return skipped(str(error))
    error, allowed = path_error(subject, bound)
    if error > allowed:
        return failed(
            f"on timesteps {[round(t) for t in chosen]} its output is off by {error:.1e} where the data is a point"
        )
    visited = _visited(bound)
    for index, t in enumerate(chosen):
        level = subject.reference_case.training.schedule.at(t)
        if any(abs(ratio - level.ratio) <= 1e-4 * level.ratio for ratio in visited):
            continue
        moved = [
            *chosen[:index],
            t + 0.3 * ((chosen[index + 1] if index + 1 < len(chosen) else 0) - t),
            *chosen[index + 1 :],
        ]
        moved[index] = float(round(moved[index])) if subject.is_class else moved[index]
        if _visited(subject.bind(len(chosen), subject.reference_case, Grid(GIVEN, timesteps=tuple(moved)))) == visited:
            return failed(f"ignores the levels it is given: the network is never evaluated at timestep {t:g}")
    return passed("visits a list of timesteps as given", error=error)


def _visited(bound: Bound) -> list[float]:
    return [level.ratio for level, _ in bound.usual_walk.seen]


def middle_start(subject: Subject) -> Outcome:
    """Right from a noisy image in the middle of the timestep schedule, as in image-to-image."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    bound = subject.bind(STEPS)
    if not isinstance(bound, OfCode):
        return skipped("is a plan, which is for all of its steps")
    if isinstance(bound, OfClass) and not bound.can_begin_in_the_middle:
        return skipped(f"{bound.code.name} has no set_begin_index")
    tail = bound.part(STEPS // 2, STEPS)
    error, allowed = path_error(subject, tail)
    if error > allowed:
        off = f"off by {error:.1e} where the data is a point" if error < float("inf") else "not finite"
        return failed(f"started in the middle of its grid, its output is {off}", error=error)
    return passed("right when started in the middle of its grid", error=error)
