"""All numbers of the table without any network: the exact error of its samples on Gaussian data."""

import logging
import math
from pathlib import Path

import torch
from torch import Tensor

from diffexp.certify.data import spectra
from diffexp.errors import InputError
from diffexp.learn.coordinates import facts, log_ratio
from diffexp.learn.fit import Curve
from diffexp.learn.problem import Problem
from diffexp.learn.rollout import unroll
from diffexp.learn.table import LEVELS, SCALES, SHIFTS, WEIGHTS, Table
from diffexp.plan.moments import Gaussian, gaussian_output

log = logging.getLogger(__name__)

ROUNDS, ITERATIONS = 12, 60
"""Of the quasi-Newton method, and its iterations in a round."""
FITTED = "fitted"


def spectrum(problem: Problem, folder: Path | None, curve: Curve) -> tuple[Table, bool]:
    """The least 2-Wasserstein distance to data with the spectrum of images, in closed form: DMN (Xue et al. 2024,
    arXiv:2402.17376) and OSS find levels by such a bound on the error; here all numbers, and the error itself.

    On Gaussian data the best network is known and linear, so that the samples are Gaussian too (see
    ``diffexp.plan.moments``); clipping is left out. ``spectrum=fitted`` takes mean and covariance from the accurate
    solutions of the noises that are learned from.
    """
    table, data = problem.table(), data_of(problem)
    if not table.deterministic:
        raise InputError("method=spectrum is for schedulers that draw no noise")
    curve.unit, curve.higher_is_better = "standard deviations of the data", False
    free = [getattr(table, name) for name in (LEVELS, SHIFTS, SCALES, WEIGHTS)]
    optimizer = torch.optim.LBFGS(free, max_iter=ITERATIONS, history_size=30, line_search_fn="strong_wolfe")
    interrupted, best = False, table.state_dict()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = error(table, data).log()
        loss.backward()
        return loss

    try:
        for number in range(ROUNDS + 1):
            value = error(table, data).item()
            if curve.better(value, curve.best):
                best = {name: tensor.clone() for name, tensor in table.state_dict().items()}
            curve.points.append({"iteration": number * ITERATIONS, "loss": value, "score": value, "seconds": 0.0})
            if number < ROUNDS:
                optimizer.step(closure)
    except KeyboardInterrupt:
        interrupted = True
    table.load_state_dict(best)
    if table.clip is None:
        errors = [exact_error(one, data) for one in (problem.table(), table)]
        log.info("2-Wasserstein error over the data's spread: %.3g at the start, %.3g learned", *errors)
    return table, interrupted


def exact_error(table: Table, data: Gaussian) -> float:
    """The error of the table as a plan, whose network has the training's levels at the timesteps that it gets."""
    training = table.training_of_model
    made = gaussian_output(table.to_plan(), data.mean, data.variances, training.prediction, training.schedule)
    return Gaussian(*made).wasserstein(data) / math.sqrt(data.variances.sum().item())


def data_of(problem: Problem) -> Gaussian:
    """The Gaussian that the settings name."""
    chosen = problem.settings.spectrum
    if chosen != FITTED:
        return spectra()[chosen]
    truth = problem.train.truth.double().flatten(1).cpu()
    mean = truth.mean(dim=0)
    _, sizes, vectors = torch.linalg.svd(truth - mean, full_matrices=False)
    kept = vectors[: len(truth) - 1]
    return Gaussian(kept @ mean, sizes[: len(kept)].square() / (len(truth) - 1))


def error(table: Table, data: Gaussian) -> Tensor:
    """2-Wasserstein distance of a table's samples to Gaussian data over the data's spread, differentiable.

    The network knows only its timestep: the best denoiser of the data at the level that belongs to the timestep.
    """
    training = table.training_of_model
    s = table.places()
    meant, given_logs = table.evaluations(s)[0], log_ratio(s[:-1]) + table.shifts
    variances, mean = data.variances[:, None], data.mean[:, None]
    # Columns: the coefficient of the start noise, and the constant.
    first = torch.tensor([[table.start_std / meant[0].scale.item(), 0.0]], dtype=torch.float64)
    constant = torch.tensor([[0.0, 1.0]], dtype=torch.float64)

    def estimate(k: int, z: Tensor) -> Tensor:
        s = torch.sigmoid(given_logs[k])  # the told level on the straight path
        given = facts(training, given_logs[k][None])[0]
        x = meant[k].scale / given.scale * z  # in the scale of that level
        spread = (1 - s).square() * variances + s.square()
        clean = (1 - s) * variances / spread * x + s.square() / spread * mean * constant
        # What the network returns is converted as that of the level of the table.
        output = (clean - given.p * given.scale * x) / given.q
        return meant[k].p * meant[k].scale * z + meant[k].q * output

    made = unroll(table, estimate, first.expand(len(variances), 2), lambda: first)
    apart = (made[:, 1] - data.mean).square().sum() + (made[:, 0].abs() - data.variances.sqrt()).square().sum()
    return (apart / data.variances.sum()).sqrt()
