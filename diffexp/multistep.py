"""The multistep formula that PNDM and its descendants share."""

from collections.abc import Sequence

from torch import Tensor

from diffexp.exponential import adams_weights
from diffexp.plan.execute import weighted


def adams_bashforth(slopes: Sequence[Tensor]) -> Tensor:
    """The mean slope of the next step by the last ones, newest first, as if all steps were of equal size.

    With four of them (55, -59, 37, -9) / 24: Adams and Bashforth's formulas of order 1 to 4.
    """
    weights = adams_weights([-float(age) for age in range(len(slopes))], 0.0, 1.0, rate=0.0)
    return weighted(list(zip(weights, slopes)))
