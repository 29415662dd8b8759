"""Runs of tiny text-to-image checkpoints, and what a script with diffusers alone would draw."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoPipelineForText2Image
from torch import Tensor

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.components.models.base import Model
from diffexp.experiment.context import RunContext
from diffexp.experiment.run import RunResult, run_experiment
from diffexp.plan.noise import sample_seed
from tests.families.common import absent
from tests.runs import images

Tiny = Callable[[str], Path]
Draw = Callable[..., RunResult]

PROMPTS = ["a cat", "two dogs"]
SIZE = ("model.height=32", "model.width=32")
COMMON = ("model=pipeline", *SIZE, "model.id=unset", "num_samples=2", "batch_size=2", "steps=5", "snapshot_every=0")


def psnr(one: Tensor, other: Tensor) -> float:
    """Decibels, for pictures in [0, 1]."""
    return float(-10 * torch.log10((one.double() - other.double()).square().mean().clamp(min=1e-12)))


def drawn(result: RunResult) -> Tensor:
    """[samples, 3, 32, 32]."""
    return torch.stack([image for _, image in sorted(images(result.folder).items())])


def by_diffusers(folder: Path, scheduler: str, auto: Any = AutoPipelineForText2Image, **more: Any) -> Tensor:
    """What a script would draw with the pipeline and a scheduler class of diffusers.

    Args:
        more: options of the scheduler class, and under ``call`` those of the pipeline's call.
    """
    call = {"num_inference_steps": 5, "height": 32, "width": 32} | more.pop("call", {})
    pipe: Any = auto.from_pretrained(folder, local_files_only=True, **absent(folder))
    pipe.set_progress_bar_config(disable=True)
    config = dict(pipe.scheduler.config)
    config.pop("variance_type", None)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(config, **more)
    if hasattr(pipe, "decoder_pipe"):
        pipe.decoder_pipe.scheduler = pipe.scheduler
    streams = [torch.Generator().manual_seed(sample_seed(0, i)) for i in range(2)]
    if "generator" in inspect.signature(pipe.scheduler.step).parameters:  # which flow pipelines leave out
        pipe.scheduler.step = functools.partial(pipe.scheduler.step, generator=streams)
    given = {name: value for name, value in call.items() if name in inspect.signature(pipe.__call__).parameters}
    pictures = pipe(PROMPTS, generator=streams, output_type="np", **given).images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


class Kept(RunContext):
    """Keeps the model from one run to the next."""

    kept: Model | None = None

    def model(self, load: Callable[[], Model]) -> Model:
        self.kept = self.kept or load()
        return self.kept


def studio(catalog: Catalog, config: dict[str, Any], tiny: Tiny, folder: Path) -> Draw:
    """Runs of a family: ``draw("sd15", scheduler="euler", loop="pipeline", steps=3)``; its model is loaded once.

    Args:
        config: of the command line ``COMMON``.
    """
    contexts: dict[str, Kept] = {}

    def draw(family: str, size: int = 32, **changes: Any) -> RunResult:
        nodes = {k: {"name": v} if isinstance(v, str) and k in KINDS else v for k, v in changes.items()}
        model = config["model"] | {"id": str(tiny(family)), "height": size, "width": size}
        number = len(list(folder.iterdir()))
        changed = config | {"model": model, "prompt": PROMPTS} | nodes
        context = contexts.setdefault(str(changed["model"]), Kept())
        return run_experiment(changed, folder / f"{number}_{family}", catalog, context=context)

    return draw
