"""Significance of differences: p-values, and their adjustment for how many there are."""

from collections.abc import Sequence


def p_value(difference: float, error: float, freedom: float) -> float:
    """The two-sided p-value of a difference with this standard error, estimated with ``freedom`` degrees of freedom."""
    from scipy.special import stdtr  # imported late: it takes a while

    if error == 0.0:
        return 1.0 if difference == 0.0 else 0.0
    return 2 * float(stdtr(freedom, -abs(difference) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number (Holm 1979)."""
    adjusted, highest = [0.0] * len(p_values), 0.0
    for index, tests in sorted(enumerate(holm_tests(p_values)), key=lambda found: -found[1]):
        highest = max(highest, min(1.0, tests * p_values[index]))
        adjusted[index] = highest
    return adjusted


def holm_tests(p_values: Sequence[float]) -> list[int]:
    """The number that Holm's method multiplies each p-value with: how many are not smaller, itself included."""
    ranks = {index: rank for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__))}
    return [len(p_values) - ranks[index] for index in range(len(p_values))]
