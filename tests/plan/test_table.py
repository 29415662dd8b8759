"""Plans as tables: their hash and their CSV."""

import diffexp
from diffexp.plan.predictions import Clip
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.training import Training

CLIPPED = Training(VPSchedule.from_betas(), clip=Clip(0.5))


def test_hash_and_csv_follow_the_numbers() -> None:
    plan = diffexp.compile("ddpm", steps=4, model=CLIPPED)
    same, other = diffexp.compile("ddpm", steps=4, model=CLIPPED), diffexp.compile("ddpm", steps=4)
    assert plan.sha256 == same.sha256 != other.sha256
    header, *rows = plan.to_csv().splitlines()
    assert header == (
        "step,timestep,alpha,noise_std,scale,clamp0_x,clamp0_m,clamp0_low,clamp0_high,x[k-0],m[k-0],d0[k-0],z0"
    )
    assert len(rows) == 4
    cells = dict(zip(header.split(","), rows[1].split(",")))
    assert float(cells["d0[k-0]"]) == plan.rows[1].d[0][0]  # every digit survives
    assert float(cells["timestep"]) == 500


def test_a_plan_prints_in_one_line_and_is_a_frame() -> None:
    plan = diffexp.compile("ddpm", steps=10)
    assert repr(plan) == "<Plan ddpm: 10 evaluations at t = 900 800 700 … 100 0, 9 noise draws>"
    assert repr(diffexp.compile("heun", steps=2)).startswith("<Plan heun: 3 evaluations at t = ")
    frame = plan.to_frame()
    assert list(frame.columns) == plan.to_csv().splitlines()[0].split(",")[1:]
    assert frame["timestep"].tolist() == [level.timestep for level in plan.levels]
    assert frame["x[k-0]"].tolist() == [row.x[0] for row in plan.rows], "every digit survives"
