import math
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.exact import ExactModel
from diffexp.components.models.gaussian import GaussianModel, gaussian
from diffexp.components.models.mixture import MixtureModel, mixture
from diffexp.errors import InputError
from diffexp.plan.predictions import Prediction

RUNTIME = Runtime(torch.device("cpu"), None, False)
TIMESTEPS = st.floats(0, 999)


def noised_log_density(model: Any, x: Tensor, alpha: float, sigma: float) -> Tensor:
    """log p_t(x) written out with dense covariances, independently of the models' own formulas."""
    eye = torch.eye(x.shape[1], dtype=torch.float64)
    if isinstance(model, GaussianModel):
        means, covariance = model.mean[None], model.covariance
    else:
        means, covariance = model.means, model.std**2 * eye
    parts = [
        torch.distributions.MultivariateNormal(alpha * mean, alpha**2 * covariance + sigma**2 * eye).log_prob(x)
        for mean in means
    ]
    return torch.logsumexp(torch.stack(parts), dim=0) - math.log(len(parts))


def evaluate(model: ExactModel, x: Tensor, timestep: float) -> Tensor:
    t = torch.full((len(x),), timestep, dtype=torch.float64)
    return model.predict(x, t, model.conditions(Request(), range(len(x))))


@pytest.mark.parametrize(
    "model",
    [
        gaussian(RUNTIME),
        gaussian(RUNTIME, mean=[0.7, -0.2], variances=[2.0, 0.0], angle=75),
        gaussian(RUNTIME, shape=(5,)),
        gaussian(RUNTIME, shape=(1, 3, 4)),
        mixture(RUNTIME),
        mixture(RUNTIME, shape=(3,), modes=5, std=0.3),
    ],
    ids=["ellipse", "flat ellipse", "5-D", "image", "ring", "3-D mixture"],
)
@pytest.mark.parametrize("timestep", [0.0, 3.5, 400.0, 999.0])
def test_epsilon_is_the_score_of_the_noised_density(model: ExactModel, timestep: float) -> None:
    level = model.schedule.at(timestep)
    generator = torch.Generator().manual_seed(1)
    x0 = model.sample_truth(32, generator)
    x = level.alpha * x0 + level.sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    flat = x.flatten(1).requires_grad_()
    (score,) = torch.autograd.grad(noised_log_density(model, flat, level.alpha, level.sigma).sum(), flat)
    torch.testing.assert_close(evaluate(model, x, timestep).flatten(1), -level.sigma * score, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("make", [gaussian, mixture])
@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_posterior_mean_is_the_best_denoiser_of_its_own_data(make: Any, shape: tuple[int, ...]) -> None:
    """It is orthogonal to its error: E[<D(x), x0 - D(x)>] = 0, which Monte Carlo sees on true draws."""
    model, generator = make(RUNTIME, shape=shape), torch.Generator().manual_seed(0)
    level = model.schedule.at(300)
    x0 = model.sample_truth(40_000, generator)
    x = level.alpha * x0 + level.sigma * torch.randn(x0.shape, generator=generator, dtype=torch.float64)
    clean = model.posterior_mean(x, level)
    products = (clean * (x0 - clean)).flatten(1).sum(1)
    assert abs(products.mean()) < 5 * products.std() / math.sqrt(len(products))
    assert (x0 - clean).square().mean() < (x0 - x / level.alpha).square().mean()


@given(timestep=TIMESTEPS, std=st.floats(0.05, 3), radius=st.floats(0, 5), seed=st.integers(0, 100))
def test_one_mode_is_a_gaussian(timestep: float, std: float, radius: float, seed: int) -> None:
    one = mixture(RUNTIME, shape=(3,), modes=1, std=std, radius=radius, seed=seed)
    same = gaussian(RUNTIME, shape=(3,), mean=one.means[0].tolist(), variances=[std**2] * 3)
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(evaluate(one, x, timestep), evaluate(same, x, timestep), rtol=1e-9, atol=1e-9)
    level = one.schedule.at(timestep)
    torch.testing.assert_close(one.posterior_mean(x, level), same.posterior_mean(x, level), rtol=1e-9, atol=1e-9)


@given(timestep=TIMESTEPS, name=st.sampled_from([kind.value for kind in Prediction]))
def test_every_prediction_type_says_the_same(timestep: float, name: Any) -> None:
    level = gaussian(RUNTIME).schedule.at(timestep)
    for make in (gaussian, mixture):
        model = make(RUNTIME, prediction=name)
        x = torch.randn(8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
        p, q = model.prediction.clean(level)
        read = p * x + q * evaluate(model, x, timestep)
        torch.testing.assert_close(read, model.posterior_mean(x, level), rtol=1e-7, atol=1e-7)


def test_samples_of_a_batch_may_have_different_timesteps() -> None:
    for model in (gaussian(RUNTIME), mixture(RUNTIME)):
        x = torch.randn(3, 2, dtype=torch.float64)
        times = [999.0, 0.0, 17.25]
        together = model.predict(x, torch.tensor(times, dtype=torch.float64), model.conditions(Request(), range(3)))
        alone = torch.cat([evaluate(model, row[None], t) for row, t in zip(x, times)])
        torch.testing.assert_close(together, alone)


def test_truth_has_the_moments_it_claims() -> None:
    model = gaussian(RUNTIME, mean=[1.0, -2.0])
    draws = model.sample_truth(50_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(draws.mean(0), model.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.T.cov(), model.covariance, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.linalg.eigvalsh(model.covariance), torch.tensor([0.15, 1.0], dtype=torch.float64))
    eigen = model.covariance @ model.basis
    torch.testing.assert_close(eigen, model.basis * model.variances)


def test_image_spectrum() -> None:
    model = gaussian(RUNTIME, shape=(3, 8, 8))
    assert model.mean.shape == model.variances.shape == (192,)
    assert model.basis.shape == (192, 192)
    torch.testing.assert_close(model.basis.T @ model.basis, torch.eye(192, dtype=torch.float64))
    assert model.covariance.diagonal().mean().item() == pytest.approx(0.25)
    images = model.decode(model.sample_truth(4, torch.Generator().manual_seed(0)))
    assert images.shape == (4, 3, 8, 8)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1


def test_ring_and_points() -> None:
    model = mixture(RUNTIME, modes=6, radius=2.0)
    assert isinstance(model, MixtureModel)
    torch.testing.assert_close(model.means.norm(dim=1), torch.full((6,), 2.0, dtype=torch.float64))
    x = torch.randn(5, 2)
    assert model.decode(x) is x
    assert model.describe(model.conditions(Request(), range(5))) == ["unconditional"] * 5
    assert model.weights_sha256 is None


def test_dtype_of_the_computation_and_of_the_answer() -> None:
    assert gaussian(RUNTIME).dtype == torch.float64
    model = gaussian(Runtime(torch.device("cpu"), torch.float32, False))
    assert model.mean.dtype == torch.float32
    x = torch.randn(2, 2)
    assert model.predict(x, torch.tensor([3.0, 4.0]), model.conditions(Request(), range(2))).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (gaussian, {"shape": (2, 2)}, r"model.shape=\[2, 2\] should be \[d\]"),
        (gaussian, {"shape": (2, 8, 8)}, "1 or 3 channels, not 2"),
        (gaussian, {"shape": (0,)}, "model.shape"),
        (gaussian, {"mean": [0.0]}, "model.mean has 1 values; model.shape needs 2"),
        (gaussian, {"variances": [1.0, -1.0]}, "-1 is negative"),
        (gaussian, {"prediction": "eps"}, "prediction=eps is not known; .*epsilon"),
        (mixture, {"modes": 0}, "model.modes=0 must be at least 1"),
        (mixture, {"std": 0.0}, "model.std=0 must be greater than 0"),
    ],
)
def test_bad_options(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(RUNTIME, **options)
    assert "\n" not in str(caught.value)


def test_asking_an_unconditional_model() -> None:
    with pytest.raises(InputError, match="label=3: model=gaussian is unconditional; leave label out"):
        gaussian(RUNTIME).conditions(Request(label=3), [0])
