"""Scheduler overhead: plans beside diffusers' own step, side by side in one process.

    python -m tests.benchmarks.bench_scheduler

A network and noise that cost nothing are given to both sides, at [1, 4, 64, 64] float32 on one thread. A ratio is the
median over rounds in which both sides run in turn; noise is handed to diffusers ready-made too, so that neither side
pays for random numbers.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from diffusers.schedulers import scheduling_ddim, scheduling_ddpm

import diffexp
from diffexp.plan.execute import execute
from diffexp.plan.predictions import Clip
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

STEPS, ROUNDS = 50, 15
SHAPE = (1, 4, 64, 64)


def microseconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / STEPS * 1e6


def main() -> None:
    torch.set_num_threads(1)
    x, output, z = torch.randn(3, *SHAPE)
    print(
        f"{STEPS} steps at {list(SHAPE)} float32, one thread; microseconds a step, median (fastest) of {ROUNDS} rounds"
    )
    print(f"{'scheduler':<18}{'diffusers':>18}{'plan':>18}{'ratio':>8}{'compile ms':>12}")
    for name, cls, clip in (
        ("ddpm", "DDPMScheduler", False),
        ("ddpm", "DDPMScheduler", True),
        ("ddim", "DDIMScheduler", False),
        ("ddim", "DDIMScheduler", True),
        ("euler", "EulerDiscreteScheduler", False),
        ("euler", None, True),
    ):
        training = Training(VPSchedule.from_betas(), clip=Clip() if clip else None)
        began = time.perf_counter()
        plan = diffexp.compile(name, steps=STEPS, model=training)
        compile_ms = (time.perf_counter() - began) * 1e3
        clipping = {"clip_sample": clip} if name != "euler" else {}
        theirs: Any = getattr(diffusers, cls)(**clipping) if cls else None  # their Euler cannot clip

        def run_plan(plan: Plan = plan) -> None:
            execute(plan, lambda u, level: output, x, lambda: z)

        def run_class(theirs: Any = theirs) -> None:
            theirs.set_timesteps(STEPS)
            sample = x
            for t in theirs.timesteps:
                theirs.scale_model_input(sample, t)
                sample = theirs.step(output, t, sample).prev_sample

        def ready(*args: object, **kwargs: object) -> torch.Tensor:
            return z

        with (
            torch.inference_mode(),
            patch.object(scheduling_ddpm, "randn_tensor", ready),
            patch.object(scheduling_ddim, "randn_tensor", ready),
        ):
            run_plan()
            pairs = [
                (microseconds(run_class) if theirs else float("nan"), microseconds(run_plan)) for _ in range(ROUNDS)
            ]
        label = f"{name}{', clipped' if clip else ''}"
        cells = [f"{statistics.median(column):.1f} ({min(column):.1f})" for column in zip(*pairs)]
        ratio = statistics.median(b / a for a, b in pairs)
        print(f"{label:<18}{cells[0]:>18}{cells[1]:>18}{ratio:>8.2f}{compile_ms:>12.1f}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
