"""Gradient estimation beside DDIM, on exact models."""

from typing import Any

import pytest
import torch

import diffexp


def error(scheduler: str, steps: int, **options: Any) -> float:
    """Exact 2-Wasserstein error on Gaussian data with a wide spectrum."""
    variances = torch.logspace(0, -4, 40, dtype=torch.float64)
    plan = diffexp.compile(scheduler, steps=steps, grid="karras", **options)
    _, out = diffexp.gaussian_output(plan, torch.zeros(40), variances)
    return (out.sqrt() - variances.sqrt()).norm().item()


def test_at_gamma_1_it_is_ddim() -> None:
    plan = diffexp.compile("gradient_estimation", steps=8, gamma=1.0)
    assert plan.difference(diffexp.compile("ddim", steps=8)) < 1e-14


def test_it_reads_one_step_back() -> None:
    plan = diffexp.compile("gradient_estimation", steps=8)
    assert (plan.nfe, plan.depth, plan.draws) == (8, 1, 0)


@pytest.mark.parametrize("steps", [5, 10, 20])
def test_it_beats_ddim(steps: int) -> None:
    assert error("gradient_estimation", steps) < 0.7 * error("ddim", steps)
