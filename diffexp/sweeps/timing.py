"""How long a call of a model takes on its device, without waiting for it where that can be avoided."""

import time
from typing import Protocol

import torch


class Timed(Protocol):
    """One call; it begins when the object is made."""

    def end(self) -> None: ...

    def seconds(self) -> float | None:
        """None as long as the call is not over on its device."""
        ...


class WallTimed:
    """By the clock of the host."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = self._ended = time.perf_counter()

    def end(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        self._ended = time.perf_counter()

    def seconds(self) -> float | None:
        return self._ended - self._began


class CudaTimed:
    """By events on the device, which goes on meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began, self._ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self._began.record(torch.cuda.current_stream(device))

    def end(self) -> None:
        self._ended.record(torch.cuda.current_stream(self._device))

    def seconds(self) -> float | None:
        return self._began.elapsed_time(self._ended) / 1e3 if self._ended.query() else None


def timed(device: torch.device) -> Timed:
    """Begin to time a call on ``device``."""
    return CudaTimed(device) if device.type == "cuda" else WallTimed(device)
