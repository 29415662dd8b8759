"""Points in the plane: what they form, what the denoiser says, and where samples end up."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp import Condition, InputError, Runtime, discover, execute

NOBODY = Condition({}, None, [])


@pytest.fixture(scope="module")
def points() -> partial:
    return partial(discover().build("model", {"name": "points"}), Runtime())


@pytest.mark.parametrize("form", ["spiral", "checkerboard", "moons"])
def test_forms_lie_in_the_square_and_are_even(points: partial, form: str) -> None:
    means = points(form=form).means
    assert means.shape == (1000, 2)
    assert means.abs().max() <= 1
    assert torch.equal(means, points(form=form).means)
    nearest = torch.cdist(means, means).fill_diagonal_(9).min(dim=1).values
    assert nearest.max() < 0.1  # no holes
    assert (nearest < 1e-9).sum() == 0


def test_half_of_the_squares_of_a_checkerboard_are_full(points: partial) -> None:
    column, row = ((points(form="checkerboard").means + 1) * 2).floor().clamp(0, 3).unbind(1)
    assert set(((column + row) % 2).tolist()) == {0.0}
    assert torch.bincount((4 * column + row).long(), minlength=16).sort().values[8:] == pytest.approx(125, abs=15)


@pytest.mark.parametrize("schedule", ["vp", "ve", "edm", "flow"])
def test_the_denoiser_goes_from_the_mean_to_the_nearest_point(points: partial, schedule: str) -> None:
    model = points(form="moons", schedule=schedule, std=1e-6)
    low, high = (model.schedule.at_sigma(sigma) for sigma in model.schedule.sigma_range)
    x = low.alpha * model.means[:5] + 1e-5
    torch.testing.assert_close(model.posterior_mean(x, low), model.means[:5], rtol=0, atol=0.03)
    far = model.posterior_mean(high.sigma * torch.ones(1, 2, dtype=torch.float64), high)
    torch.testing.assert_close(far[0], model.means.mean(0), rtol=0, atol=0.03)


def test_samples_end_on_the_form(points: partial) -> None:
    model = points(form="spiral")
    plan = diffexp.compile("euler", steps=40, model=model)
    start = torch.randn(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * plan.start_std

    def network(u: Tensor, level: Any) -> Tensor:
        return model.predict(u, torch.full((len(u),), level.timestep, dtype=torch.float64), NOBODY)

    samples = execute(plan, network, start, lambda: start)
    distance = torch.cdist(samples, model.means).min(dim=1).values
    assert distance.quantile(0.95) < 0.05


def test_points_of_ones_own(points: partial, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("0,1,2\n3,4,5\n")
    model = points(file=str(file))
    assert (model.id, model.shape, model.means.tolist()) == ("mine", (3,), [[0, 1, 2], [3, 4, 5]])
    for text in ("a,b\n", "1,2\n3\n", "nan,1\n"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"mine\.csv"):
            points(file=str(file))
    with pytest.raises(InputError, match="nowhere"):
        points(file="nowhere.csv")


def test_options(points: partial) -> None:
    for wrong in ({"count": 0}, {"std": 0.0}):
        with pytest.raises(InputError, match=f"model.{next(iter(wrong))}="):
            points(**wrong)
