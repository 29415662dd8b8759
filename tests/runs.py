"""Whole runs in this process: command lines for them, plugins that misbehave, and what a run left behind."""

import csv
import json
import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from diffexp.components.models.exact import ExactModel
from diffexp.experiment.folder import RunFolder, RunRecord

RUN_KEYS = RunRecord.__required_keys__
PICTURES = ("model=mixture", "model.shape=[1,8,8]", "steps=5", "num_samples=7", "batch_size=3")
"""Samples that are images."""
POINTS = ("model=mixture", "steps=5", "num_samples=7", "batch_size=3")

PLUGINS = '''
"""What a run must put up with."""

import torch

from diffexp import metric, scheduler, tracker


@metric
class Careless:
    """Raises in one of its methods; otherwise returns a tensor."""

    def __init__(self, *, where: str = "nowhere"):
        self.where = where

    def meet(self, place):
        if place == self.where:
            raise ZeroDivisionError("careless")

    def applies(self, model):
        self.meet("applies")

    def update(self, samples, images):
        self.meet("update")

    def compute(self, run):
        self.meet("compute")
        return {"careless/evaluations": torch.tensor(float(run.nfe)), "careless/samples": run.num_samples}


@tracker
class Lost:
    """Has none of the methods that a tracker needs."""

    run_id = None

    def __getattr__(self, name):
        raise OSError("no space left")


@scheduler
def curved(denoise, x, levels, noise):
    """Two evaluations a step and a step that is no linear function of them."""
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x0 = torch.tanh((x0 + denoise(x, here)) / 2) + 0 * noise()
        x = there.alpha * x0 + there.sigma * eps
    return x


@scheduler
def blended(denoise, x, levels, noise):
    """Not linear, and a sample depends on the others of its batch."""
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x0 = torch.tanh(x0 + 0.5 * x0.mean()) + 0 * noise()
        x = there.alpha * x0 + there.sigma * eps
    return x


@scheduler
class beyond:
    """A class that is not linear and counts its timesteps from 1000 down, one above what the model was trained on."""

    def __init__(self, *, clamp: float = 9.0):
        self.clamp = clamp

    def set_timesteps(self, num_inference_steps, device=None):
        self.timesteps = torch.linspace(1000, 1000 / num_inference_steps, num_inference_steps)

    def step(self, model_output, timestep, sample):
        return (torch.tanh(0.9 * sample - 0.1 * model_output),)
'''


def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def images(folder: Path) -> dict[int, torch.Tensor]:
    return dict(RunFolder(folder).finished_images())


def points(folder: Path) -> torch.Tensor:
    """[N, d]; their indices count from 0."""
    with (folder / "samples" / "points.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header == ["index", "x0", "x1"]
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    return torch.tensor([[float(cell) for cell in row[1:]] for row in rows], dtype=torch.float64)


def frames(folder: Path) -> int:
    with Image.open(folder / "trajectory.gif") as film:
        return getattr(film, "n_frames", 1)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def same_but_for_rounding(one: torch.Tensor, other: torch.Tensor) -> bool:
    """8-bit images that are the same but for values on the edge between two shades."""
    return bool((one - other).abs().max() < 1.5 / 255)


def network(monkeypatch: pytest.MonkeyPatch, meet: Callable[[int, int], None]) -> None:
    """Let the exact models call ``meet(number of the call, batch size)`` first, which may raise."""
    predict, calls = ExactModel.predict, count(1)

    def watched(self: ExactModel, u: torch.Tensor, *rest: Any) -> torch.Tensor:
        meet(next(calls), len(u))
        return predict(self, u, *rest)

    monkeypatch.setattr(ExactModel, "predict", watched)


def raise_at(call: int, error: BaseException) -> Callable[[int, int], None]:
    def meet(number: int, size: int) -> None:
        if number == call:
            raise error

    return meet


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as a warning or worse."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
