import math
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg
from hypothesis import given, strategies as st
from torch import Tensor

import diffexp
from diffexp.catalog.register import registration
from diffexp.components.guidance.cfg import cfg, rescaled
from diffexp.components.guidance.cfg_pp import cfg_pp
from diffexp.components.guidance.interval import interval, timesteps_between
from diffexp.components.guidance.none import no_guidance
from diffexp.components.models.base import Condition
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.schedules import FlowSchedule, VESchedule, VPSchedule
from diffexp.plan.training import Training


class Recorder:
    """Stands for a model: remembers its calls, answers with u + t + label."""

    def __init__(self) -> None:
        self.calls: list[tuple[Tensor, Tensor, Condition]] = []

    def __call__(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        self.calls.append((u, t, condition))
        label = condition.positive["label"].to(u.dtype) if condition.positive else torch.zeros(len(u), dtype=u.dtype)
        return u * (1 + label[:, None]) + t[:, None]


def condition(labels: list[int], against: list[int] | None) -> Condition:
    negative = None if against is None else {"label": torch.tensor(against)}
    return Condition({"label": torch.tensor(labels)}, negative, [str(label) for label in labels])


@given(scale=st.floats(-2, 10), labels=st.lists(st.integers(0, 9), min_size=1, max_size=5))
def test_cfg_extrapolates_from_negative_to_positive(scale: float, labels: list[int]) -> None:
    model, u = Recorder(), torch.randn(len(labels), 3, dtype=torch.float64)
    t = torch.arange(len(labels), dtype=torch.float64)
    asked, against = condition(labels, [10] * len(labels)), condition([10] * len(labels), None)
    positive, negative = model(u, t, asked), model(u, t, against)
    guided = cfg(model, scale)(u, t, asked)
    # As in diffusers' pipelines, there is no guidance at 1 and below: distilled models are told 0.
    torch.testing.assert_close(guided, negative + max(scale, 1.0) * (positive - negative))


def test_cfg_makes_one_call_of_twice_the_batch() -> None:
    model, u, t = Recorder(), torch.randn(2, 3), torch.tensor([5.0, 6.0])
    cfg(model, 3.0)(u, t, condition([1, 2], [10, 10]))
    ((seen, times, both),) = model.calls
    assert seen.shape == (4, 3)
    assert times.tolist() == [5.0, 6.0, 5.0, 6.0]
    assert both.positive["label"].tolist() == [10, 10, 1, 2]
    assert len(both.captions) == 4


def test_cfg_builds_the_doubled_condition_once_per_condition() -> None:
    model, u, t = Recorder(), torch.randn(2, 3), torch.zeros(2)
    guided, first, second = cfg(model, 3.0), condition([1, 2], [10, 10]), condition([3, 4], [10, 10])
    for asked in (first, first, second, first):
        guided(u, t, asked)
    seen = [call[2] for call in model.calls]
    assert seen[0] is seen[1]
    assert seen[2].positive["label"].tolist() == [10, 10, 3, 4]
    assert seen[3].positive["label"].tolist() == [10, 10, 1, 2]


def test_cfg_at_scale_one_is_the_model_itself() -> None:
    model = Recorder()
    assert cfg(model, 1.0) is model
    assert cfg(model, 1) is model


def test_cfg_without_a_negative_condition_costs_one_plain_call() -> None:
    model, u, t = Recorder(), torch.randn(2, 3), torch.zeros(2)
    for asked in (Condition({}, None, ["unconditional"] * 2), condition([1, 2], None)):
        torch.testing.assert_close(cfg(model, 4.0)(u, t, asked), model(u, t, asked))
    assert all(len(call[0]) == 2 for call in model.calls)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_none_is_the_model_itself(scale: float) -> None:
    model = Recorder()
    assert no_guidance(model, scale) is model


def a_run_of(labels: int) -> tuple[Tensor, Tensor, Condition]:
    """What a network is asked in a step of a batch of so many samples, each with pixels of its own spread."""
    u = torch.randn(labels, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spread = torch.arange(1, labels + 1, dtype=torch.float64).view(-1, 1, 1, 1)
    asked = Condition({"label": torch.arange(labels)}, {"label": torch.full((labels,), 10)}, ["a"] * labels)
    return u * spread, torch.full((labels,), 500.0, dtype=torch.float64), asked


def picture_network(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Nonlinear, different for every label."""
    label = condition.positive["label"].view(-1, 1, 1, 1).to(u.dtype)
    return torch.tanh(u + 0.1 * label) + 0.05 * label + 1e-3 * t.view(-1, 1, 1, 1)


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_rescaling_is_that_of_diffusers(share: float) -> None:
    u, t, asked = a_run_of(4)
    positive = picture_network(u, t, asked)
    plain = cfg(picture_network, 5.0)(u, t, asked)
    found = cfg(picture_network, 5.0, rescale=share)(u, t, asked)
    torch.testing.assert_close(found, rescale_noise_cfg(plain, positive, share))
    assert (found - plain).abs().max() > 0.01
    if share == 1.0:
        torch.testing.assert_close(found.flatten(1).std(1), positive.flatten(1).std(1))


def test_rescaling_goes_by_sample() -> None:
    u, t, asked = a_run_of(3)
    whole = cfg(picture_network, 5.0, rescale=0.7)(u, t, asked)
    for row in range(3):
        own = Condition({"label": torch.tensor([row])}, {"label": torch.tensor([10])}, ["a"])
        alone = cfg(picture_network, 5.0, rescale=0.7)(u[row : row + 1], t[:1], own)
        torch.testing.assert_close(whole[row : row + 1], alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_rescaling_leaves_a_sample_without_deviation_as_it_is(dtype: torch.dtype) -> None:
    """0.1 has a mean that is rounded, and so a deviation that is nothing but rounding."""
    spread = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    for value in (0.0, 0.1, -7.77):
        guided = spread.clone()
        guided[1] = value
        for positive in (spread, guided):
            found = rescaled(guided, positive, 0.7)
            assert torch.equal(found[1], guided[1])
            assert torch.allclose(found[::2], spread[::2], rtol=1e-2)
    number = torch.tensor([[2.0]], dtype=dtype)
    assert torch.equal(rescaled(number, 3 * number, 0.7), number)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_of_its_range(share: float) -> None:
    with pytest.raises(InputError, match=f"guidance.rescale={share:g} must be from 0 to 1"):
        cfg(picture_network, 5.0, rescale=share)


SCHEDULES = {"vp": VPSchedule.from_betas(), "ve": VESchedule(), "flow": FlowSchedule()}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("ratio", "guided"), [(0.05, False), (0.299, False), (0.301, True), (2.0, True), (2.01, False)]
)
def test_an_interval_means_the_same_noise_on_every_schedule(schedule: str, ratio: float, guided: bool) -> None:
    model, u = Recorder(), torch.randn(2, 3)
    known = SimpleNamespace(schedule=SCHEDULES[schedule])
    t = torch.full((2,), known.schedule.at_ratio(ratio).timestep)
    asked = condition([1, 2], [10, 10])
    limited = interval(model, 3.0, known, low=0.3, high=2.0)  # pyright: ignore[reportArgumentType]
    found = limited(u, t, asked)
    assert [len(call[0]) for call in model.calls] == [4 if guided else 2], "outside it costs what the model costs"
    torch.testing.assert_close(found, (cfg(model, 3.0) if guided else model)(u, t, asked))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_an_interval_without_ends_is_all_of_the_schedule(schedule: str) -> None:
    known = SCHEDULES[schedule]
    low, high = known.timestep_range
    first, last = timesteps_between(known, 0.0, math.inf)
    assert first <= low and high <= last


def test_an_interval_wider_than_what_was_trained_on_takes_in_its_ends() -> None:
    """VP timesteps end at 0 and 999, where sigma / alpha is 0.01 and 157."""
    first, last = timesteps_between(SCHEDULES["vp"], 0.001, 1000.0)
    assert first < 0 and last > 999


def test_an_interval_with_rows_at_different_levels() -> None:
    model, u = Recorder(), torch.randn(2, 3)
    limited = interval(model, 3.0, SimpleNamespace(schedule=FlowSchedule()), low=0.3, high=2.0)  # pyright: ignore
    asked = condition([1, 2], [10, 10])
    for times in ([900.0, 500.0], [500.0, 100.0]):
        t = torch.tensor(times)
        guided, plain = cfg(model, 3.0)(u, t, asked), model(u, t, asked)
        expected = torch.stack([(guided if 231 < t[row] <= 667 else plain)[row] for row in range(2)])
        torch.testing.assert_close(limited(u, t, asked), expected)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (2.0, 2.0), (3.0, 2.0)])
def test_an_interval_that_is_none(low: float, high: float) -> None:
    with pytest.raises(InputError, match="must satisfy 0 <= low < high"):
        interval(Recorder(), 3.0, SimpleNamespace(schedule=FlowSchedule()), low=low, high=high)  # pyright: ignore


# CFG++

SCHEDULES = {"vp": VPSchedule.from_betas(), "ve": VESchedule(0.02, 80.0), "flow": FlowSchedule()}


def plain_cfg_pp(model: Recorder, x: Tensor, levels: Sequence[Level], share: float, asked: Condition) -> Tensor:
    """The paper's algorithm 2, as it stands there."""
    against = Condition(asked.negative or {}, None, asked.captions)
    for here, there in pairwise([*levels, CLEAN]):
        t = torch.full((len(x),), here.timestep, dtype=x.dtype)
        unguided = model(x, t, against)
        noise = unguided + share * (model(x, t, asked) - unguided)
        x0 = (x - here.sigma * noise) / here.alpha
        x = there.alpha * x0 + there.sigma * unguided
    return x


@pytest.mark.parametrize("kind", ["vp", "ve"])
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_cfg_pp_is_the_papers_algorithm(kind: str, share: float) -> None:
    model, asked = Recorder(), condition([1, 2], [3, 3])
    training = Training(SCHEDULES[kind])
    plan = diffexp.compile("euler", steps=12, model=training, grid="karras")
    levels = [row.level for row in plan.rows]
    predict = cfg_pp(lambda u, t, c: 1e-3 * model(u, t, c), share, levels)

    def network(u: Tensor, level: Level) -> Tensor:
        return predict(u, torch.full((len(u),), level.timestep, dtype=u.dtype), asked)

    x = torch.randn(2, 3, dtype=torch.float64) * plan.start_std
    scaled = SimpleNamespace(run=lambda u, t, c: 1e-3 * model(u, t, c))
    expected = plain_cfg_pp(scaled.run, x * plan.rows[0].scale, levels, share, asked)  # pyright: ignore
    torch.testing.assert_close(sample(plan, network, x, lambda: torch.zeros_like(x)), expected, rtol=1e-6, atol=1e-6)


def test_cfg_pp_with_rows_at_different_levels_and_between_them() -> None:
    model, asked, training = Recorder(), condition([1, 1, 1, 1], [3, 3, 3, 3]), Training(SCHEDULES["vp"])
    levels = [row.level for row in diffexp.compile("ddim", steps=3, model=training, grid="trailing").rows]
    guided = cfg_pp(model, 0.5, levels)
    t, u = torch.tensor([999.0, 666.0, 333.0, 700.0]), torch.ones(4, 3)
    found = (guided(u, t, asked) - 4 - t[:, None]) / (2 - 4)  # the share of the way from the negative side
    ratios = [level.ratio for level in levels]
    steps = [here / (here - there) for here, there in pairwise([*ratios, 0.0])]
    expected = [0.5 * steps[0], 0.5 * steps[1], 0.5 * steps[2], 0.5 * steps[1]]
    torch.testing.assert_close(found[:, 0], torch.tensor(expected), rtol=1e-3, atol=1e-3)


def test_cfg_pp_from_pure_noise_and_without_a_negative_condition() -> None:
    pure = [Level(999.0, 0.0, 1.0), Level(500.0, 0.6, 0.8)]
    guided, t, u = cfg_pp(Recorder(), 0.6, pure), torch.tensor([999.0]), torch.ones(1, 3)
    torch.testing.assert_close(guided(u, t, condition([0], [10])), 999 + 11 - 0.6 * 10 * u)
    torch.testing.assert_close(guided(u, t, condition([0], None)), 999 + u)


@pytest.mark.parametrize("scale", [-0.1, 1.1, 7.5])
def test_cfg_pp_outside_of_its_range(scale: float) -> None:
    with pytest.raises(InputError, match="takes a guidance_scale from 0 to 1, such as 0.6, not"):
        cfg_pp(Recorder(), scale, [])


def test_registered_names() -> None:
    names = [found.name for found in map(registration, (cfg, interval, no_guidance)) if found]
    assert names == ["cfg", "interval", "none"]
