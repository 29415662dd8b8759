"""Schedulers that are wrong under one condition only: a number of steps, a kind of model, a size, a grid."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffexp import FlowSchedule, Plan, VESchedule, VPSchedule, scheduler
from diffexp.plan.predictions import Prediction
from tests.certify.faulty.functions import ancestral_step, euler_step
from tests.certify.faulty.right import table

Wrong = Callable[[Any, Tensor, Any], bool]
"""(denoise, x, levels) to whether a run is wrong."""
CONDITIONAL: list[tuple[Any, str, str]] = []
"""Scheduler, the check that has to fail, and a pattern in its sentence: the true reason."""


def fault(check: str, reason: str) -> Callable[[Any], Any]:
    def add(faulty: Any) -> Any:
        CONDITIONAL.append((faulty, check, reason))
        return faulty

    return add


def small_x0(name: str, wrong: Wrong, check: str, reason: str) -> None:
    """Add Euler's method with x0 too small by 2 % where ``wrong``."""

    def faulty(denoise, x, levels, noise):
        factor = 0.98 if wrong(denoise, x, levels) else 1.0
        for here, there in levels.pairs():
            x = euler_step(x, factor * denoise(x, here), here, there)
        return x

    faulty.__name__ = name
    fault(check, reason)(faulty)


def too_noisy(name: str, wrong: Wrong, check: str, reason: str) -> None:
    """Add ancestral sampling with noise too large by 5 % where ``wrong``."""

    def faulty(denoise, x, levels, noise):
        factor = 1.05 if wrong(denoise, x, levels) else 1.0
        for here, there in levels.pairs():
            x = ancestral_step(x, denoise(x, here), here, there, noise(), factor)
        return x

    faulty.__name__ = name
    fault(check, reason)(faulty)


def weak_heun(name: str, wrong: Wrong, check: str, reason: str) -> None:
    """Add Heun's method with weights 0.3 and 0.7 where ``wrong``: exact on a point, but of order 1."""

    def faulty(denoise, x, levels, noise):
        first = 0.3 if wrong(denoise, x, levels) else 0.5
        for here, there in levels.pairs():
            x0 = denoise(x, here)
            slope = (x - here.alpha * x0) / here.sigma
            predicted = there.alpha * x0 + there.sigma * slope
            if there.sigma:
                after = (predicted - there.alpha * denoise(predicted, there)) / there.sigma
                slope = first * slope + (1 - first) * after
                predicted = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * slope)
            x = predicted
        return x

    faulty.__name__ = name
    fault(check, reason)(scheduler(order=2)(faulty))


# The timestep that the network gets


def informed(name: str, of: Callable[[Any, Any], float], reason: str) -> None:
    """Add Euler's method whose network gets the timestep ``of`` (here, there)."""

    def faulty(denoise, x, levels, noise):
        for here, there in levels.pairs():
            x = euler_step(x, denoise(x, replace(here, timestep=of(here, there))), here, there)
        return x

    faulty.__name__ = name
    fault("told", reason)(faulty)


GETS = r"gives the network timestep .* where the noise in its input is that of timestep"
informed("half_a_step_off", lambda here, there: (here.timestep + there.timestep) / 2, GETS)
informed("half_a_training_step_off", lambda here, there: max(here.timestep - 0.5, 0.0), GETS)
informed("half_a_training_step_above", lambda here, there: min(here.timestep + 0.5, 999.0), GETS)
informed("gets_the_next", lambda here, there: there.timestep, GETS)
informed("cut_to_whole_timesteps", lambda here, there: float(math.floor(here.timestep)), GETS)


@fault("told", GETS)
def table_half_a_training_step_off(levels) -> Plan:
    made = table(levels)
    levels_off = [replace(row.level, timestep=max(row.level.timestep - 0.5, 0.0)) for row in made.rows]
    return replace(made, rows=tuple(replace(row, level=level) for row, level in zip(made.rows, levels_off)))


# Timestep schedules

LOST = r"converges with order (0|1)\.\d+ on steps of unlike lengths, with 2 on equal steps"


@fault("grids", LOST)
@scheduler(order=2)
def equal_steps_2m(denoise, x, levels, noise):
    """DPM-Solver++(2M) with r = 1."""
    last: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        estimate = x0 if last is None or not there.sigma else 1.5 * x0 - 0.5 * last
        shrink = there.sigma / here.sigma
        x = shrink * x + (there.alpha - here.alpha * shrink) * estimate
        last = x0
    return x


@fault("grids", LOST)
def undeclared_equal_steps_2m(denoise, x, levels, noise):
    return equal_steps_2m(denoise, x, levels, noise)


@fault("grids", LOST)
@scheduler(order=2)
def equal_steps_2m_sde(denoise, x, levels, noise):
    """The same on the reverse SDE."""
    last: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        if there.sigma == 0:
            return x0
        h = there.log_snr - here.log_snr
        estimate = x0 if last is None else 1.5 * x0 - 0.5 * last
        x = there.sigma / here.sigma * math.exp(-h) * x - there.alpha * math.expm1(-2 * h) * estimate
        x = x + there.sigma * math.sqrt(-math.expm1(-2 * h)) * noise()
        last = x0
    return x


@fault("grids", LOST)
@scheduler(order=2)
def first_ratio_2m(denoise, x, levels, noise):
    """DPM-Solver++(2M) with the r of the first two steps in all of them."""
    lengths = [there.log_snr - here.log_snr for here, there in levels.pairs()]
    r = lengths[0] / lengths[1] if len(lengths) > 2 else 1.0
    last: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        estimate = x0 if last is None or not there.sigma else x0 + 0.5 / r * (x0 - last)
        shrink = there.sigma / here.sigma
        x = shrink * x + (there.alpha - here.alpha * shrink) * estimate
        last = x0
    return x


# Numbers of steps


def steps_where(wrong: Callable[[int], bool]) -> Wrong:
    return lambda denoise, x, levels: wrong(levels.steps)


small_x0(
    "odd_above_9", steps_where(lambda n: n % 2 == 1 and n > 9), "step_counts", r"with odd numbers of steps above 9:"
)
small_x0("above_20", steps_where(lambda n: n > 20), "step_counts", r"wrong with numbers of steps above 20: off by")
small_x0("sevens", steps_where(lambda n: n % 7 == 0), "step_counts", r"wrong with 7, 21 steps")
small_x0("thirteen", steps_where(lambda n: n == 13), "step_counts", r"wrong with 13 steps")
small_x0("few", steps_where(lambda n: n < 6), "step_counts", r"wrong with numbers of steps up to 5")
small_x0("hundred", steps_where(lambda n: n >= 100), "step_counts", r"wrong with numbers of steps above 50")
too_noisy(
    "even_above_11", steps_where(lambda n: n % 2 == 0 and n > 11), "step_counts", r"with even numbers .* above 10"
)
too_noisy("above_30", steps_where(lambda n: n > 30), "step_counts", r"wrong with numbers of steps above 25: off by")
weak_heun(
    "weak_odd_above_9",
    steps_where(lambda n: n % 2 == 1 and n > 9),
    "step_counts",
    r"error jumps with .*; odd and even ones differ",
)
weak_heun("weak_above_20", steps_where(lambda n: n > 20), "step_counts", r"error jumps with .*2[01]")
weak_heun("weak_seventeen", steps_where(lambda n: n == 17), "step_counts", r"error jumps with .*17")

# Prediction types


def predicts(kind: Prediction) -> Wrong:
    return lambda denoise, x, levels: denoise._prediction is kind


small_x0("sample_prediction", predicts(Prediction.SAMPLE), "predictions", r"that predict sample .* right with epsilon")
small_x0(
    "v_prediction", predicts(Prediction.V), "predictions", r"networks that predict v_prediction .* right with epsilon"
)
small_x0("epsilon", predicts(Prediction.EPSILON), "predictions", r"networks that predict epsilon .* right with sample")
too_noisy("noisy_v", predicts(Prediction.V), "predictions", r"that predict v_prediction .* right with epsilon")
weak_heun(
    "weak_sample", predicts(Prediction.SAMPLE), "predictions", r"networks that predict sample .* right with epsilon"
)

# Clipping


@fault("clipping", r"does not clip")
def never_clips(denoise, x, levels, noise):
    for here, there in levels.pairs():
        _, eps = denoise.predict(x, here)
        x = euler_step(x, (x - here.sigma * eps) / here.alpha, here, there)
    return x


@fault("clipping", r"does not clip the x0 estimate of evaluation 1")
def clips_only_at_the_end(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = euler_step(x, (x - here.sigma * eps) / here.alpha if there.sigma else x0, here, there)
    return x


@fault("clipping", r"does not clip its x0 estimates: the output goes up to")
def clips_all_but_the_last(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = euler_step(x, x0 if there.sigma else (x - here.sigma * eps) / here.alpha, here, there)
    return x


@fault("clipping", r"wrong where the model clips: off by 2.0e-01")
def clips_at_one(denoise, x, levels, noise):
    for here, there in levels.pairs():
        _, eps = denoise.predict(x, here)
        x0 = (x - here.sigma * eps) / here.alpha
        x = euler_step(x, x0 if denoise._clip is None else x0.clamp(-1, 1), here, there)
    return x


small_x0(
    "small_where_clipped", lambda denoise, x, levels: denoise._clip is not None, "clipping", r"where the model clips"
)

# Noise schedules


def trained_as(*kinds: type) -> Wrong:
    return lambda denoise, x, levels: isinstance(levels.schedule, kinds)


small_x0("small_on_flow", trained_as(FlowSchedule), "point", r"on flow levels: .* updates are wrong")
small_x0("small_on_ve", trained_as(VESchedule), "point", r"on (ve|edm) levels: .* updates are wrong")
small_x0("small_on_vp", trained_as(VPSchedule), "point", r"updates are wrong.* right on ve, edm, flow levels")
too_noisy("noisy_on_flow", trained_as(FlowSchedule), "point", r"on flow levels: .* a wrong variance")
weak_heun("weak_on_flow", trained_as(FlowSchedule), "kinds", r"order 1.* for models with flow levels, with 2 for .* vp")
weak_heun("weak_on_ve", trained_as(VESchedule), "kinds", r"order 1.* for models with edm levels, with 2 for .* vp")

# Sizes


def of_size(wrong: Callable[[torch.Size], bool]) -> Wrong:
    return lambda denoise, x, levels: wrong(x.shape)


SIZE = r"does something else with "
small_x0("batch_above_4", of_size(lambda s: s[0] > 4), "sizes", SIZE + r"batches of 5 and .* right with batches of 4")
small_x0(
    "batch_above_100", of_size(lambda s: s[0] > 100), "sizes", SIZE + r"batches of 128 .* right with batches of 100"
)
small_x0("wide", of_size(lambda s: s[-1] > 64 and s[0] < 3), "sizes", SIZE + r"samples of shape \[1, 65, 65\]")
small_x0("many_elements", of_size(lambda s: s[1:].numel() > 20000), "sizes", SIZE + r"samples of shape \[4, 96, 128\]")
small_x0("four_channels", of_size(lambda s: len(s) > 3 and s[1] > 3), "sizes", SIZE + r"samples of shape \[4, 64, 64\]")
small_x0("landscape", of_size(lambda s: len(s) == 4 and s[2] < s[3] != 7), "sizes", SIZE + r"batches|samples")
small_x0("points", of_size(lambda s: len(s) == 2), "sizes", SIZE + r"samples of shape \[1\]")
too_noisy("noisy_batch", of_size(lambda s: s[0] > 2), "sizes", SIZE + r"batches of 3 and .* with batches of 2")
weak_heun("weak_batch", of_size(lambda s: s[0] > 8), "sizes", SIZE + r"batches of 9 and .* right with batches of 8")
small_x0(
    "third_of_batch", of_size(lambda s: s[0] == 3), "batch", r"changes by .* with the number of samples in its batch"
)
