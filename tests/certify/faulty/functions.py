"""Schedulers with one planted fault each, and the check that has to find it with the right reason."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffexp import scheduler


@dataclass(frozen=True)
class Fault:
    """A faulty scheduler."""

    scheduler: Callable[..., Any]
    check: str
    """The check that fails."""
    reason: str
    """A pattern in its sentence: the right reason."""


FAULTS: list[Fault] = []


def fault(check: str, reason: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        FAULTS.append(Fault(function, check, reason))
        return function

    return add


def euler_step(x: Tensor, x0: Tensor, here: Any, there: Any) -> Tensor:
    return there.alpha * x0 + there.sigma * (x - here.alpha * x0) / here.sigma


def ancestral(here: Any, there: Any) -> tuple[float, float]:
    """(sigma / alpha to go down to, standard deviation of the noise to add)."""
    up = there.ratio * math.sqrt(max(1 - (there.ratio / here.ratio) ** 2, 0))
    return math.sqrt(max(there.ratio**2 - up**2, 0)), up


def ancestral_step(x: Tensor, x0: Tensor, here: Any, there: Any, z: Tensor, factor: float = 1.0) -> Tensor:
    down, up = ancestral(here, there)
    return there.alpha * (x0 + down / here.sigma * (x - here.alpha * x0) + factor * up * z)


# Wrong coefficients


@fault("point", r"update 10 of 20, from sigma .* a wrong coefficient")
def wrong_in_the_middle(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        x = euler_step(x, denoise(x, here), here, there)
        if k == levels.steps // 2 - 1:
            x = 1.01 * x
    return x


@fault("point", r"update 1 of 20, from sigma .* a wrong coefficient")
def wrong_in_the_first_step(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        x0 = denoise(x, here)
        x = euler_step(x, 0.9 * x0 if k == 0 else x0, here, there)
    return x


@fault("point", r"the last step, from sigma .* to the clean end, is off by 1.0e-02 .* a wrong coefficient")
def wrong_in_the_last_step(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x = 0.99 * x0 if there.sigma == 0 else euler_step(x, x0, here, there)
    return x


@fault("point", r"20 of 20 updates are wrong, the first of them update 1")
def wrong_in_every_step(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x = there.alpha * x0 + 1.02 * there.sigma * (x - here.alpha * x0) / here.sigma + (there.sigma == 0) * 0.02 * x0
    return x


@fault("order", r"order 1\.\d+ .*although it looks back or evaluates more than once a step: a wrong coefficient")
def uneven_heun(denoise, x, levels, noise):
    """Heun's method with weights 0.4 and 0.6, declaring no order."""
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        slope = (x - here.alpha * x0) / here.sigma
        predicted = there.alpha * x0 + there.sigma * slope
        if there.sigma:
            after = (predicted - there.alpha * denoise(predicted, there)) / there.sigma
            slope = 0.4 * slope + 0.6 * after
            predicted = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * slope)
        x = predicted
    return x


@fault("order", r"converges more slowly than it should: order 1\.\d+ .*\(declared 2\).*a wrong coefficient")
@scheduler(order=2)
def overshooting_2m(denoise, x, levels, noise):
    """DPM-Solver++(2M) with 1 / r for 1 / (2 r)."""
    last: Any = None
    before: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        estimate = x0
        if last is not None and there.sigma:
            r = (here.log_snr - before.log_snr) / (there.log_snr - here.log_snr)
            estimate = (1 + 1 / r) * x0 - 1 / r * last
        shrink = there.sigma / here.sigma
        x = shrink * x + (there.alpha - here.alpha * shrink) * estimate
        last, before = x0, here
    return x


@fault("order", r"converges more slowly than it should: order 2\.\d+ .*1\.\d+ from half as many steps on")
@scheduler(order=2)
def almost_2m(denoise, x, levels, noise):
    """DPM-Solver++(2M) with 0.49 for 1 / 2: the error of order 1 shows at many steps only."""
    last: Any = None
    before: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        estimate = x0
        if last is not None and there.sigma:
            r = (here.log_snr - before.log_snr) / (there.log_snr - here.log_snr)
            estimate = x0 + 0.49 / r * (x0 - last)
        shrink = there.sigma / here.sigma
        x = shrink * x + (there.alpha - here.alpha * shrink) * estimate
        last, before = x0, here
    return x


@fault("order", r"order -?0\.\d+|does not converge to the truth")
def straight_in_time(denoise, x, levels, noise):
    """Adds the velocity of the wrong variable: consistent on no data but a point at 0."""
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = x + (there.alpha - here.alpha) * x0 + (there.sigma - here.sigma) * 0.9 * eps
    return x


@fault("even", r"the update from evaluation 27 to 29 of 79, .* times the error of those around it: a wrong coefficient")
@scheduler(order=2)
def one_bad_weight(denoise, x, levels, noise):
    """Heun's method, whose weights are 0 and 1 in a single step: that keeps its order."""
    for k, (here, there) in enumerate(levels.pairs()):
        x0 = denoise(x, here)
        slope = (x - here.alpha * x0) / here.sigma
        predicted = there.alpha * x0 + there.sigma * slope
        if there.sigma:
            after = (predicted - there.alpha * denoise(predicted, there)) / there.sigma
            first = 0.0 if k == levels.steps // 3 else 0.5
            slope = first * slope + (1 - first) * after
            predicted = there.alpha * (x / here.alpha + (there.ratio - here.ratio) * slope)
        x = predicted
    return x


@fault("point", r"the last step, .* leaves noise of standard deviation 0.05 in the output: a wrong variance")
def noise_at_the_end(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = euler_step(x, denoise(x, here), here, there)
    return x + 0.05 * noise()


@fault("order", r"weak order (0|1)\.\d+ .*although it looks back or evaluates more than once a step")
def overshooting_2m_sde(denoise, x, levels, noise):
    """SDE-DPM-Solver++(2M) with twice the correction, declaring no order."""
    last: Any = None
    before: Any = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        if there.sigma == 0:
            return x0
        h = there.log_snr - here.log_snr
        estimate = x0 if last is None else x0 + h / (here.log_snr - before.log_snr) * (x0 - last)
        x = there.sigma / here.sigma * math.exp(-h) * x - there.alpha * math.expm1(-2 * h) * estimate
        x = x + there.sigma * math.sqrt(-math.expm1(-2 * h)) * noise()
        last, before = x0, here
    return x


# Noise


@fault("point", r"what it adds has a wrong variance")
def too_much_noise(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = ancestral_step(x, denoise(x, here), here, there, noise(), 1.05)
    return x


@fault("point", r"update 7 of 20, .*what it adds has a wrong variance")
def one_step_with_too_little_noise(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        x = ancestral_step(x, denoise(x, here), here, there, noise(), 0.8 if k == 6 and levels.steps > 7 else 1.0)
    return x


@fault("point", r"uses a noise again that was used before")
def same_noise_twice(denoise, x, levels, noise):
    z = None
    for k, (here, there) in enumerate(levels.pairs()):
        z = noise() if z is None or k % 2 == 0 else z
        x = ancestral_step(x, denoise(x, here), here, there, z)
    return x


@fault("batch", r"the noise is shared over the batch")
def first_noise_for_all(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = ancestral_step(x, denoise(x, here), here, there, noise()[:1].expand_as(x))
    return x


@fault("batch", r"the noise is shared over the batch")
def randn_of_one(denoise, x, levels, noise):
    for here, there in levels.pairs():
        z = torch.randn(1, *x.shape[1:], dtype=x.dtype).expand_as(x)
        x = ancestral_step(x, denoise(x, here), here, there, z)
    return x


@fault("point", r"updates are wrong, the first of them update 2 .*uses a noise again that was used before")
def correlated_noise(denoise, x, levels, noise):
    z = None
    for here, there in levels.pairs():
        z = noise() if z is None else 0.5 * z + math.sqrt(0.75) * noise()
        x = ancestral_step(x, denoise(x, here), here, there, z)
    return x


@fault("batch", r"none draws from the noise it is given: it makes noise of its own")
def seed_of_its_own(denoise, x, levels, noise):
    generator = torch.Generator().manual_seed(0)
    for here, there in levels.pairs():
        x = ancestral_step(x, denoise(x, here), here, there, torch.empty_like(x).normal_(generator=generator))
    return x


@fault("deterministic", r"draws from torch's global generator")
def own_generator(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = ancestral_step(x, denoise(x, here), here, there, torch.empty_like(x).normal_())
    return x


@fault("deterministic", r"draws from numpy's global generator")
def numpy_generator(denoise, x, levels, noise):
    for here, there in levels.pairs():
        z = torch.from_numpy(np.random.standard_normal(tuple(x.shape))).to(x.dtype)  # noqa: NPY002
        x = ancestral_step(x, denoise(x, here), here, there, z)
    return x


# Precision


@fault("precision", r"its coefficients are float32 \(torch\.tensor gives float32\)")
def float32_coefficients(denoise, x, levels, noise):
    sigmas = torch.tensor([level.sigma for level in levels])
    for k, (here, there) in enumerate(levels.pairs()):
        x0 = denoise(x, here)
        x = there.alpha * x0 + sigmas[k + 1] / sigmas[k] * (x - here.alpha * x0)
    return x


@fault("batch", r"the output is torch\.float16 for a start in torch\.float64")
def returns_float16(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = euler_step(x, denoise(x, here), here, there)
    return x.half()


@fault("precision", r"its coefficients are float32")
def numpy_float32(denoise, x, levels, noise):
    sigmas = np.array([level.sigma for level in levels], dtype=np.float32)
    for k, (here, there) in enumerate(levels.pairs()):
        x0 = denoise(x, here)
        x = there.alpha * x0 + float(sigmas[k + 1] / sigmas[k]) * (x - here.alpha * x0)
    return x


# The conventions of others


@fault("point", r"updates are wrong|a wrong coefficient")
def sample_wrong_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """k-diffusion's convention, with 0.45 for 0.5."""
    for here, there in zip(sigmas, sigmas[1:]):
        d = (x - model(x, here)) / here
        after = x + d * (there - here)
        if there > 0:
            d = 0.45 * (d + (after - model(after, there)) / there)
            after = x + d * (there - here)
        x = after
    return x


@fault("batch", r"the noise is shared over the batch")
def sample_shared(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """k-diffusion's Euler a, with one draw for the whole batch."""
    for here, there in zip(sigmas, sigmas[1:]):
        up = (there**2 * (here**2 - there**2) / here**2).sqrt()
        down = (there**2 - up**2).sqrt()
        x = x + (x - model(x, here)) / here * (down - here)
        if there > 0:
            x = x + torch.randn(x.shape[1:], dtype=x.dtype) * up
    return x
