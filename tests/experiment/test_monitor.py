"""What a monitor observes of a network at several levels in one call."""

import pytest
import torch
from torch import Tensor

import diffexp
from diffexp.catalog.discover import discover
from diffexp.components.models.base import Condition, Runtime
from diffexp.components.trackers.none import NoTracker
from diffexp.components.trackers.several import Trackers
from diffexp.experiment.live import Live
from diffexp.experiment.monitor import Monitor
from diffexp.plan.levels import Level


class Steps(NoTracker):
    """Keeps what it gets of the steps."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self.logged.append((step, values))


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


@pytest.mark.parametrize("schedule", ["vp", "ve", "edm", "flow"])
def test_sigma_is_the_one_that_grids_take(schedule: str) -> None:
    model = discover().build("model", {"name": "mixture", "schedule": schedule})(Runtime())
    steps = Steps()
    watch = Monitor(model, 3, 1, 1, live=Live(Trackers({"steps": steps}), seed=0))
    condition = Condition({}, None, ["a", "b"])
    asked = [0.9, 0.5, 0.1]
    plan = diffexp.compile("euler", steps=3, model=model, sigmas=asked)
    for row in plan.rows:
        watch.network(lambda u, t, condition: u, condition)(torch.zeros(2, 2, dtype=torch.float64), row.level)
    watch.live.finish({}, "done")
    assert [values["sigma"] for _, values in steps.logged] == pytest.approx(asked)
    assert [shot.sigma for shot in watch.snapshots[:3]] == pytest.approx(asked)
    header, *lines = plan.to_csv().splitlines()
    cells = [dict(zip(header.split(","), line.split(","))) for line in lines]
    assert "sigma" not in cells[0]
    assert [float(cell["noise_std"]) for cell in cells] == [row.level.sigma for row in plan.rows]


def test_pure_noise_has_no_finite_sigma() -> None:
    model = discover().build("model", {"name": "mixture"})(Runtime())
    steps = Steps()
    watch = Monitor(model, 1, 1, 0, live=Live(Trackers({"steps": steps}), seed=0))
    watch.on_evaluation(torch.zeros(2, 2), torch.zeros(2, 2), Level(999.0, 0.0, 1.0))
    watch.live.finish({}, "done")
    ((_, values),) = steps.logged
    assert "sigma" not in values and values["timestep"] == 999
