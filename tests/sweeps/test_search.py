"""Searching for options under a budget of evaluations."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from diffexp.cli.search import scheduler_options
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.euler import euler
from diffexp.components.schedulers.heun import heun
from diffexp.errors import InputError
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from diffexp.sweeps.objective import best_text, objective_value
from diffexp.sweeps.results import read_cells
from tests.made_up import made_up_cell
from tests.runs import POINTS, record

TRAINING = Training(VPSchedule.from_betas())


@pytest.mark.parametrize("max_nfe", [1, 2, 9, 10])
@pytest.mark.parametrize("scheduler", [euler, heun])
def test_as_many_steps_as_a_budget_allows(scheduler, max_nfe):
    fitting = Recipe(scheduler, 50, TRAINING).within(max_nfe)
    plan, longer = fitting.sampler, Recipe(scheduler, fitting.steps + 1, TRAINING).sampler
    assert isinstance(plan, Plan)
    assert isinstance(longer, Plan)
    assert plan.nfe <= max_nfe < longer.nfe


def test_a_budget_takes_no_more_steps_than_were_asked_for():
    asked = Recipe(heun, 4, TRAINING)
    assert asked.within(100).steps == 4
    assert asked.within(None) is asked


def test_levels_given_one_by_one_are_not_thinned_out():
    given = Recipe(euler, 3, TRAINING, Grid(timesteps=[900, 500, 100]))
    assert given.within(3) is given
    with pytest.raises(InputError, match="max_nfe=2: the levels .* take 3"):
        given.within(2)


def test_a_run_under_a_budget(run):
    folder = run(*POINTS, "scheduler=heun", "steps=50", "max_nfe=10").folder
    assert record(folder)["nfe"] == 9


@dataclass
class Trial:
    """What a search space needs of an Optuna trial."""

    params: dict[str, Any]
    user_attrs: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)

    def suggest_float(self, name: str, low: float, high: float) -> None:
        self.asked[name] = (low, high)

    def suggest_int(self, name: str, low: int, high: int) -> None:
        self.asked[name] = (low, high)

    def suggest_categorical(self, name: str, choices: tuple[Any, ...]) -> None:
        self.asked[name] = choices


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("euler", {}),
        ("ddim", {"scheduler.eta": (0.0, 1.0)}),
        ("deis", {"scheduler.order": (1, 3)}),
        ("dpmpp_2m_sde", {"scheduler.eta": (0.0, 1.0), "scheduler.solver_type": ("midpoint", "heun")}),
    ],
)
def test_the_options_of_the_scheduler_at_hand_are_searched(scheduler, expected):
    chosen, fixed = Trial({"scheduler": scheduler}), Trial({}, {"scheduler": scheduler})
    for trial in (chosen, fixed):
        scheduler_options(None, trial)
        assert trial.asked == expected


def test_schedulers_with_different_choices_of_one_option_share_a_search():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study()
    for scheduler in ("deis", "unipc", "deis"):
        trial = study.ask()
        trial.set_user_attr("scheduler", scheduler)
        scheduler_options(None, trial)
        assert trial.params["scheduler.order"] in ((1, 2, 3, 4) if scheduler == "unipc" else (1, 2, 3))
        study.tell(trial, 1.0)


def test_the_objective_is_a_metric_of_the_run(tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"fid/mnist_cnn": 1.5, "kid/mnist_cnn": None}))
    assert objective_value({"objective": "fid/mnist_cnn"}, tmp_path) == 1.5
    assert objective_value({"objective": "kid/mnist_cnn"}, tmp_path) is None
    assert objective_value({"objective": "psnr"}, tmp_path) is None
    assert objective_value({"objective": None}, tmp_path) is None
    assert objective_value({"objective": "fid/mnist_cnn"}, tmp_path / "nowhere") is None


def test_the_best_cell_is_named_with_the_command_that_runs_it_again(tmp_path):
    for number, (quality, status) in enumerate([(3.0, "done"), (1.0, "done"), (2.0, "done"), (0.5, "failed")]):
        config = {"experiment": "search", "steps": 5 + number, "prompt": "two words"}
        made_up_cell(tmp_path, f"{number}_x", config, quality=quality, status=status)
    cells = read_cells(tmp_path)
    best, again = best_text(cells, "fid/mnist_cnn").splitlines()
    assert best.startswith("best fid/mnist_cnn: 1_x  nfe=6  ")
    assert again == "  again: python -m diffexp experiment=search steps=6 'prompt=two words' hydra.mode=RUN"
    assert best_text(cells, "psnr", "maximize").startswith("best psnr: 0_x  ")
    told = "no cell has objective=fidd (available metrics: nfe, seconds_per_image, "
    assert best_text(cells, "fidd").startswith(told)
    assert best_text([], "fidd") == "no cell has objective=fidd (available metrics: none)"
