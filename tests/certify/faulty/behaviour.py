"""More of them: wrong at the ends, on other levels or numbers of steps, or in their use of noise, inputs and state.

``FAULTS`` are those of ``tests.certify.faulty.functions`` and these.
"""

import math

import torch
from torch import Tensor

from tests.certify.faulty.functions import FAULTS, Fault, ancestral, euler_step, fault

__all__ = ["FAULTS", "Fault"]

# Ends


@fault("ends", r"the last step, to sigma = 0, gives nan")
def nan_at_the_end(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        h = there.log_snr - here.log_snr
        x = there.sigma / here.sigma * x + there.alpha * x0 * (1 - math.exp(-h)) * (h / h)
    return x


@fault("ends", r"the last step, to sigma = 0, gives (inf|nan)")
def inf_at_the_end(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x = euler_step(x, x0, here, there) * (1 / torch.tensor(there.sigma) if there.sigma == 0 else 1)
    return x


@fault("ends", r"the update after evaluation 1 gives nan")
def nan_at_the_start(denoise, x, levels, noise):
    previous = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x = euler_step(x, x0, here, there) * (math.nan if previous is None and levels.steps > 1 else 1.0)
        previous = x0
    return x


# Levels


@fault("point", r"the first evaluation gets sigma 94.65 for a sample that is at sigma 157.*: another level")
def off_by_one(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        told = there if there.sigma else here
        x0 = denoise(x, told if k < levels.steps - 1 else here)
        x = euler_step(x, x0, here, there)
    return x


@fault("timesteps", r"ignores the levels it is given|is off by")
def own_grid(denoise, x, levels, noise):
    high, low = levels[0].ratio, levels[-2].ratio
    own = [levels.schedule.at_ratio(high * (low / high) ** (k / max(levels.steps - 1, 1))) for k in range(levels.steps)]
    own.append(levels[-1])
    for here, there in zip(own, own[1:]):
        x = euler_step(x, denoise(x, here), here, there)
    return x


@fault("few_steps", r"with 1 step it raises ZeroDivisionError")
def needs_two_steps(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        x = euler_step(x, denoise(x, here), here, there) * (1 + 0 * k / (levels.steps - 1))
    return x


@fault("few_steps", r"with 2 steps the output is not finite")
def fails_with_two_steps(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x = euler_step(x, denoise(x, here), here, there) * (math.nan if levels.steps == 2 else 1.0)
    return x


@fault("point", r"update 5 of 19, from sigma .* a wrong coefficient")
def leaves_a_step_out(denoise, x, levels, noise):
    for k, (here, there) in enumerate(levels.pairs()):
        x = x if k == 5 else euler_step(x, denoise(x, here), here, there)
    return x


@fault("middle_start", r"started in the middle of its grid, its output is off by")
def starts_at_the_top(denoise, x, levels, noise):
    top = levels.schedule.at(levels.schedule.timestep_range[1])
    for k, (here, there) in enumerate(levels.pairs()):
        x = euler_step(x, denoise(x, here), here, there)
        if k == 0 and here.ratio < 0.9 * top.ratio and there.sigma:
            x = x * 0.5
    return x


# Manners


@fault("inputs", r"edits its start sample in place")
def edits_its_start(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x.sub_(here.alpha * x0).mul_(there.sigma / here.sigma).add_(there.alpha * x0)
    return x


@fault("inputs", r"edits the noise it was given in place")
def edits_the_noise(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0, (down, up) = denoise(x, here), ancestral(here, there)
        x = there.alpha * (x0 + down / here.sigma * (x - here.alpha * x0) + noise().mul_(up))
    return x


@fault("inputs", r"edits what the network returned in place")
def edits_the_output(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = there.alpha * x0 + eps.mul_(there.sigma)
    return x


_remembered: list[Tensor] = []


@fault("reuse", r"keeps state between runs")
def remembers_the_last_run(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        if _remembered and _remembered[-1].shape == x0.shape:
            x0 = x0 + 0.01 * (x0 - _remembered[-1])
        _remembered[:] = [x0]
        x = euler_step(x, x0, here, there)
    return x


@fault("batch", r"a sample changes by .* with the others of its batch")
def normalizes_over_the_batch(denoise, x, levels, noise):
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        x = euler_step(x, x0 - 0.1 * x0.mean(dim=0, keepdim=True), here, there)
    return x
