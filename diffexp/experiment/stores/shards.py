"""Shards: files with many samples each, in their final form at most 1,000.

batch-000064.tar    while a run goes on: a batch, or the part of a worker, under its first sample; written by one alone
000000.tar          of a run that is done: samples 0 to 999, under the first; the next shard is 001000.tar

The final form depends on no batch size and on no number of workers, and says which file a sample is in. It is made when
the run is done, from one shard after the other, so that it takes no more memory or space than a shard.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from diffexp.experiment.stores.base import Pngs, Shape, files_within, in_turn

SAMPLES, BYTES = 1000, 1 << 26
"""In a shard, at most; the bytes are those of the pixels."""
BATCH = "batch-"

Content = bytes
"""Of a sample, as its shard has it."""


class ShardStore(ABC):
    """The part of an ``ImageStore`` that does not depend on the format of the shards."""

    suffix: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, within: range | None = None) -> None:
        self._folder = folder
        self._within = within

    @abstractmethod
    def _places(self, file: Path) -> Mapping[int, int]:
        """Where in a file each of its samples is; without those that a damage hides."""

    @abstractmethod
    def _read(self, file: Path, index: int, place: int) -> Content:
        """Return the content of a sample.

        Raises:
            OSError, ValueError: it is damaged.
        """

    @abstractmethod
    def _whole(self, file: Path, places: Mapping[int, int]) -> Iterator[tuple[int, Shape]]:
        """Those of the samples in a file whose checksum is right, with the shapes of their images."""

    @abstractmethod
    def _write(self, file: Path, indices: Sequence[int], contents: Iterable[Content], shape: Shape) -> None:
        """Write a file, whole or not at all."""

    @abstractmethod
    def _content(self, pixels: Tensor) -> Content:
        """Encode uint8 [C, H, W]."""

    @abstractmethod
    def _content_of(self, images: Pngs, index: int) -> Content:
        """The content of an image that is on disk elsewhere."""

    @abstractmethod
    def png(self, index: int) -> bytes: ...

    @abstractmethod
    def pixels(self, index: int) -> Tensor: ...

    def indices(self) -> Collection[int]:
        hidden = {_first(file) for file, places in self._scanned.items() if not places}
        return sorted(hidden.union(self._files))

    def shapes(self) -> Mapping[int, Shape]:
        found: dict[int, Shape] = {}
        for file, places in self._scanned.items():
            found |= self._whole(file, {index: at for index, at in places.items() if self._files[index] == file})
        return dict(sorted(found.items()))

    def path(self, index: int) -> Path | None:
        return None

    def write(self, indices: Sequence[int], pixels: Tensor) -> None:
        self._add(indices, map(self._content, pixels), tuple(pixels.shape[1:]))

    def copy(self, indices: Sequence[int], images: Pngs) -> None:
        shape = tuple(images.pixels(indices[:1]).shape[1:]) if indices else ()
        for some in in_turn(indices, per_shard(shape)):
            self._add(some, (self._content_of(images, index) for index in some), shape)

    def join(self) -> None:
        batches = [file for file in self._scanned if file.name.startswith(BATCH)]
        shapes = self.shapes() if batches else {}
        shape = next(iter(shapes.values()), ())
        size = per_shard(shape)
        fresh = {index // size for index in shapes if self._files[index] in batches}
        whole = groupby((index for index in shapes if index // size in fresh), lambda index: index // size)
        for number, members in whole:
            indices = [*members]
            self._write(self._file(number * size), indices, map(self.content, indices), shape)
            for file in [file for file in batches if max(self._scanned[file], default=0) < (number + 1) * size]:
                batches.remove(file)
                file.unlink()
        for file in batches:  # those of which nothing is whole
            file.unlink()
        self._forget()

    def content(self, index: int) -> Content:
        """The content of a sample, as its shard has it."""
        file = self._files[index]
        return self._read(file, index, self._scanned[file][index])

    def _add(self, indices: Sequence[int], contents: Iterable[Content], shape: Shape) -> None:
        """Write a file of its own, with what is whole of an earlier one whose first sample was damaged."""
        file = self._file(indices[0], BATCH)
        if file.exists():
            places = self._places(file)
            kept = [index for index, found in self._whole(file, places) if found == shape and index not in indices]
            contents = [*contents, *(self._read(file, index, places[index]) for index in kept)]
            indices = [*indices, *kept]
        self._write(file, indices, contents, shape)
        self._forget()

    def _file(self, first: int, prefix: str = "") -> Path:
        return self._folder / f"{prefix}{first:06d}{self.suffix}"

    @cached_property
    def _scanned(self) -> Mapping[Path, Mapping[int, int]]:
        """The files, with the place of each sample."""
        found = [file for file in self._folder.glob(f"*{self.suffix}") if file.stem.removeprefix(BATCH).isdecimal()]
        final = {_first(file): file for file in found if not file.name.startswith(BATCH)}
        batches = {_first(file): file for file in found if file.name.startswith(BATCH)}
        files = (*files_within(final, self._within), *files_within(batches, self._within))
        return {file: self._wanted(self._places(file)) for file in files}

    def _wanted(self, places: Mapping[int, int]) -> Mapping[int, int]:
        within = self._within
        return places if within is None else {index: place for index, place in places.items() if index in within}

    @cached_property
    def _files(self) -> Mapping[int, Path]:
        """The file of each sample: of several the first in which it is whole."""
        found: dict[int, Path] = {}
        for file, places in self._scanned.items():
            doubtful = {index: self._scanned[found[index]][index] for index in places if index in found}
            damaged = {i for i, at in doubtful.items() if not any(True for _ in self._whole(found[i], {i: at}))}
            found |= {index: file for index in places if index not in doubtful or index in damaged}
        return found

    def _forget(self) -> None:
        for name in ("_scanned", "_files"):
            vars(self).pop(name, None)


def per_shard(shape: Shape) -> int:
    """How many images [C, H, W] a shard holds."""
    bytes_each = 1
    for length in shape:
        bytes_each *= length
    return max(1, min(SAMPLES, BYTES // bytes_each))


def _first(file: Path) -> int:
    return int(file.stem.removeprefix(BATCH))
