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
