"""The Frechet (2-Wasserstein, Bures) distance between Gaussians."""

import torch
from torch import Tensor

CHUNK = 250
"""Samples whose products are in memory."""


def squared_frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """``|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``, in float64; >= 0.

    The squared 2-Wasserstein distance of two Gaussians (Gelbrich 1990), and the FID (Heusel et al. 2017).

    Args:
        mean_a, mean_b: (d,).
        covariance_a, covariance_b: (d, d), positive semi-definite; singular is fine.
    """
    mean_a, covariance_a = mean_a.double(), covariance_a.double()
    mean_b, covariance_b = mean_b.double(), covariance_b.double()
    root = _square_root(covariance_a)
    # The nuclear norm of A^1/2 B^1/2 is the trace wanted, without squaring the condition number twice.
    fidelity = torch.linalg.svdvals(root @ _square_root(covariance_b)).sum()
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * fidelity
    return max(distance.item(), 0.0)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) and unbiased covariance (d, d), in float64, of features (N, d) with N >= 2."""
    features = features.double()
    return features.mean(dim=0), torch.cov(features.T).reshape(features.shape[1], features.shape[1])


def weighted_moments(features: Tensor, weights: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Means (B, d) and unbiased covariances (B, d, d), in float64, where sample i counts ``weights[i, b]`` times.

    Args:
        features: (N, d).
        weights: (N, B), counts that sum to at least 2.
        centre: (d,), about the mean of the features, and subtracted: the covariance is a difference of second moments.
    """
    total = weights.sum(dim=0)
    size = features.shape[1]
    rows, columns = torch.triu_indices(size, size)
    first = torch.zeros(weights.shape[1], size, dtype=torch.float64)
    second = torch.zeros(weights.shape[1], len(rows), dtype=torch.float64)
    for some, part in zip(features.split(CHUNK), weights.split(CHUNK)):
        some = some.double() - centre
        first += part.T @ some
        second += part.T @ some[:, rows].mul_(some[:, columns])
    means = first / total[:, None]
    upper = (second - total[:, None] * means[:, rows] * means[:, columns]) / (total[:, None] - 1)
    covariances = torch.empty(len(total), size, size, dtype=torch.float64)
    covariances[:, rows, columns] = upper
    covariances[:, columns, rows] = upper
    return means, covariances


def weighted_squared_distances(features: Tensor, weights: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """``squared_frechet_distance`` between each weighting of the features and one Gaussian, (B,) float64.

    Args:
        features: (N, d).
        weights: (N, B), see ``weighted_moments``.
        mean, covariance: (d,) and (d, d) of the Gaussian.
    """
    mean, covariance = mean.double(), covariance.double()
    means, covariances = weighted_moments(features, weights, mean)
    root = _square_root(covariance)
    fidelity = torch.linalg.eigvalsh(root @ covariances @ root).clamp(min=0).sqrt().sum(dim=1)
    spread = covariances.diagonal(dim1=1, dim2=2).sum(dim=1) + covariance.trace() - 2 * fidelity
    return (means.square().sum(dim=1) + spread).clamp(min=0)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
