"""How many samples a device likes in one call of a model."""

START = 16
MOST = 1024
GAIN = 0.05
"""A size is better than another if a sample takes less time by this share."""
CALLS = 3
"""Calls of a size before it is judged, by the fastest: the first of a size prepares kernels."""


class BatchLimit:
    """The number of samples in one model call: given, or found out by the calls that are made anyway.

    It is doubled from ``START`` as long as that makes a sample faster by ``GAIN``, and then stays at the best.

    Args:
        given: not to be found out.
        most: never more than this.
    """

    def __init__(self, given: int | None = None, most: int = MOST) -> None:
        self.value = given or min(START, most)
        self._most = most
        self._found = given is not None
        self._times: list[float] = []
        self._best: tuple[float, int] | None = None

    def record(self, size: int, seconds: float) -> None:
        """A call with ``size`` samples took ``seconds``; calls well below the limit say nothing about it."""
        if self._found or not 0.75 * self.value < size <= self.value:
            return
        self._times.append(seconds / size)
        if len(self._times) < CALLS:
            return
        rate, self._times = min(self._times), []
        if self._best is None or rate < (1 - GAIN) * self._best[0]:
            self._best = (rate, self.value)
            self._found = 2 * self.value > self._most
            self.value = self.value if self._found else 2 * self.value
        else:
            self._found, self.value = True, self._best[1]

    def shrink(self, size: int) -> None:
        """More than ``size`` samples do not fit into memory."""
        self._found, self.value = True, min(self.value, size)
