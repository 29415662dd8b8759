"""Plans as JSON: equal in every number when read back, and refused where a number was changed."""

import math

import pytest

import diffexp
from diffexp.catalog.discover import discover
from diffexp.errors import InputError
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Clip
from diffexp.plan.row import Clamp, Row
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

CLIPPED = Training(VPSchedule.from_betas(), clip=Clip(0.5))
SCHEDULERS = [name for name in discover().names("scheduler") if not name.startswith("diffusers/") and name != "learned"]
CLASSES = ("diffusers/unipc", "diffusers/euler_ancestral", "diffusers/ddpm", "diffusers/deis")


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, *CLASSES])
def test_a_plan_of_every_scheduler_is_the_same_when_read_back(scheduler: str) -> None:
    plan = diffexp.compile(scheduler, steps=5, model=CLIPPED)
    found = Plan.from_json(plan.to_json())
    assert (found, found.sha256, found.name, found.to_csv()) == (plan, plan.sha256, plan.name, plan.to_csv())


def test_numbers_that_json_lacks_and_the_origin_survive(tmp_path) -> None:
    clamp = Clamp(1.0, -0.1, -math.inf, math.inf)
    row = Row(Level(0.1 + 0.2, 1 / 3, 5e-324), 1.0, (-0.0, 1e300), (), ((), (0.25,)), (2.0,), (clamp,))
    plan = Plan((row,), 80.0, 0.5, (1e-17,), "mine", origin={"model_id": "mnist", "seconds": math.nan})
    file = tmp_path / "plan.json"
    file.write_text(plan.to_json())
    found = diffexp.load_plan(file)
    assert found == plan and found.sha256 == plan.sha256 and diffexp.load_plan(tmp_path) == plan
    assert found.origin == {"model_id": "mnist", "seconds": "nan"}
    assert str(found.rows[0].x[0]) == "-0.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('"start_std": 1.0', '"start_std": 1.5'), "changed or damaged"),
        (("diffexp plan 1", "diffexp plan 7"), "format"),
        (('"rows"', '"lines"'), "'rows' is missing"),
        (('"start_std": 1.0', '"start_std": true'), "True is not a number"),
        (("{", "["), "no plan"),
    ],
)
def test_what_is_no_plan_is_told_in_one_line(change: tuple[str, str], message: str, tmp_path) -> None:
    file = tmp_path / "plan.json"
    file.write_text(diffexp.compile("ddim", steps=2).to_json().replace(*change))
    with pytest.raises(InputError, match=message) as error:
        diffexp.load_plan(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_of_a_folder_of_plans_the_steps_choose(tmp_path) -> None:
    for steps in (2, 3):
        (tmp_path / f"of_{steps}").mkdir()
        (tmp_path / f"of_{steps}" / "plan.json").write_text(diffexp.compile("ddim", steps=steps).to_json())
    assert diffexp.load_plan(tmp_path, 3).nfe == 3
    with pytest.raises(InputError, match=r"no plan of steps=4: choose one of of_2 \(steps=2\), of_3"):
        diffexp.load_plan(tmp_path, 4)
    with pytest.raises(InputError, match="No such file"):
        diffexp.load_plan(tmp_path / "none.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no plan\.json"):
        diffexp.load_plan(tmp_path / "empty")
