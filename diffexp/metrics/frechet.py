"""The Frechet (2-Wasserstein, Bures) distance between Gaussians."""

import torch
from torch import Tensor


def squared_frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """``|mean_a - mean_b|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2)``, in float64; >= 0.

    The squared 2-Wasserstein distance of two Gaussians (Gelbrich 1990), and what the FID is (Heusel et al. 2017).

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


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T
