"""Standard normal noise that belongs to a sample, not to a batch."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def sample_seed(seed: int, index: int) -> int:
    """A 64-bit seed that depends on the run's seed and the sample's index alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest(), "little", signed=True)


class SampleNoise:
    """One stream of standard normal draws per sample.

    The streams run on the CPU, so that a seed means the same picture on every device and at every batch size.

    Args:
        seed: the run's seed.
        indices: which samples of the run the batch holds.
        shape: of one sample.
        device, dtype: where and in which precision the draws are wanted; they are made in float32 either way.
    """

    def __init__(
        self,
        seed: int,
        indices: Sequence[int],
        shape: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.generators = [torch.Generator().manual_seed(sample_seed(seed, index)) for index in indices]
        self._shape = (len(indices), *shape)
        self._device, self._dtype = torch.device(device), dtype

    def draw(self) -> Tensor:
        """The next draw of every sample, [len(indices), *shape]."""
        noise = torch.empty(self._shape)
        for row, generator in zip(noise, self.generators):
            row.normal_(generator=generator)
        if self._device.type == "cuda":
            return noise.pin_memory().to(self._device, self._dtype, non_blocking=True)
        return noise.to(self._device, self._dtype)
