"""Solvers that choose their own steps, on pipelines that diffexp has no code for; what such a pipeline cannot be."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.catalog.discover import Catalog
from diffexp.components.models.base import Request, Runtime, decode
from diffexp.components.models.text_to_image.build import build
from diffexp.components.sampler import Recipe
from diffexp.experiment.batches import make_batch
from diffexp.experiment.monitor import Evaluator
from diffexp.plan.compile import Direct, sample
from tests.families import FAMILIES
from tests.pipeline_runs import psnr

STEPS = 3
OF_THE_RUN = ("prompt", "height", "width", "negative_prompt", "guidance_scale", "strength")


class Drawing:
    """A family's model, made of a pipeline in memory."""

    def __init__(self, name: str, folder: Path, catalog: Catalog) -> None:
        self.family, self._catalog = FAMILIES[name], catalog
        self.pipe = self.family.load(folder)
        call = dict(self.family.call)
        own = {key: call.pop(key, None) for key in OF_THE_RUN}
        scale = own["guidance_scale"]
        self.model = build(
            Runtime(),
            self.pipe,
            id=name,
            size=(own["height"], own["width"]),
            clip_skip=None,
            hash_weights=lambda: name,
            prior_options={},
        )
        guidance = {} if scale is None else {"guidance_scale": scale}
        self.request = Request(own["prompt"], own["negative_prompt"], None, STEPS, guidance=guidance, arguments=call)
        self.model.conditions(self.request, range(1))

    def ours(self, scheduler: Any, **options: Any) -> tuple[Tensor, int]:
        """The sample, and how often the model was evaluated; its x0 estimates are finite."""
        if isinstance(scheduler, str):
            bound = self._catalog.build("scheduler", {"name": scheduler})
            scheduler, options = bound.func, bound.keywords
        recipe = Recipe(scheduler, STEPS, self.model.training, options=options)
        sampler, evaluations = recipe.sampler, list[Tensor]()
        request = replace(self.request, levels=sampler.levels)

        def predict(u: Tensor, t: Tensor, condition: Any) -> Tensor:
            evaluations.append(self.model.predict(u, t, condition))
            return evaluations[-1]

        run: Any = SimpleNamespace(model=self.model, sampler=sampler, predict=predict, recipe=recipe, request=request)
        with torch.inference_mode():
            batch = make_batch(run, 0, [0], Evaluator(self.model))
            x = sample(sampler, batch.network, batch.noise() * sampler.start_std, batch.noise)
            return decode(self.model, x, batch.condition), len(evaluations)


def calls() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("call of ")]


@pytest.fixture(autouse=True)
def freed() -> Iterator[None]:
    yield
    gc.collect()
    until = time.monotonic() + 10
    while calls() and time.monotonic() < until:
        time.sleep(0.01)
    assert not calls(), "a call ends with its condition"


@pytest.mark.parametrize("name", ["flux", "wan"])
def test_steps_that_are_chosen_by_a_tolerance(name: str, tiny: Callable[[str], Path], catalog: Catalog) -> None:
    """As many evaluations as it takes, some for steps that are rejected: closer to the solution with more of them."""
    drawing = Drawing(name, tiny(name), catalog)
    assert isinstance(Recipe(adaptive_heun, STEPS, drawing.model.training).sampler, Direct)
    exact, _ = drawing.ours(adaptive_heun, tolerance=2e-3)
    errors, counts = [], []
    for tolerance in (0.5, 0.03):
        found, count = drawing.ours(adaptive_heun, tolerance=tolerance)
        errors.append(psnr(found, exact))
        counts.append(count)
    assert counts[0] < counts[1] and errors[0] < errors[1] and errors[1] > 25


def adaptive_heun(denoise: Any, x: Tensor, levels: Any, noise: Any, *, tolerance: float = 0.01) -> Tensor:
    """Heun's method on the flow ODE with a step size by the difference to Euler's."""
    schedule = levels.schedule
    t, end, step = levels[0].sigma, 1e-2, (levels[0].sigma) / 8
    while t > end:
        step = min(step, t - end)
        here, there = schedule.at_sigma(t), schedule.at_sigma(t - step)
        slope = (x - denoise(x, here)) / t
        euler = x - step * slope
        heun = x - step * 0.5 * (slope + (euler - denoise(euler, there)) / there.sigma)
        error = float((heun - euler).abs().max()) / tolerance
        if error <= 1 or step < 1e-3:
            x, t = heun, t - step
        step *= min(2.0, max(0.3, 0.9 / max(error, 1e-6) ** 0.5))
    return denoise(x, schedule.at_sigma(t))
