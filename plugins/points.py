"""An exact model of points in the plane: a spiral, a checkerboard, moons, or the points of a file.

python -m diffexp model=points scheduler=ddpm num_samples=2000
python -m diffexp model=points model.form=checkerboard scheduler=euler steps=20 num_samples=2000
python -m diffexp model=points model.file=points.csv scheduler=er_sde num_samples=2000
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffexp import InputError, MixtureModel, Runtime, exact_dtype, exact_training, model


@dataclass(frozen=True)
class PointSet(MixtureModel):
    """Gaussians of one width around the points of a set."""

    title: str

    @property
    def id(self) -> str:
        return self.title


def _spiral(u: Tensor, v: Tensor) -> Tensor:
    angle = 3 * math.pi * u.sqrt()
    return angle.unsqueeze(1) / (3 * math.pi) * torch.stack([angle.cos(), angle.sin()], dim=1)


def _checkerboard(u: Tensor, v: Tensor) -> Tensor:
    column, place = (4 * u).floor(), (4 * v).floor()
    row = 2 * (place % 2) + column % 2  # two squares of four in every column
    x, y = (column + (4 * u) % 1) / 2 - 1, (row + (4 * v) % 1) / 2 - 1
    return torch.stack([x, y], dim=1)


def _moons(u: Tensor, v: Tensor) -> Tensor:
    side = torch.where(v < 0.5, 1.0, -1.0)  # upper or lower arc
    angle = math.pi * u
    return torch.stack([side * (angle.cos() - 0.5), side * (angle.sin() - 0.25)], dim=1) / 1.5


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "spiral": _spiral,
    "checkerboard": _checkerboard,
    "moons": _moons,
}
"""Functions from two uniform numbers to a point in [-1, 1]^2, uniform over the shape."""


@model(idle=["form where file!=null", "count where file!=null", "compile"])
def points(
    runtime: Runtime,
    *,
    form: Literal["spiral", "checkerboard", "moons"] = "spiral",
    file: str | None = None,
    count: int = 1000,
    std: float = 0.01,
    schedule: Literal["vp", "ve", "edm", "flow"] = "vp",
    prediction: Literal["epsilon", "sample", "v_prediction", "flow_prediction"] | None = None,
) -> PointSet:
    """Points in the plane and their optimal denoiser: a spiral, a checkerboard, moons, or the points of a file.

    That denoiser is a softmax over the points, known in closed form for any finite set (Karras et al. 2022,
    arXiv:2206.00364, appendix B.3): no weights, no training, so that every error is the sampler's.

    Args:
        form: shape of the points, in [-1, 1]^2.
        file: file with points to use instead: comma-separated numbers, one point per line.
        count: number of points.
        std: standard deviation around each of them, greater than 0.
        schedule: noise schedule: variance preserving, variance exploding, that with EDM's preconditioning, or flow.
        prediction: output of the "network"; null: the usual one for this schedule.

    Raises:
        InputError: no points, a std of 0 or less, or a file that does not hold points.
    """
    if count < 1:
        raise InputError(f"model.count={count} must be at least 1")
    if std <= 0:
        raise InputError(f"model.std={std:g} must be greater than 0")
    # A lattice of irrational steps covers the square more evenly than random numbers, and is always the same.
    u, v = (torch.arange(count, dtype=torch.float64) * step % 1 for step in (0.7548776662466927, 0.5698402909980532))
    means = _read(file) if file else FORMS[form](u, v)
    dtype = exact_dtype(runtime)
    return PointSet(
        shape=(means.shape[1],),
        training=exact_training(schedule, prediction),
        device=runtime.device,
        dtype=dtype,
        means=means.to(runtime.device, dtype),
        std=std,
        title=Path(file).stem if file else form,
    )


def _read(file: str) -> Tensor:
    try:
        points = torch.from_numpy(np.loadtxt(file, delimiter=",", ndmin=2))
    except (OSError, ValueError) as error:
        raise InputError(f"model.file={file} does not hold comma-separated points, one per line: {error}") from error
    if not points.numel() or not points.isfinite().all():
        raise InputError(f"model.file={file} holds no points, or some that are not finite")
    return points
