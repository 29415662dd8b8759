"""What the metrics say about samples whose quality is known."""

import logging
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from diffexp.components.metrics.base import RunFacts
from diffexp.components.metrics.cost import Cost
from diffexp.components.metrics.density_coverage import DensityCoverage
from diffexp.components.metrics.features import load_features
from diffexp.components.metrics.fid import FID
from diffexp.components.metrics.frechet import moments, squared_frechet_distance, weighted_squared_distances
from diffexp.components.metrics.half_samples import Estimate
from diffexp.components.metrics.kid import KID
from diffexp.components.metrics.mind import MIND
from diffexp.components.metrics.precision_recall import PrecisionRecall
from diffexp.components.metrics.reconstruction import Reconstruction
from diffexp.components.metrics.wasserstein import Wasserstein, sliced_wasserstein
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.gaussian import gaussian
from diffexp.components.models.mixture import mixture
from diffexp.components.pixels import quantized, to_image
from diffexp.components.sampler import build_sampler
from diffexp.components.schedulers.ddim import ddim
from diffexp.errors import InputError
from diffexp.experiment.summary import metrics_line
from diffexp.plan.compile import sample
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Clip
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

MNIST: Any = SimpleNamespace(id="mnist", shape=(1, 32, 32), feature_domain="mnist")
CHURCH: Any = SimpleNamespace(id="google/ddpm-church-256", shape=(3, 256, 256))


def facts(model: Any, **known: Any) -> RunFacts:
    usual: dict[str, Any] = {
        "nfe": 50,
        "num_samples": 8,
        "seconds": 2.0,
        "model_seconds": 1.9,
        "scheduler_us_per_step": 11.0,
        "peak_memory_mb": 500.0,
        "plan": None,
    }
    return RunFacts(model=model, **(usual | known))


def plan(training: Any, steps: int) -> Plan:
    made = build_sampler(ddim, steps=steps, training=training)
    assert isinstance(made, Plan)
    return made


def draws(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))


# cost


def test_a_line_shows_intervals_with_their_metric():
    values = {"nfe": 10, "fid/x": 2.6543, "fid/x/low": 2.411, "fid/x/high": 2.9, "kid/x": None, "tide/low": 1.0}
    assert metrics_line(values) == "nfe=10  fid/x=2.654 (2.41..2.9)  tide/low=1"


def test_cost_is_per_image():
    values = Cost().compute(facts(MNIST))
    assert values == {
        "nfe": 50,
        "seconds_per_image": 0.25,
        "images_per_second": 4.0,
        "scheduler_us_per_step": 11.0,
        "peak_memory_mb": 500.0,
    }


def test_cost_leaves_out_what_was_not_measured():
    values = Cost().compute(facts(MNIST, num_samples=0, seconds=0.0, scheduler_us_per_step=None, peak_memory_mb=None))
    assert values == {"nfe": 50}


# the Frechet distance


@given(st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_frechet_distance_of_commuting_covariances_is_that_of_the_deviations(size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    mean = torch.randn(2, size, generator=generator, dtype=torch.float64)
    deviations = torch.rand(2, size, generator=generator, dtype=torch.float64)
    covariances = [(basis * d**2) @ basis.T for d in deviations]
    expected = (mean[0] - mean[1]).square().sum() + (deviations[0] - deviations[1]).square().sum()
    found = squared_frechet_distance(mean[0], covariances[0], mean[1], covariances[1])
    assert found == pytest.approx(expected.item(), rel=1e-9, abs=1e-12)


@given(st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_frechet_distance_is_symmetric_and_zero_for_equals(size: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    first, second = (moments(torch.randn(size + 2, size, generator=generator)) for _ in range(2))
    assert squared_frechet_distance(*first, *second) == pytest.approx(squared_frechet_distance(*second, *first))
    assert squared_frechet_distance(*first, *first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_takes_singular_covariances():
    zero, one = torch.zeros(2), torch.eye(2)
    assert squared_frechet_distance(zero, torch.zeros(2, 2), zero, one) == pytest.approx(2.0)


def test_weighted_distances_are_those_of_the_samples_repeated():
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.randint(0, 4, (30, 3), generator=torch.Generator().manual_seed(1)).double()
    mean, covariance = moments(torch.randn(50, 4, generator=torch.Generator().manual_seed(2)))
    found = weighted_squared_distances(features, weights, mean, covariance)
    for column, counts in enumerate(weights.T):
        repeated = features.repeat_interleave(counts.long(), dim=0)
        expected = squared_frechet_distance(*moments(repeated), mean, covariance)
        assert found[column].item() == pytest.approx(expected, rel=1e-9)


# distances of features


def seen(metric: Any, images: Tensor, batch_size: int = 64) -> dict[str, Any]:
    for batch in images.split(batch_size):
        metric.update(batch, batch)
    return metric.compute(facts(MNIST))


def number(value: Any) -> float:
    """What is reported: of an estimate its value, of one value a sample their mean."""
    if isinstance(value, Estimate):
        return value.value
    return value.mean().item() if isinstance(value, Tensor) else value


def test_fid_is_that_of_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    known, images = load_features("mnist_cnn"), draws(200)
    theirs = FrechetInceptionDistance(known.network, reset_real_features=False)
    theirs.real_features_sum.copy_(known.reference.total)
    theirs.real_features_cov_sum.copy_(known.reference.outer)
    theirs.real_features_num_samples.fill_(known.reference.num_samples)
    theirs.update(quantized(images), real=False)
    assert number(seen(FID(), images)["fid/mnist_cnn"]) == pytest.approx(theirs.compute().item(), rel=1e-3)


def test_kid_is_that_of_torchmetrics_where_both_sets_are_of_one_size():
    from torchmetrics.image.kid import poly_mmd

    kid, images = KID(), draws(60)
    known = kid.features
    few = replace(known.reference, samples=known.reference.samples[:60].contiguous())
    kid.features = replace(known, reference=few)
    theirs = poly_mmd(few.samples.double(), known.of(images).double())
    assert number(seen(kid, images)["kid/mnist_cnn"]) == pytest.approx(theirs.item(), rel=1e-5)


def test_density_and_coverage_by_their_definition():
    known, images, k = load_features("mnist_cnn"), draws(40), 2
    real, fake = known.reference.samples.double(), known.of(images).double()
    distances = torch.cdist(real, real)
    reach = distances.sort(dim=1).values[:, k]
    within = torch.cdist(real, fake) < reach[:, None]
    found = seen(DensityCoverage(k=k), images)
    assert number(found["density/mnist_cnn"]) == pytest.approx(within.sum().item() / (k * len(fake)), abs=1e-3)
    assert number(found["coverage/mnist_cnn"]) == pytest.approx(within.any(dim=1).double().mean().item(), abs=1e-3)


def test_noise_is_neither_precise_nor_does_it_recall_anything():
    found = seen(PrecisionRecall(), draws(40))
    assert number(found["precision/mnist_cnn"]) == 0
    assert number(found["recall/mnist_cnn"]) < 0.2


def real_digits(count: int) -> Tensor:
    """Features that are real images': what a perfect sampler's would be."""
    return load_features("mnist_cnn").reference.samples[:count]


@pytest.mark.parametrize("kind", [PrecisionRecall, DensityCoverage])
def test_real_images_are_as_good_as_it_gets(kind: Any):
    metric = kind()
    metric.batches.append(real_digits(2000))
    found = metric.compute(facts(MNIST))
    for name, value in found.items():
        # They are among the real images that they are compared with: density is 1 + 1/k.
        assert number(value) == pytest.approx(1.2 if name.startswith("density") else 1.0, abs=0.12), name


@pytest.mark.parametrize("kind", [FID, KID, PrecisionRecall, DensityCoverage])
def test_distances_depend_on_the_images_alone(kind: Any):
    state = torch.get_rng_state()
    first, second = seen(kind(), draws(60), 60), seen(kind(), draws(60), 7)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is the caller's"
    assert {name: number(value) for name, value in first.items()} == pytest.approx(
        {name: number(value) for name, value in second.items()}, rel=1e-4
    )


def test_metrics_see_what_a_png_holds():
    images = draws(4)
    assert torch.equal(quantized(images) * 255, (quantized(images) * 255).round())
    assert torch.equal(quantized(torch.tensor([-0.5, 1.5])), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("kind", [FID, KID])
def test_few_samples_are_warned_about_and_one_is_left_out(kind: Any, caplog: pytest.LogCaptureFixture):
    metric = kind()
    metric.update(draws(1), draws(1))
    assert metric.compute(facts(MNIST)) == {}
    assert "needs at least 2 samples and this run has 1" in caplog.text
    caplog.clear()
    metric.update(draws(5), draws(5))
    assert all(math.isfinite(number(value)) for value in metric.compute(facts(MNIST)).values())
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "num_samples=1000" in caplog.text


@pytest.mark.parametrize("kind", [FID, KID, MIND])
def test_values_so_far_are_those_without_intervals_and_warnings(kind: Any, caplog: pytest.LogCaptureFixture):
    metric = kind()
    assert metric.compute(facts(MNIST, so_far=True)) == {}
    metric.update(draws(40), draws(40))
    (now,) = metric.compute(facts(MNIST, so_far=True)).values()
    short = metric.compute(facts(MNIST, few_on_purpose=True))
    assert caplog.records == []
    (after,) = metric.compute(facts(MNIST)).values()
    assert now.interval is None and after.interval is not None
    assert now.value == pytest.approx(after.value, rel=1e-6) == number(*short.values())


@pytest.mark.parametrize("kind", [FID, KID])
def test_mnist_features_are_for_mnist(kind: Any):
    assert kind().applies(MNIST) is None
    assert "google/ddpm-church-256" in kind().applies(CHURCH)
    with pytest.raises(InputError, match="features=inception_v4 is not known"):
        kind(features="inception_v4")


@pytest.mark.parametrize("kind", [PrecisionRecall, DensityCoverage])
def test_impossible_neighbours_are_input_errors(kind: Any):
    with pytest.raises(InputError, match="k=0 must be at least 1"):
        kind(k=0)


# the exact models


def test_gaussian_samples_of_the_truth_are_close_and_others_are_not():
    model = gaussian(Runtime(), mean=[1.0, -2.0])
    truth = model.sample_truth(20_000, torch.Generator().manual_seed(3))
    good, bad = Wasserstein(), Wasserstein()
    for batch in truth.split(7_000):
        good.update(batch, batch)
        bad.update(batch + 0.5, batch)
    assert number(good.compute(facts(model))["wasserstein2/samples"]) < 0.05
    assert number(bad.compute(facts(model))["wasserstein2/samples"]) == pytest.approx(0.5 * math.sqrt(2), abs=0.05)


def test_the_exact_distance_shrinks_with_the_steps_and_is_that_of_many_samples():
    model = gaussian(Runtime(), mean=[1.0, -2.0])
    plans = {steps: plan(model.training, steps) for steps in (5, 20, 100)}
    told = {n: Wasserstein().compute(facts(model, plan=made)) for n, made in plans.items()}
    exact = {n: number(values["wasserstein2/exact"]) for n, values in told.items()}
    assert exact[5] > exact[20] > exact[100] > 0

    condition = model.conditions(Request(), range(20_000))
    generator = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(20_000, 2, generator=generator, dtype=torch.float64)

    def network(u: Tensor, level: Level) -> Tensor:
        return model.predict(u, torch.full((len(u),), level.timestep), condition)

    metric = Wasserstein()
    metric.update(sample(plans[5], network, noise(), noise), torch.empty(0))
    found = metric.compute(facts(model, plan=plans[5]))
    assert number(found["wasserstein2/samples"]) == pytest.approx(exact[5], rel=0.1)


def test_a_plan_that_clips_has_no_exact_distance(caplog: pytest.LogCaptureFixture):
    model = gaussian(Runtime())
    clipping = plan(Training(model.schedule, clip=Clip(1.0)), 5)
    with caplog.at_level(logging.INFO):
        assert Wasserstein().compute(facts(model, plan=clipping)) == {}
    assert "wasserstein2/exact: skipped" in caplog.text


def test_mixture_samples_are_held_against_a_floor():
    model = mixture(Runtime())
    metric = Wasserstein()
    metric.update(model.sample_truth(2_000, torch.Generator().manual_seed(3)), torch.empty(0))
    values = {name: number(value) for name, value in metric.compute(facts(model)).items()}
    assert values["sliced_wasserstein2/samples"] < 3 * values["sliced_wasserstein2/floor"]
    metric.update(torch.zeros(2_000, 2), torch.empty(0))
    assert number(metric.compute(facts(model))["sliced_wasserstein2/samples"]) > 0.2


def test_sliced_wasserstein_of_a_shift_is_its_mean_projection():
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([3.0, 0.0, 0.0])
    # The mean square of one coordinate of a unit vector in three dimensions is 1/3.
    assert sliced_wasserstein(points, points + shift) == pytest.approx(3 / math.sqrt(3), rel=0.1)
    assert sliced_wasserstein(points, points.flip(0)) == 0


def test_wasserstein_needs_a_known_truth_and_two_samples():
    assert "mnist" in (Wasserstein().applies(MNIST) or "")
    assert Wasserstein().applies(gaussian(Runtime())) is None
    for model in (gaussian(Runtime()), mixture(Runtime())):
        assert Wasserstein().compute(facts(model)) == {}


# against given pictures


def test_reconstruction_is_the_distance_to_the_picture_of_the_sample_as_it_wquantized(tmp_path: Path):
    pictures = draws(2).mul(255).round().div(255)
    for name, picture in zip("ab", pictures):
        to_image(picture).save(tmp_path / f"{name}.png")
    metric, off = Reconstruction(image=str(tmp_path)), 8 / 255
    # Samples 3, 0 and 1 are of the pictures b, a and b.
    found = torch.stack([pictures[1], pictures[0] + 0.3 / 255, (pictures[1] - off).abs()])
    metric.update(found[:2], found[:2])
    metric.update(found[2:], found[2:])
    same, rounded, other = metric.compute(facts(MNIST, indices=(3, 0, 1)))["reconstruction/psnr"].tolist()
    error = ((pictures[1] - off).abs() - pictures[1]).square().mean()
    assert (same, rounded) == (60, 60) and other == pytest.approx(-10 * math.log10(error))
    assert "points" in (metric.applies(mixture(Runtime())) or "")
    lost = Reconstruction(image="nowhere")
    lost.update(found, found)
    with pytest.raises(InputError, match="metric.reconstruction.image=nowhere: no such file"):
        lost.compute(facts(MNIST))


def test_density_has_an_interval_and_coverage_has_none():
    """Half of the samples cover less, so that halves cannot tell how coverage scatters."""
    metric = DensityCoverage()
    metric.update(draws(40), draws(40))
    found = metric.compute(facts(MNIST))
    assert isinstance(found["coverage/mnist_cnn"], float) and 0 <= found["coverage/mnist_cnn"] <= 1
    density = found["density/mnist_cnn"]
    assert isinstance(density, Tensor) and len(density) == 40
