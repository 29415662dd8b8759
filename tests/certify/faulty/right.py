"""Schedulers without a fault, as people write them; nothing in a certificate may be held against them."""

import math
from typing import Any

import torch

from diffexp import Plan
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import bind
from diffexp.components.schedulers.euler import euler
from diffexp.plan.compile import compile_method
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training


def sample_heun(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for here, there in zip(sigmas, sigmas[1:]):
        d = (x - model(x, here)) / here
        after = x + d * (there - here)
        if there > 0:
            after = x + (d + (after - model(after, there)) / there) / 2 * (there - here)
        x = after
    return x


def sample_dpmpp_2m(model, x, sigmas, extra_args=None, callback=None, disable=None):
    old, times = None, -sigmas.log()
    for i in range(len(sigmas) - 1):
        x0 = model(x, sigmas[i])
        h = times[i + 1] - times[i]
        estimate = x0
        if old is not None and sigmas[i + 1] > 0:
            r = (times[i] - times[i - 1]) / h
            estimate = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * old
        x = sigmas[i + 1] / sigmas[i] * x - torch.expm1(-h) * estimate
        old = x0
    return x


def sample_euler_ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    for here, there in zip(sigmas, sigmas[1:]):
        up = (there**2 * (here**2 - there**2) / here**2).sqrt()
        down = (there**2 - up**2).sqrt()
        x = x + (x - model(x, here)) / here * (down - here)
        if there > 0:
            x = x + torch.randn_like(x) * up
    return x


def euler_maruyama(denoise, x, levels, noise):
    """The reverse SDE in x / alpha by its plainest discretisation, which is exact on no data."""
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        if there.sigma == 0:
            return x0
        y = x / here.alpha + 2 * (there.ratio - here.ratio) * eps
        x = there.alpha * (y + math.sqrt(here.ratio**2 - there.ratio**2) * noise())
    return x


def table(levels) -> Plan:
    """A function that returns a plan."""
    training = Training(VPSchedule.from_betas())
    return compile_method(bind(euler, steps=levels.steps, training=training, grid=grids_of(levels)))


def grids_of(levels) -> Any:

    return Grid("given", lambda schedule, steps: levels)


RIGHT = (sample_heun, sample_dpmpp_2m, sample_euler_ancestral, euler_maruyama, table)
