"""Samples that are videos or sounds: what they are, and the still images that stand for them.

Axes of a decoded batch: points [B, d], sound [B, channels, T], images [B, C, H, W], videos [B, F, C, H, W].
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

STRIP_FRAMES = 8
"""Frames in the strip of a video, at most."""
SPECTROGRAM = (128, 256)
"""Height and width of a spectrogram, in pixels."""
LOUDEST_DB, RANGE_DB = 0.0, 80.0
"""Levels of a spectrogram: white, and how far below it is black; 0 dB is a sine of full amplitude."""


@dataclass(frozen=True)
class Media:
    """What the samples of a model are, where they are no images."""

    kind: Literal["video", "sound"]
    rate: float
    """Frames a second of a video, samples a second of a sound."""

    @property
    def plural(self) -> str:
        return f"{self.kind}s"


def media_of(model: object) -> Media | None:
    """What the samples of a model are that has the attribute ``media``; None: images or points."""
    return getattr(model, "media", None)


def stills(decoded: Tensor) -> Tensor:
    """Images [B, C, H, W] in [0, 1] that stand for samples: strips of videos, spectrograms of sounds.

    Images and points are returned as they are.

    Args:
        decoded: videos [B, F, C, H, W] in [0, 1], sounds [B, channels, T] in [-1, 1], images or points.
    """
    if decoded.ndim == 5:
        return strip(decoded.movedim(1, 2))
    return spectrogram(decoded) if decoded.ndim == 3 else decoded


def strip(frames: Tensor) -> Tensor:
    """Frames [B, C, F, H, W] side by side, [B, C, H, n * W]: at most 8, evenly spaced, with the first and the last."""
    count = frames.shape[2]
    chosen = torch.linspace(0, count - 1, min(count, STRIP_FRAMES)).round().long()
    return frames[:, :, chosen].transpose(2, 3).flatten(3)


def spectrogram(sounds: Tensor) -> Tensor:
    """The level of every frequency over time, [B, 1, 128, 256] in [0, 1]: low ones at the bottom, black is -80 dB.

    Channels lie above each other, the first on top. Values that are not finite are silence.

    Args:
        sounds: [B, channels, T] in [-1, 1].
    """
    height, width = SPECTROGRAM
    sounds = torch.nan_to_num(sounds.float(), posinf=0.0, neginf=0.0)
    channels, length = sounds.shape[1:]
    size = 1 << max(4, min(10, (max(1, length) // 8).bit_length()))
    window = torch.hann_window(size)
    spectrum = torch.stft(
        sounds.flatten(0, 1),
        size,
        hop_length=max(1, min(size // 4, length // width)),
        window=window,
        pad_mode="constant",
        return_complex=True,
    )
    decibels = 20 * torch.log10((2 / window.sum() * spectrum.abs()).clamp(min=1e-12))
    levels = ((decibels - LOUDEST_DB) / RANGE_DB + 1).clamp(0, 1).flip(1)
    tall = height // channels
    levels = torch.nn.functional.interpolate(levels[:, None], (tall, width), mode="bilinear", antialias=True)
    levels = levels.clamp(0, 1).reshape(len(sounds), 1, channels * tall, width)
    return torch.nn.functional.pad(levels, (0, 0, 0, height - channels * tall))
