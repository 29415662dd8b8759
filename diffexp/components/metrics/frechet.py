"""The Frechet (2-Wasserstein, Bures) distance between Gaussians."""

from functools import lru_cache

import torch
from torch import Tensor

CHUNK = 250
"""Samples whose products are in memory."""
WIDE = 256
"""Above this many features, weightings are evaluated one by one, because of the memory of their covariances."""
AFFORDABLE = 400
"""Side of the matrices whose eigenvalues can be found for each half of ``half_samples.SPLITS`` splits: 10 s or so."""
FEWEST_SPLITS = 32


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
    root = _square_root(covariance)
    mean, covariance = mean.double(), covariance.double()
    if features.shape[1] > WIDE:
        return _one_by_one(features.double() - mean, weights, root)
    means, covariances = weighted_moments(features, weights, mean)
    fidelity = torch.linalg.eigvalsh(root @ covariances @ root).clamp(min=0).sqrt().sum(dim=1)
    spread = covariances.diagonal(dim1=1, dim2=2).sum(dim=1) + covariance.trace() - 2 * fidelity
    return (means.square().sum(dim=1) + spread).clamp(min=0)


def squared_distance_influence(features: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """The influence of each sample (Hampel 1974) on ``squared_frechet_distance`` to a Gaussian, (N,) float64.

    That is the derivative by its weight: 2 (m - mean).(x - m) + (x - m)^T (I - T)(x - m) for a sample x, where T is the
    optimal map between the Gaussians, from the samples' mean m and covariance. Up to a constant.

    Args:
        features: (N, d).
        mean, covariance: (d,) and (d, d) of the Gaussian.
    """
    own, spread = moments(features)
    root = _square_root(covariance)
    values, vectors = torch.linalg.eigh(root @ spread @ root)
    kept = values > values[-1].clamp(min=0) * len(values) * torch.finfo(torch.float64).eps
    half = root @ vectors[:, kept] * values[kept].pow(-0.25)
    centred = features.double() - own
    quadratic = centred.square().sum(dim=1) - (centred @ half).square().sum(dim=1)
    return 2 * centred @ (own - mean.double()) + quadratic


def affordable_splits(count: int, size: int, most: int) -> int:
    """How many of ``most`` splits of ``count`` samples there is time for, where there are ``size`` features."""
    side = max(1, min(count // 2, size))
    return most if size <= WIDE else max(min(FEWEST_SPLITS, most), min(most, int(most * (AFFORDABLE / side) ** 3)))


def _one_by_one(features: Tensor, weights: Tensor, root: Tensor) -> Tensor:
    """``weighted_squared_distances`` from the centred features (N, d) and the root of the Gaussian's covariance.

    The covariance of samples is X^T X, so that the nuclear norm of its root times ``root`` is that of X root: the sum
    of the roots of the eigenvalues of the smaller one of two Gram matrices, of samples or of features.
    """
    turned, lengths, trace = features @ root, features.square().sum(dim=1), root.square().sum()
    found: list[Tensor] = []
    for weight in weights.double().T:
        present = weight > 0
        own, total = weight[present], weight.sum()
        mean = own @ features[present] / total
        centred = (turned[present] - own @ turned[present] / total) * own.sqrt()[:, None]
        gram = centred @ centred.T if len(centred) <= centred.shape[1] else centred.T @ centred
        fidelity = torch.linalg.eigvalsh(gram / (total - 1)).clamp(min=0).sqrt().sum()
        variance = (own @ lengths[present] - total * mean.square().sum()) / (total - 1)
        found.append(mean.square().sum() + variance + trace - 2 * fidelity)
    return torch.stack(found).clamp(min=0)


@lru_cache(maxsize=4)  # tensors are hashed by identity
def _square_root(covariance: Tensor) -> Tensor:
    """The root of a positive semi-definite matrix, float64; eigenvalues that are rounding errors count as 0."""
    values, vectors = torch.linalg.eigh(covariance.double())
    smallest = values[-1].clamp(min=0) * len(values) * torch.finfo(torch.float64).eps
    return (vectors * values.where(values > smallest, 0.0).sqrt()) @ vectors.T
