"""Exponential integrators: steps in the log signal-to-noise ratio, exact but for how the estimate changes on the way.

With lambda = log(alpha / sigma) and h = lambda' - lambda the probability-flow ODE has the solutions

    x' = sigma'/sigma x + alpha' * integral_0^h exp(tau - h) x0(lambda + tau) dtau
    x' = alpha'/alpha x - sigma' * integral_0^h exp(h - tau) eps(lambda + tau) dtau

(Lu et al. 2022, arXiv:2211.01095, proposition 4.1, and arXiv:2206.00927, proposition 3.1). A solver puts a polynomial
through its last estimates for x0 or eps. The integral is then that of a weighted mean of these estimates as if it were
constant, so that a step has two parts: the weights, and the step for a constant.

h is infinite in a step to the clean end and in one that starts without signal (flow models); this holds there too.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from torch import Tensor

from diffexp.errors import InputError
from diffexp.plan.execute import weighted
from diffexp.plan.levels import Level, Levels

FEW_STEPS = 15
"""Below this many steps DPM-Solver and DEIS end with lower orders, as their authors' code and diffusers do."""


def step_length(here: Level, there: Level) -> float:
    """h = lambda' - lambda > 0; inf to the clean end and from alpha = 0."""
    return there.log_snr - here.log_snr


def data_step(x: Tensor, here: Level, there: Level, x0: Tensor) -> Tensor:
    """x' where the x0 estimate stays as it is: x' = sigma'/sigma x + alpha' (1 - exp(-h)) x0; this is DDIM."""
    return there.sigma / here.sigma * x - there.alpha * math.expm1(-step_length(here, there)) * x0


def noise_step(x: Tensor, here: Level, there: Level, eps: Tensor) -> Tensor:
    """x' where the noise estimate stays as it is: x' = alpha'/alpha x - sigma' (exp(h) - 1) eps; needs alpha > 0."""
    return there.alpha / here.alpha * x + there.alpha * (there.ratio - here.ratio) * eps


def sde_step(x: Tensor, here: Level, there: Level, x0: Tensor, eta: float, noise: Callable[[], Tensor]) -> Tensor:
    """``data_step`` on the reverse SDE that adds noise at ``eta`` times the rate of the forward one.

    x' = sigma'/sigma exp(-eta h) x + alpha' (1 - exp(-(1 + eta) h)) x0 + sigma' sqrt(1 - exp(-2 eta h)) z
    (Xue et al. 2023, arXiv:2309.05019, section 4 with tau^2 = eta). Nothing is drawn where nothing would be added.

    Raises:
        InputError: negative ``eta``.
    """
    if eta < 0:
        raise InputError(f"eta={eta:g} must be at least 0; 0 adds no noise")
    if eta == 0:
        return data_step(x, here, there, x0)
    h = step_length(here, there)
    x = there.sigma / here.sigma * math.exp(-eta * h) * x - there.alpha * math.expm1(-(1 + eta) * h) * x0
    if there.sigma == 0:
        return x
    return x + there.sigma * math.sqrt(-math.expm1(-2 * eta * h)) * noise()


def step_orders(levels: Levels, order: int, lower_final: bool) -> Iterator[int]:
    """Return the number of estimates that each step of a multistep method uses.

    From 1 up to ``order`` as estimates become available; with ``lower_final`` down to 1 again towards the end. A step
    to the clean end uses 1: it is infinitely long, and any other polynomial would leave for infinity.
    """
    for k, there in enumerate(levels[1:]):
        final = levels.steps - k if lower_final else order
        yield min(order, k + 1, final) if there.sigma else 1


def phi(k: int, z: float) -> float:
    """phi_k(z) = integral_0^1 exp((1 - u) z) u^(k-1) / (k-1)! du for k >= 1, and phi_0(z) = exp(z)."""
    if k == 0:
        return math.exp(z)
    if abs(z) < 2:  # the recursion cancels here, and the series does not
        return math.fsum(z**i / math.factorial(i + k) for i in range(30))
    value = math.expm1(z) / z
    for i in range(1, k):
        value = (value - 1 / math.factorial(i)) / z
    return value


def adams_weights(nodes: Sequence[float], start: float, end: float, rate: float) -> list[float]:
    """Weights of estimates in the mean that a step takes of their polynomial; they sum to 1.

    w_j = integral exp(rate * (end - l)) L_j(l) dl / integral exp(rate * (end - l)) dl from ``start`` to ``end``, where
    L_j is the Lagrange polynomial that is 1 at ``nodes[j]``. At rate 0 these are the weights of Adams and Bashforth.

    Args:
        nodes: log signal-to-noise ratio of each estimate, all different; one at -inf has no weight beside others.
        start, end: of the step; finite where there are several nodes.
        rate: -1 for x0 estimates, +1 for noise estimates, -(1 + eta) for x0 estimates on the SDE of ``sde_step``.
    """
    if len(nodes) == 1:
        return [1.0]
    h = end - start
    places = [(node - start) / h for node in nodes if math.isfinite(node)]
    powers = range(len(places))
    # sum_j w_j u_j^k = mean of u^k over the step, for every power k that the polynomial has
    means = [math.factorial(k) * phi(k + 1, rate * h) / phi(1, rate * h) for k in powers]
    found = iter(np.linalg.solve([[place**k for place in places] for k in powers], means).tolist())
    return [next(found) if math.isfinite(node) else 0.0 for node in nodes]


def slope_weight(solver_type: Literal["midpoint", "heun"], z: float) -> float:
    """The point of a step, in (0, 1), at which an estimate with constant slope is read.

    ``heun`` integrates the slope exactly; ``midpoint`` is its limit for small z, the rate times h of ``adams_weights``.
    """
    return 0.5 if solver_type == "midpoint" else phi(2, z) / phi(1, z)


def adams_bashforth(slopes: Sequence[Tensor]) -> Tensor:
    """The mean slope of the next step by the last ones, newest first, as if all steps were of equal size.

    With four of them (55, -59, 37, -9) / 24: Adams and Bashforth's formulas of order 1 to 4.
    """
    weights = adams_weights([-float(age) for age in range(len(slopes))], 0.0, 1.0, rate=0.0)
    return weighted(list(zip(weights, slopes)))
