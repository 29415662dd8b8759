"""Round numbers for the axes of charts."""

import math


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) between ``low`` and ``high``."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(n * power for n in (1, 2, 5, 10) if n * power >= rough)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten between two positive numbers; over many decades powers alone, about eight at most.

    ``low`` and ``high`` themselves where fewer than two such numbers lie between them.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if high / low < 2000:
        found = [factor * 10.0**power for power in decades for factor in (1, 2, 5)]
    else:
        apart = -(-len(decades) // 8)
        found = [10.0**power for power in decades if power % apart == 0]
    inside = [value for value in found if low <= value <= high]
    return inside if len(inside) > 1 else [low, high]
