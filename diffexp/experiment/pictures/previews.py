"""Previews of samples: latents without decoding them, by a linear map to colours; a few samples as one image."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from diffexp.components.pixels import to_model_range
from diffexp.experiment.pictures.grid import TILE
from diffexp.experiment.pictures.points import frame_around
from diffexp.experiment.pictures.strips import MAX_TILE, Snapshot, image_cell, point_cell
from diffexp.experiment.pictures.text import PAPER

SEQUENCE = (96, 128)
"""Height and width of the image of a sequence."""


def preview(x0: Tensor) -> Image.Image:
    """Predicted samples [n, *shape] side by side, or as points; of latents, whose map to colours is unknown, a guess.

    A latent's first three channels, each scaled by its spread, are red, green and blue.
    """
    x0 = torch.nan_to_num(x0.float().cpu())
    if x0.ndim == 2:
        return point_cell(x0, frame_around([x0]), 2 * MAX_TILE)
    x0 = as_images(x0)
    if x0.shape[1] not in (1, 3):
        x0 = x0[:, :3] if x0.shape[1] > 3 else x0[:, :1]
        x0 = x0 / x0.std(dim=(0, 2, 3), keepdim=True).clamp(min=1e-6) / 2
    cells = [image_cell(sample, TILE, MAX_TILE) for sample in x0]
    gap = 6
    sheet = Image.new("RGB", (sum(cell.width + gap for cell in cells) - gap, cells[0].height), PAPER)
    for column, cell in enumerate(cells):
        sheet.paste(cell, (column * (cell.width + gap), 0))
    return sheet


def latents_to_rgb(snapshots: Sequence[Snapshot], images: Tensor | None) -> list[Snapshot]:
    """Snapshots as images, with latents mapped to RGB; pixels and points stay as they are.

    Decoding every snapshot would take as long as the run. A pixel's colour is close to linear in the latent at its
    place, so the latest x0 estimate and the finished images [n, 3, H, W] (in [0, 1]) give the map by least squares.
    """
    found = [replace(s, x=as_images(s.x), x0=as_images(s.x0)) for s in snapshots]
    if images is None or images.ndim != 4:
        return found
    pixels = images.shape[1:]
    latents = [s for s, own in zip(found, snapshots) if own.x.ndim > 3 and s.x.shape[1:] != pixels]
    if not latents:
        return found
    count = min(len(images), len(latents[-1].x0))
    weights = _fit(latents[-1].x0[:count], images[:count])
    shown = {id(snapshot) for snapshot in latents}
    return [replace(s, x=_apply(weights, s.x), x0=_apply(weights, s.x0)) if id(s) in shown else s for s in found]


def as_images(x: Tensor) -> Tensor:
    """Samples as images [n, channels, height, width]: of videos [n, channels, F, h, w] the middle frame.

    Sequences [n, T, channels], of tokens or of sound, become images of their numbers; others are returned as they are.
    """
    if x.ndim == 3:
        return torch.nn.functional.interpolate(x[:, None].float(), SEQUENCE)
    return x[:, :, x.shape[2] // 2] if x.ndim == 5 else x


def _fit(latents: Tensor, images: Tensor) -> Tensor:
    """[channels + 1, colours]: from a latent and a 1 to pixels in [-1, 1]; a little ridge keeps it finite."""
    height, width = latents.shape[-2:]
    small = torch.nn.functional.adaptive_avg_pool2d(images.double(), (height, width))
    rows, targets = _rows(latents), to_model_range(small).movedim(1, -1).reshape(-1, small.shape[1])
    gram = rows.T @ rows
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, rows.T @ targets)


def _apply(weights: Tensor, latents: Tensor) -> Tensor:
    """[n, channels, h, w] -> [n, colours, h, w]."""
    colours = _rows(latents) @ weights
    return colours.view(len(latents), *latents.shape[-2:], -1).movedim(-1, 1).float()


def _rows(latents: Tensor) -> Tensor:
    """One per position: its channels, made finite, and a 1."""
    flat = torch.nan_to_num(latents.double()).movedim(1, -1).reshape(-1, latents.shape[1])
    return torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], dim=1)
