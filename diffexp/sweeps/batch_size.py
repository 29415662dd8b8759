"""The number of samples in one call of a model at which a sample is cheapest."""

START = 16
MAX_ROWS = 1024
GAIN = 0.05
"""A size is better than another if a sample takes less time by at least this fraction."""
CALLS = 3
"""Calls of a size of which the fastest is measured: the first one prepares kernels."""


class BatchLimit:
    """The largest number of samples in one call of a model: given, or tuned from the times of the calls.

    It is doubled from ``START`` as long as that makes a sample faster by ``GAIN``, and then stays at the best.

    Args:
        given: the number, which is then not tuned.
        most: upper bound of the tuned number.
    """

    def __init__(self, given: int | None = None, most: int = MAX_ROWS) -> None:
        self.value = given or min(START, most)
        self._most = most
        self._tuned = given is not None
        self._times: list[float] = []
        self._best: tuple[float, int] | None = None

    def record(self, size: int, seconds: float) -> None:
        """Tune the number by the time of a call with ``size`` samples; calls well below the limit are ignored."""
        if self._tuned or not 0.75 * self.value < size <= self.value:
            return
        self._times.append(seconds / size)
        if len(self._times) < CALLS:
            return
        rate, self._times = min(self._times), []
        if self._best is None or rate < (1 - GAIN) * self._best[0]:
            self._best = (rate, self.value)
            self._tuned = 2 * self.value > self._most
            self.value = self.value if self._tuned else 2 * self.value
        else:
            self._tuned, self.value = True, self._best[1]

    def shrink(self, size: int) -> None:
        """Set the number to at most ``size``, because more samples do not fit into memory."""
        self._tuned, self.value = True, min(self.value, size)
