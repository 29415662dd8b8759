"""The cells of a sweep: all combinations, where an option that only some choices have goes with those alone.

``-m scheduler=ddpm,ddim scheduler.eta=0,1`` has three cells, because DDPM has no ``eta``.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import product

from hydra.core.override_parser.types import Override

from diffexp.catalog.kinds import KINDS


def crossed(
    swept: Collection[Sequence[Override]], has: Callable[[Override, str], bool]
) -> Iterator[tuple[Override, ...]]:
    """The overrides of each cell.

    Args:
        swept: for each word of the command line an override for every value.
        has: whether a choice, such as ``scheduler=ddim``, has an option, such as ``eta``.
    """
    choices = {
        values[0].key_or_group: values for values in swept if len(values) > 1 and values[0].key_or_group in KINDS
    }

    def fits(override: Override, cell: Sequence[Override]) -> bool:
        kind, _, option = override.key_or_group.partition(".")
        if not option or kind not in choices or kind not in KINDS:
            return True
        choice = next(one for one in cell if one.key_or_group == kind)
        return has(choice, option) or not any(has(other, option) for other in choices[kind])

    shortened: set[tuple[str, ...]] = set()
    for cell in product(*swept):
        kept = tuple(override for override in cell if fits(override, cell))
        words = tuple(str(override.input_line) for override in kept)
        if len(kept) == len(cell) or words not in shortened:
            yield kept
        if len(kept) < len(cell):
            shortened.add(words)
