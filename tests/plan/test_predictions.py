"""Predictions: every type gives back the x0 and eps that made x."""

import math
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, strategies as st

from diffexp.errors import InputError
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Clip, DynamicThreshold, Prediction

# Typed loosely, because tests hand over options as dictionaries.
DDIMScheduler: Any = diffusers.DDIMScheduler

numbers = st.floats(-3, 3)


def target(prediction: Prediction, x0: float, eps: float, level: Level) -> float:
    return {
        Prediction.EPSILON: eps,
        Prediction.SAMPLE: x0,
        Prediction.V: level.alpha * eps - level.sigma * x0,
        Prediction.FLOW: eps - x0,
    }[prediction]


@pytest.mark.parametrize("prediction", Prediction)
@given(x0=numbers, eps=numbers, angle=st.floats(0.05, math.pi / 2 - 0.05), scale=st.floats(0.5, 2))
def test_a_perfect_output_is_understood(
    prediction: Prediction, x0: float, eps: float, angle: float, scale: float
) -> None:
    level = Level(0.0, scale * math.cos(angle), scale * math.sin(angle))
    x = level.alpha * x0 + level.sigma * eps
    m = target(prediction, x0, eps, level)
    for (p, q), truth in ((prediction.clean(level), x0), (prediction.noise(level), eps)):
        assert p * x + q * m == pytest.approx(truth, abs=1e-10)


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(InputError, match="alpha = 0"):
        Prediction.EPSILON.clean(Level(999.0, 0.0, 1.0))
    with pytest.raises(InputError, match="sigma = 0"):
        Prediction.SAMPLE.noise(Level(0.0, 1.0, 0.0))
    assert Prediction.V.clean(Level(999.0, 0.0, 1.0)) == (0.0, -1.0)


def test_clip() -> None:
    x0 = torch.tensor([[-3.0, 0.5, 2.0]])
    assert Clip(1.5)(x0).tolist() == [[-1.5, 0.5, 1.5]]


def test_dynamic_threshold_is_that_of_diffusers() -> None:
    x0 = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * 2
    theirs = DDIMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1.7)
    before = x0.clone()
    assert torch.allclose(DynamicThreshold(0.9, 1.7)(x0), theirs._threshold_sample(x0), atol=1e-6)
    assert torch.equal(x0, before)
