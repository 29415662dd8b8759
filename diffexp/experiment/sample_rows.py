"""The samples of a run as the rows that trackers log."""

from collections.abc import Sequence
from functools import partial
from typing import overload

from PIL import Image

from diffexp.components.pixels import to_image
from diffexp.components.trackers.base import SampleRow
from diffexp.experiment.stores.images import StoredImages
from diffexp.plan.noise import sample_seed


class SampleRows(Sequence[SampleRow]):
    """Makes each row when it is read: a run may have many thousands, of which a tracker shows a few.

    Args:
        indices: of the samples.
        captions: in the same order.
        seed: of the run.
        images: of the samples; empty for points.
    """

    def __init__(self, indices: Sequence[int], captions: Sequence[str], seed: int, images: StoredImages) -> None:
        self._indices, self._captions, self._seed, self._images = indices, captions, seed, images

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> SampleRow: ...

    @overload
    def __getitem__(self, place: slice) -> list[SampleRow]: ...

    def __getitem__(self, place: int | slice) -> SampleRow | list[SampleRow]:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        index = self._indices[place]
        load = partial(_load, self._images, index) if index in self._images else None
        return SampleRow(index, self._captions[place], sample_seed(self._seed, index), self._images.path(index), load)


def _load(images: StoredImages, index: int) -> Image.Image:
    return to_image(images[index])
