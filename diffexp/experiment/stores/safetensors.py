"""Files in the format of safetensors, which any framework reads at once, without decoding.

images     (N, C, H, W) uint8
indices    (N,) int64, of the samples
crc32      (N,) int64, of each sample's index (8 bytes, little-endian) and pixels: the format itself has no checksums
"""

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffexp.experiment.stores.base import Pngs, Shape, encode
from diffexp.experiment.stores.shards import Content, ShardStore
from diffexp.files import replace_whole

DAMAGES = (SafetensorError, OSError, ValueError, RuntimeError, TypeError)


class SafetensorsStore(ShardStore):
    """See ``ImageStore``; the place of a sample is its row."""

    suffix = ".safetensors"
    patterns: ClassVar[tuple[str, ...]] = ("*.safetensors",)

    def png(self, index: int) -> bytes:
        return encode(self.pixels(index))

    def pixels(self, index: int) -> Tensor:
        file = self._files[index]
        return self._row(file, index, self._scanned[file][index])

    def _places(self, file: Path) -> Mapping[int, int]:
        with suppress(*DAMAGES), safe_open(file, "pt") as tensors:
            indices = tensors.get_tensor("indices").tolist()
            if all(tensors.get_slice(name).get_shape()[0] == len(indices) for name in ("images", "crc32")):
                return {index: row for row, index in enumerate(indices)}
        return {}

    def _read(self, file: Path, index: int, place: int) -> Content:
        return self._content(self._row(file, index, place))

    def _row(self, file: Path, index: int, row: int) -> Tensor:
        try:
            with safe_open(file, "pt") as tensors:
                image, expected = tensors.get_slice("images")[row], tensors.get_slice("crc32")[row]
        except SafetensorError as error:
            raise ValueError(f"{file}: {error}") from error
        if checksum(index, self._content(image)) != expected.item():
            raise ValueError(f"{file}: the checksum of sample {index} is wrong")
        return image

    def _whole(self, file: Path, places: Mapping[int, int]) -> Iterator[tuple[int, Shape]]:
        if not places:
            return
        with suppress(*DAMAGES), safe_open(file, "pt") as tensors:
            expected, images = tensors.get_tensor("crc32").tolist(), tensors.get_slice("images")
            shape = tuple(images.get_shape()[1:])
            for index, row in places.items():
                if checksum(index, images[row : row + 1].numpy().tobytes()) == expected[row]:
                    yield index, shape

    def _write(self, file: Path, indices: Sequence[int], contents: Iterable[Content], shape: Shape) -> None:
        found = list(contents)
        pixels = torch.frombuffer(bytearray().join(found), dtype=torch.uint8).view(len(found), *shape)
        sums = [checksum(index, content) for index, content in zip(indices, found)]
        tensors = {"images": pixels, "indices": torch.tensor(indices), "crc32": torch.tensor(sums)}
        with replace_whole(file) as temporary:
            temporary.write_bytes(save(tensors))

    def _content(self, pixels: Tensor) -> Content:
        return pixels.contiguous().numpy().tobytes()

    def _content_of(self, images: Pngs, index: int) -> Content:
        return self._content(images.pixels([index])[0])


def checksum(index: int, content: bytes) -> int:
    """See ``crc32`` in the description of the files."""
    return zlib.crc32(content, zlib.crc32(index.to_bytes(8, "little", signed=True)))
