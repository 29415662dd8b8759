"""Exponential integrators: their functions, weights and orders against integrals."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st
from scipy.integrate import quad

from diffexp.components import grids
from diffexp.components.schedulers.shared.exponential import adams_weights, phi, slope_weight, step_orders
from diffexp.plan.schedules import VPSchedule


@given(st.integers(1, 5), st.floats(-12, 12))
def test_phi_is_its_integral(k: int, z: float) -> None:
    exact = quad(lambda u: math.exp((1 - u) * z) * u ** (k - 1) / math.factorial(k - 1), 0, 1, epsabs=0, epsrel=1e-13)
    assert phi(k, z) == pytest.approx(exact[0], rel=1e-11)


def test_at_rate_0_the_weights_are_those_of_adams() -> None:
    assert adams_weights([0, -1, -2], 0, 1, rate=0) == pytest.approx([23 / 12, -16 / 12, 5 / 12])
    assert adams_weights([0, -1, -2, -3], 0, 1, rate=0) == pytest.approx([55 / 24, -59 / 24, 37 / 24, -9 / 24])
    assert adams_weights([0, -1, 1], 0, 1, rate=0) == pytest.approx([8 / 12, -1 / 12, 5 / 12])  # Moulton


@given(st.lists(st.floats(0.3, 2), min_size=1, max_size=3), st.floats(0.1, 4), st.floats(-2, 2))
def test_weights_take_the_mean_of_a_polynomial_exactly(gaps: list[float], h: float, rate: float) -> None:
    nodes = [0.7]
    for gap in gaps:
        nodes.append(nodes[-1] - gap * h)
    degree = len(nodes) - 1

    def kernel(t: float) -> float:
        return math.exp(rate * (0.7 + h - t))

    weights = adams_weights(nodes, 0.7, 0.7 + h, rate)
    exact = quad(lambda t: kernel(t) * t**degree, 0.7, 0.7 + h)[0] / quad(kernel, 0.7, 0.7 + h)[0]
    assert sum(weights) == pytest.approx(1)
    assert sum(w * node**degree for w, node in zip(weights, nodes)) == pytest.approx(exact, rel=1e-8, abs=1e-8)


def test_a_node_without_signal_has_no_weight() -> None:
    near = adams_weights([0.0, -1.0], 0.0, 1.0, rate=-1)
    assert adams_weights([0.0, -1.0, -math.inf], 0.0, 1.0, rate=-1) == [*near, 0.0]
    far = adams_weights([0.0, -1.0, -1e9], 0.0, 1.0, rate=-1)
    assert far == pytest.approx([*near, 0.0], abs=1e-8)


@given(st.floats(-5, 5).filter(lambda z: abs(z) > 1e-3))
def test_the_exact_slope_is_that_of_the_weights(z: float) -> None:
    weights = adams_weights([0.0, -1.0], 0.0, 1.0, rate=z)
    assert slope_weight("heun", z) == pytest.approx(-weights[1], rel=1e-9)
    assert slope_weight("midpoint", z) == 0.5


def test_orders_rise_at_the_start_and_fall_at_the_end() -> None:
    def orders(steps: int, order: int, lower_final: bool, clean: bool = True) -> list[int]:
        levels = grids.trailing(VPSchedule.from_betas(), steps)
        if not clean:
            levels = replace(levels, points=(*levels.points[:-1], levels.schedule.at(0)))
        return list(step_orders(levels, order, lower_final))

    assert orders(6, 3, True) == [1, 2, 3, 3, 2, 1]
    assert orders(6, 3, False) == [1, 2, 3, 3, 3, 1]
    assert orders(6, 3, False, clean=False) == [1, 2, 3, 3, 3, 3]
    assert [orders(n, 3, True) for n in (1, 2, 3)] == [[1], [1, 1], [1, 2, 1]]
