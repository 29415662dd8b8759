"""Sets of features as unions of balls, each around a feature and up to its k-th nearest neighbour.

Distances are computed for parts of both sets at once, so that memory does not grow with the number of samples.
"""

from functools import lru_cache

import torch
from torch import Tensor

CHUNK, COLUMNS = 500, 2000
"""Sides of the parts of the matrix of distances that are in memory."""


def radii(features: Tensor, k: int) -> Tensor:
    """Distance of each feature to its k-th nearest other feature of the set, (N,).

    Args:
        features: (N, d) with N > k.
    """
    return torch.cat([_nearest(some, features, k + 1)[:, -1] for some in features.split(CHUNK)])


radii_of_reference = lru_cache(maxsize=4)(radii)
"""``radii`` of real images, which are the same for many runs."""


def _nearest(points: Tensor, others: Tensor, count: int) -> Tensor:
    """The smallest distances to other points, in order, (N, count)."""
    found = points.new_empty(len(points), 0)
    for part in others.split(COLUMNS):
        known = torch.cat([found, torch.cdist(points, part)], dim=1)
        found = known.topk(min(count, known.shape[1]), dim=1, largest=False).values
    return found


def in_balls(points: Tensor, centres: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """How many balls each point lies in, (N,), and how many points lie in each ball, (M,); int64.

    Args:
        points: (N, d).
        centres: (M, d), with radii ``radius`` (M,).
    """
    of_points, of_balls = torch.zeros(len(points), dtype=torch.int64), torch.zeros(len(centres), dtype=torch.int64)
    balls = zip(centres.split(COLUMNS), radius.split(COLUMNS), of_balls.split(COLUMNS))
    for some, own, counts in balls:
        for part, of_part in zip(points.split(CHUNK), of_points.split(CHUNK)):
            inside = torch.cdist(part, some) <= own
            of_part += inside.sum(dim=1)
            counts += inside.sum(dim=0)
    return of_points, of_balls
