"""What may be asked of every scheduler, whatever its method: to be a function of its inputs, at any number of steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffexp.certify.bound import Bound
from diffexp.certify.checks.point_data import path_error
from diffexp.certify.data import MIXTURE
from diffexp.certify.outcome import Outcome, failed, passed, skipped, warned
from diffexp.certify.runs import (
    BATCH,
    ONE,
    distance,
    sample_noise,
    start_of,
    usual_walk,
    walk,
    watching_random_state,
)
from diffexp.certify.subject import GIVEN, Subject
from diffexp.components.grids.choice import Grid
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.errors import InputError
from diffexp.plan.levels import Level

CONSISTENCY = "a consistency method is exact on no data but that of its network"
STEPS = 8
TOLD_OFF = 2e-3
"""Relative error of the noise that a network is told about; interpolation of timesteps makes less."""
ROUNDING = 1e-9


def deterministic(subject: Subject) -> Outcome:
    """Twice the same start and the same noise give the same output, bit by bit."""
    bound = subject.bind(STEPS, subject.home)
    with watching_random_state() as used:
        first, second = (walk(bound, MIXTURE) for _ in range(2))
        source = used()
    apart = distance(first.output, second.output)
    if source:
        return failed(f"draws from {source} instead of the noise it is given: no seed belongs to a sample", apart=apart)
    if apart:
        return failed(f"two runs from the same start with the same noise differ by {apart:.1e}", apart=apart)
    return passed("the same start and noise give the same output", apart=apart)


def batch(subject: Subject) -> Outcome:
    """A sample does not depend on the others of its batch."""
    bound = subject.bind(STEPS, subject.home)
    together = usual_walk(bound)
    if together.output.shape != (BATCH, *ONE):
        return failed(f"the output has shape {tuple(together.output.shape)} for a start of shape {(BATCH, *ONE)}")
    if together.output.dtype != torch.float64 and not subject.is_class:
        return failed(f"the output is {together.output.dtype} for a start in torch.float64")
    alone = [walk(bound, MIXTURE, start=start_of(bound, [i]), noise=sample_noise([i])).output for i in range(BATCH)]
    apart = distance(together.output, torch.cat(alone))
    if apart <= ROUNDING * max(1.0, together.output.abs().max().item()):
        return passed(f"a batch of {BATCH} gives what its samples give alone", apart=apart)
    same = start_of(bound, [0]).expand(BATCH, *ONE).clone()
    with watching_random_state() as used:
        twins = walk(bound, MIXTURE, start=same)
        random = twins.draws or used()
    equal = distance(twins.output[0], twins.output[1]) == 0
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
    return failed(f"a sample changes by {apart:.1e} with the others of its batch", apart=apart)


def inputs(subject: Subject) -> Outcome:
    """The start, the noise and the network's outputs are left as they are."""
    bound = subject.bind(STEPS, subject.home)
    code = bound.code
    if code is None:
        return skipped("is a plan, which edits nothing")
    handed: list[tuple[str, Tensor, Tensor]] = []

    def hand(name: str, value: Tensor) -> Tensor:
        handed.append((name, value, value.clone()))
        return value

    def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
        noisy = MIXTURE.clean_and_noise(u, level)
        return hand("what the network returned", bound.case.training.prediction.output(level, *noisy))

    noise = sample_noise()
    code(evaluate, hand("its start sample", start_of(bound)), lambda: hand("the noise it was given", noise()))
    edited = dict.fromkeys(name for name, now, before in handed if not torch.equal(now, before))
    if edited:
        return failed(f"edits {' and '.join(edited)} in place")
    return passed("leaves its start sample, the noise and the network's outputs as they are")


def reuse(subject: Subject) -> Outcome:
    """A run leaves nothing behind that the next one would find."""
    bound, other = subject.bind(STEPS, subject.home), subject.bind(STEPS + 3, subject.home)
    first = walk(bound, MIXTURE).output
    try:
        walk(other, MIXTURE)
        again = walk(bound, MIXTURE).output
        walk(other, MIXTURE, start=start_of(other, [0]), noise=sample_noise([0]))
        third = walk(bound, MIXTURE).output
        apart = max(distance(first, again), distance(first, third), _object_again(bound))
    except Exception as error:  # what stale state does to foreign code
        return failed(f"a run after another one raises {subject.blame(error)}: it keeps state between runs")
    if apart:
        return failed(
            f"a run after another one differs from it by {apart:.1e}: it keeps state between runs", apart=apart
        )
    return passed("a run after another one is the same as the first", apart=apart)


def _object_again(bound: Bound) -> float:
    """Of a class: how far two runs of one object are apart, with ``set_timesteps`` between them."""
    code = bound.code
    if not isinstance(code, ClassMethod):
        return 0.0
    scheduler = code.prepared(torch.float32)

    def run() -> Tensor:
        def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
            return bound.case.training.prediction.output(level, *MIXTURE.clean_and_noise(u, level))

        torch.manual_seed(0)
        return code.drive(scheduler, evaluate, start_of(bound))

    state = torch.get_rng_state()
    first = run()
    code.set_timesteps(scheduler)
    second = run()
    torch.set_rng_state(state)
    return distance(first, second)


def few_steps(subject: Subject) -> Outcome:
    """With 1, 2 and 3 steps the output is finite and, where the data is a point, right."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    errors, allowed, refused = {}, {}, []
    for steps in (1, 2, 3):
        try:
            bound = subject.bind(steps, subject.home)
        except InputError as error:
            refused.append(f"{steps} ({error})")
            continue
        try:
            errors[steps], allowed[steps] = path_error(subject, bound)
        except Exception as error:  # whatever happens to code that expects more steps
            return failed(f"with {steps} step{'s' if steps > 1 else ''} it raises {subject.blame(error)}")
    numbers = {"errors": list(errors.values())}
    for steps, error in errors.items():
        if error > allowed[steps]:
            off = f"off by {error:.1e} where the data is a point" if error < float("inf") else "not finite"
            return failed(f"with {steps} step{'s' if steps > 1 else ''} the output is {off}", **numbers)
    if refused:
        return warned(f"refuses steps={', '.join(refused)}", **numbers)
    return passed("right with 1, 2 and 3 steps", **numbers)


def timesteps(subject: Subject) -> Outcome:
    """A list of timesteps is visited as given."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    low, high = subject.home.training.schedule.timestep_range
    share = (1.0, 0.93, 0.61, 0.34, 0.12, 0.02)
    chosen = [low + (high - low) * part for part in share]
    chosen = [float(round(t)) for t in chosen] if high > 10 else chosen
    if isinstance(subject.scheduler, type) or not subject.is_class:
        return _on_list(subject, chosen)
    return skipped("is an object of a class, whose grid is its own")


def _on_list(subject: Subject, chosen: Sequence[float]) -> Outcome:
    try:
        bound = subject.bind(len(chosen), subject.home, Grid(GIVEN, timesteps=list(chosen)))
    except InputError as error:
        return skipped(str(error))
    error, allowed = path_error(subject, bound)
    if error > allowed:
        return failed(
            f"on timesteps {[round(t) for t in chosen]} its output is off by {error:.1e} where the data is a point"
        )
    visited = _visited(bound)
    for index, t in enumerate(chosen):
        level = subject.home.training.schedule.at(t)
        if any(abs(ratio - level.ratio) <= 1e-4 * level.ratio for ratio in visited):
            continue
        moved = [
            *chosen[:index],
            t + 0.3 * ((chosen[index + 1] if index + 1 < len(chosen) else 0) - t),
            *chosen[index + 1 :],
        ]
        moved[index] = float(round(moved[index])) if subject.is_class else moved[index]
        if _visited(subject.bind(len(chosen), subject.home, Grid(GIVEN, timesteps=moved))) == visited:
            return failed(f"ignores the levels it is given: the network is never asked at timestep {t:g}")
    return passed("visits a list of timesteps as given", error=error)


def _visited(bound: Bound) -> list[float]:
    return [level.ratio for level, _ in usual_walk(bound).seen]


def told(subject: Subject) -> Outcome:
    """The timestep that the network is told stands for the noise that it sees."""
    if not subject.is_class:
        return skipped("a function hands the network the level itself")
    if subject.consistency:
        return skipped("counts time as the network of its own counts it")
    bound = subject.bind(STEPS, subject.home)
    assert isinstance(bound.code, ClassMethod)
    schedule, off = subject.home.training.schedule, 0.0
    for level, _ in usual_walk(bound).seen:
        meant = bound.code.level(level.timestep)
        off = max(off, abs(meant.ratio / level.ratio - 1))
    if off > TOLD_OFF:
        low, high = schedule.timestep_range
        return warned(
            f"tells the network timesteps whose noise is off by up to {100 * off:.2g} % (training: {low:g}..{high:g})",
            off=off,
        )
    return passed("tells the network the noise that it sees", off=off)


def middle_start(subject: Subject) -> Outcome:
    """From a noisy picture in the middle of the grid, as in image-to-image."""
    if subject.consistency:
        return skipped(CONSISTENCY)
    bound = subject.bind(STEPS, subject.home)
    tail = bound.part(STEPS // 2, STEPS)
    if tail is None:
        return skipped("is a plan, which is for all of its steps")
    if isinstance(bound.code, ClassMethod) and not hasattr(bound.code.scheduler, "set_begin_index"):
        timesteps_alone = not hasattr(bound.code.scheduler, "step_index")
        if not timesteps_alone:
            return skipped(f"{bound.code.name} has no set_begin_index")
    error, allowed = path_error(subject, tail)
    if error > allowed:
        off = f"off by {error:.1e} where the data is a point" if error < float("inf") else "not finite"
        return failed(f"started in the middle of its grid, its output is {off}", error=error)
    return passed("right when started in the middle of its grid", error=error)
