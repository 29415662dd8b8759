"""Tar files of PNGs, as WebDataset reads them: the members of a shard are ``000123.png``."""

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from diffexp.experiment.stores.base import Pngs, Shape, decode, encode, shape_of_png
from diffexp.experiment.stores.shards import Content, ShardStore
from diffexp.files import replace_whole

HEADER = tarfile.BLOCKSIZE
"""Bytes in front of the content of a member."""


class TarStore(ShardStore):
    """See ``ImageStore``; the place of a sample is where its PNG begins, in bytes."""

    suffix = ".tar"
    patterns: ClassVar[tuple[str, ...]] = ("*.tar",)

    def png(self, index: int) -> bytes:
        return self.content(index)

    def pixels(self, index: int) -> Tensor:
        return decode(self.content(index))

    def _places(self, file: Path) -> Mapping[int, int]:
        found: dict[int, int] = {}
        # Members in front of a tear or of a broken header are found.
        with suppress(tarfile.TarError, OSError, ValueError), tarfile.open(file, "r:") as archive:
            for member in archive:
                name = Path(member.name)
                if member.isfile() and name.suffix == ".png" and name.stem.isdecimal():
                    found[int(name.stem)] = member.offset_data
        return found

    def _read(self, file: Path, index: int, place: int) -> Content:
        with file.open("rb") as archive:
            archive.seek(place - HEADER)
            try:
                size = tarfile.TarInfo.frombuf(archive.read(HEADER), "utf-8", "surrogateescape").size
            except tarfile.TarError as error:
                raise ValueError(f"{file}: {error}") from error
            return archive.read(size)

    def _whole(self, file: Path, places: Mapping[int, int]) -> Iterator[tuple[int, Shape]]:
        for index, place in places.items():
            with suppress(OSError, ValueError):
                if shape := shape_of_png(io.BytesIO(self._read(file, index, place))):
                    yield index, shape

    def _write(self, file: Path, indices: Sequence[int], contents: Iterable[Content], shape: Shape) -> None:
        with (
            replace_whole(file) as temporary,
            tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive,
        ):
            for index, content in zip(indices, contents):
                member = tarfile.TarInfo(f"{index:06d}.png")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))

    def _content(self, pixels: Tensor) -> Content:
        return encode(pixels)

    def _content_of(self, images: Pngs, index: int) -> Content:
        return images.png(index)
