"""Grids spaced by the quantiles of a beta distribution: most of the steps near both ends (Lee et al. 2024)."""

import math

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import at_sigmas, check_steps, ending_clean, sigma_range
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule


@grid
def beta(
    schedule: Schedule,
    steps: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.6,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Levels:
    """Sigmas at beta quantiles between the ends of the training range (diffusers' use_beta_sigmas).

    diffusers applies the quantiles of Beta Sampling (Lee et al. 2024, arXiv:2407.12173) to sigma; the paper, and
    ComfyUI's ``beta``, apply them to training time. That one is ``beta_timesteps``.

    Args:
        alpha, beta: of the distribution, greater than 0; below 1 they pull the steps to low and to high noise.
        sigma_min, sigma_max: ends of the range; null: those of the training schedule.

    Raises:
        InputError: alpha or beta of 0 or less, or an empty range.
    """
    check_steps(schedule, steps)
    low, high = sigma_range(schedule, sigma_min, sigma_max)
    places = _quantiles(np.linspace(1, 0, steps), alpha, beta)
    return at_sigmas(schedule, (low + place * (high - low) for place in places))


@grid
def beta_timesteps(schedule: Schedule, steps: int, *, alpha: float = 0.6, beta: float = 0.6) -> Levels:
    """Training timesteps at beta quantiles (Lee et al. 2024, arXiv:2407.12173): what ComfyUI calls beta.

    ComfyUI rounds them to whole timesteps and drops those that then coincide; here they stay where they are, so that
    there are as many as asked for.

    Args:
        alpha, beta: of the distribution, greater than 0; below 1 they pull the steps to low and to high noise.

    Raises:
        InputError: alpha or beta of 0 or less.
    """
    check_steps(schedule, steps)
    places = _quantiles(1 - np.arange(steps) / steps, alpha, beta)
    last = schedule.num_train_timesteps - 1
    return ending_clean(schedule, (schedule.at_index(place * last) for place in places))


def _quantiles(probabilities: np.ndarray, alpha: float, beta: float) -> list[float]:
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 < value < math.inf:
            raise InputError(f"grid.{name}={value:g} must be greater than 0")
    return [beta_quantile(p, alpha, beta) for p in probabilities.tolist()]


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x in [0, 1] with I_x(a, b) = p: the inverse of the regularised incomplete beta function (a, b > 0)."""
    if p <= 0 or p >= 1:
        return 0.0 if p <= 0 else 1.0
    if p <= beta_distribution(0.5, a, b):
        return _lower_quantile(p, a, b)
    return 1 - _lower_quantile(1 - p, b, a)


def _lower_quantile(p: float, a: float, b: float) -> float:
    """The same where it is at most 1/2.

    By Newton's method on log I over log x: nearly a straight line, and curved to one side only, so that from these
    starts every step but the first comes from the same side and none leads astray.
    """
    x = 0.5 if b < 1 else min(0.5, a / (a + b))
    for _ in range(100):
        reached = beta_distribution(x, a, b)
        slope = math.exp(a * math.log(x) + (b - 1) * math.log1p(-x) - _log_beta(a, b)) / reached
        step = math.log(reached / p) / slope
        x *= math.exp(-step)
        if abs(step) < 1e-15:
            break
    return x


def beta_distribution(x: float, a: float, b: float) -> float:
    """I_x(a, b), the distribution function of the beta distribution, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where it converges fast
        return 1 - beta_distribution(1 - x, b, a)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) - _log_beta(a, b)) / a
    # Evaluated from the front, with numerators and denominators kept apart (Lentz's method).
    value = numerator = 1.0
    denominator = 0.0
    for n in range(1, 500):
        m = n // 2
        if n % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / (1 + term * denominator)
        numerator = 1 + term / numerator
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-16:
            break
    return front / value


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
