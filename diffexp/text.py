"""Words of messages and titles."""


def quantity(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless it is 1: ``1 sample``, ``2,000 samples``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
