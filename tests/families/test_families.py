"""Every tiny checkpoint loads, and draws samples that depend on the seed and on nothing else."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.families import DISTINCT, FAMILIES

SAME_NOISE_MATTERS_LITTLE = {"kandinsky22_prior"}
"""Its random prior answers nearly the same to any noise."""


@pytest.mark.parametrize("name", DISTINCT)
def test_a_checkpoint_loads_and_draws(name: str, tiny: Callable[[str], Path]) -> None:
    family = FAMILIES[name]
    pipe = family.load(tiny(name))
    sample = family.draw(pipe)
    assert torch.equal(sample, family.draw(pipe))
    least = 1e-3 if name in SAME_NOISE_MATTERS_LITTLE else 0.05
    assert (sample - family.draw(pipe, seed=1)).abs().mean() > least
    assert sample.isfinite().all() and sample.std() > 0.1
    if family.output != "audios" and "prior" not in name:
        assert sample.ndim == {"images": 3, "frames": 4}[family.output]
        assert sample.min() >= 0 and sample.max() <= 1
