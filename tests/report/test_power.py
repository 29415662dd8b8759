"""How many samples would decide a comparison: often enough, and not far more than that."""

import math

import pytest
import torch

from diffexp.report.comparison import holm, holm_tests, p_value
from diffexp.report.power import samples_to_decide


@pytest.mark.parametrize("tests", [1, 20])
def test_so_many_samples_decide_four_times_in_five(tests: int):
    """Means of normal values 0.1 apart: the number from 200 samples is what it takes."""
    needed = samples_to_decide(0.1, 1 / math.sqrt(200), 199, 200, tests, 0.05)
    assert needed is not None
    generator = torch.Generator().manual_seed(0)
    means = 0.1 + torch.randn(2000, generator=generator, dtype=torch.float64) / math.sqrt(needed)
    found = sum(tests * p_value(mean, 1 / math.sqrt(needed), needed - 1) < 0.05 for mean in means.tolist())
    assert found / 2000 == pytest.approx(0.81, abs=0.03)


def test_the_number_follows_the_square_of_the_error_and_is_more_than_there_are():
    one = samples_to_decide(1.0, 1.0, 1e6, 100, 1, 0.05)
    assert one == 790  # 100 (1.96 + 0.84)^2 = 785
    assert samples_to_decide(1.0, 2.0, 1e6, 100, 1, 0.05) == 3200
    assert samples_to_decide(1.0, 0.3, 1e6, 100, 1, 0.05) == 110


def test_of_no_difference_there_is_no_number():
    assert samples_to_decide(0.0, 1.0, 99, 100, 1, 0.05) is None
    assert samples_to_decide(1e-9, 1.0, 99, 100, 1, 0.05) is None
    assert samples_to_decide(math.nan, 1.0, 99, 100, 1, 0.05) is None


def test_holm_multiplies_by_the_number_of_those_that_are_not_smaller():
    p_values = [0.02, 0.01, 0.9, 0.02]
    assert holm_tests(p_values) == [3, 4, 1, 2]
    assert holm(p_values) == pytest.approx([0.06, 0.04, 0.9, 0.06])
