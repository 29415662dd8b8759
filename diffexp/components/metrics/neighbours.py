"""Sets of features as unions of balls, each around a feature and up to its k-th nearest neighbour."""

from functools import lru_cache

import torch
from torch import Tensor

CHUNK = 500


@lru_cache(maxsize=4)
def radii(features: Tensor, k: int) -> Tensor:
    """Distance of each feature to its k-th nearest other feature of the set, (N,).

    Args:
        features: (N, d) with N > k.
    """
    return torch.cat([torch.cdist(some, features).kthvalue(k + 1, dim=1).values for some in features.split(CHUNK)])


def inside(points: Tensor, centres: Tensor, radius: Tensor) -> Tensor:
    """Whether each point lies in each ball, (points, centres) bool.

    Args:
        points: (N, d).
        centres: (M, d), with radii ``radius`` (M,).
    """
    return torch.cat([torch.cdist(some, centres) <= radius for some in points.split(CHUNK)])


def share_reached(reaches: Tensor, weights: Tensor) -> Tensor:
    """Share of the rows that at least one column of positive weight reaches, (B,) float64.

    Args:
        reaches: (N, M) bool.
        weights: (M, B).
    """
    present = (weights > 0).float()
    counts = sum(
        ((some.float() @ present > 0).sum(dim=0) for some in reaches.split(CHUNK)),
        start=torch.zeros(weights.shape[1], dtype=torch.int64),
    )
    return counts.double() / len(reaches)
