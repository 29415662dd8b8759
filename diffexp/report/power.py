"""How many samples would decide a comparison that is undecided."""

import math

POWER = 0.8
"""The probability that so many samples decide it, if the difference is what it seems."""
MOST = 1_000_000_000
"""More are not worth a number."""


def samples_to_decide(
    difference: float, error: float, freedom: float, count: int, tests: int, level: float
) -> int | None:
    """The number of samples at which a difference of this size is significant with probability ``POWER``.

    The standard error falls with the root of the number of samples: (t + z)^2 (error / difference)^2 times as many as
    there are, where t is the two-sided quantile at ``level / tests`` and z the one-sided one at ``POWER`` (Chow, Shao &
    Wang 2008, "Sample size calculations in clinical research", chapter 3). Rounded up to two digits; an estimate, whose
    own uncertainty is large where the difference is small against its error.

    Args:
        difference: as measured.
        error: its standard error.
        freedom: degrees of freedom of that.
        count: the number of samples, or of seeds, that it was measured with.
        tests: the number that the p-value was multiplied with, because so many pairs were compared.
        level: the level of significance.

    Returns:
        None where the difference is 0, or so small that it takes more than ``MOST``.
    """
    from scipy.special import ndtri, stdtrit  # imported late: it takes a while

    if difference == 0.0 or not math.isfinite(difference) or not math.isfinite(error):
        return None
    needed = float(count)
    for _ in range(3):  # the degrees of freedom grow with the samples
        quantile = float(stdtrit(freedom * needed / count, 1 - level / tests / 2)) + float(ndtri(POWER))
        needed = max(count + 1.0, count * (quantile * error / difference) ** 2)
    if not needed < MOST:
        return None
    unit = 10 ** max(0, math.floor(math.log10(needed)) - 1)
    return math.ceil(needed / unit) * unit
