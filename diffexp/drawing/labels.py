"""Places of labels that must not touch."""

from collections.abc import Sequence


def spread(wanted: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Positions at least ``distance`` apart, in the order of the wanted ones and as close to them as possible.

    Closest in the sum of squares (isotonic regression): positions too close to each other form a group around their
    mean. All lie between ``low`` and ``high`` if there is room.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[list[float]] = []  # sum and number of the positions that the members want for the first of them
    for rank, index in enumerate(order):
        groups.append([wanted[index] - distance * rank, 1])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, count = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    highest = high - distance * (len(order) - 1)
    starts = [min(max(total / count, low), max(highest, low)) for total, count in groups for _ in range(int(count))]
    found = [0.0] * len(wanted)
    for rank, index in enumerate(order):
        found[index] = starts[rank] + distance * rank
    return found
