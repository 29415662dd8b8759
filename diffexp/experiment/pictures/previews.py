"""Previews of latents without decoding them: a linear map to colours, fitted to the decoded images of the run."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffexp.components.pixels import to_model_range
from diffexp.experiment.pictures.strips import Snapshot


def latents_to_rgb(snapshots: Sequence[Snapshot], images: Tensor | None) -> list[Snapshot]:
    """Snapshots with latents mapped to RGB; pixels and points stay as they are.

    Decoding every snapshot would take as long as the run. A pixel's colour is close to linear in the latent at its
    place, so the latest x0 estimate and the finished images [n, 3, H, W] (in [0, 1]) give the map by least squares.
    """
    if images is None or images.ndim != 4:
        return list(snapshots)
    latents = [snapshot for snapshot in snapshots if snapshot.x.ndim == 4 and snapshot.x.shape[1:] != images.shape[1:]]
    if not latents:
        return list(snapshots)
    count = min(len(images), len(latents[-1].x0))
    weights = _fit(latents[-1].x0[:count], images[:count])
    shown = {id(snapshot) for snapshot in latents}
    return [replace(s, x=_apply(weights, s.x), x0=_apply(weights, s.x0)) if id(s) in shown else s for s in snapshots]


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
