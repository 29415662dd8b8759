import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffexp.guiders.cfg import cfg
from diffexp.guiders.none import no_guidance
from diffexp.models.base import Condition
from diffexp.registry import registration


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
    torch.testing.assert_close(guided, negative + scale * (positive - negative))


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


def test_registered_names() -> None:
    names = [found.name for found in (registration(cfg), registration(no_guidance)) if found]
    assert names == ["cfg", "none"]
