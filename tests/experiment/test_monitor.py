"""What a monitor observes of a network at several levels in one call."""

import torch
from torch import Tensor

from diffexp.catalog.discover import discover
from diffexp.components.models.base import Condition, Runtime
from diffexp.experiment.monitor import Monitor


def test_every_level_is_evaluated_under_the_condition_of_its_sample() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def predict(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        seen.append((t, condition.positive["label"]))
        return u

    model = discover().build("model", {"name": "mixture"})(Runtime())
    watch = Monitor(model, 10, 1, 0)
    condition = Condition({"label": torch.tensor([3, 4])}, None, ["3", "4"])
    levels = [model.schedule.at(t) for t in (900, 500, 10)]
    u = torch.arange(12, dtype=torch.float64).view(3, 2, 2)
    assert torch.equal(watch.network_at_once(predict, condition)(u, levels), u)
    ((times, labels),) = seen
    assert times.tolist() == [900, 900, 500, 500, 10, 10]
    assert labels.tolist() == [3, 4, 3, 4, 3, 4]
    assert watch.evaluations == 3
