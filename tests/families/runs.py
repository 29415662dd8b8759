"""Runs of tiny checkpoints by our loops, and what their own pipelines draw of the same noise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from diffexp.catalog.discover import Catalog
from diffexp.components.media import stills
from diffexp.components.models.base import Model
from diffexp.components.pipeline_output import decoded
from diffexp.components.pixels import quantized, to_pixels
from diffexp.experiment.result import RunResult
from diffexp.experiment.run import run_experiment
from diffexp.plan.noise import sample_seed
from tests.families.common import Family
from tests.pipeline_runs import Kept

STEPS = 4
OF_THE_RUN = ("prompt", "negative_prompt", "guidance_scale")
"""Arguments of a call that are top-level keys."""


class Bench:
    """Runs of one family; its model is loaded once, in float32.

    Args:
        config: of a command line with ``model=pipeline``.
        checkpoint: of the family.
        folder: where runs are written.
    """

    def __init__(
        self, family: Family, checkpoint: Path, config: dict[str, Any], catalog: Catalog, folder: Path
    ) -> None:
        self.family, self.checkpoint, self.folder = family, checkpoint, folder
        self._catalog, self._context = catalog, Kept()
        call = dict(family.call)
        size = {name: call.pop(name, None) for name in ("height", "width")}
        texts = {name: call.pop(name, None) for name in OF_THE_RUN}
        model = config["model"] | {"id": str(checkpoint), **size} | self._added()
        given = self._written(call)
        run = {"model": model, "loop": self._loop(given), "pipe": given, "num_samples": 1, "batch_size": 1}
        self._config = config | run | texts

    @property
    def model(self) -> Model | None:
        return self._context.kept

    def draw(self, scheduler: str = "diffusers", **changes: Any) -> RunResult:
        """A run; ``changes`` of top-level keys."""
        node = {"name": scheduler} | ({"_target_": None} if scheduler == "diffusers" else {})
        config = self._config | {"scheduler": node, "steps": STEPS} | changes
        folder = self.folder / str(len(list(self.folder.iterdir())))
        return run_experiment(config, folder, self._catalog, context=self._context)

    def by_pipeline(self, **call: Any) -> Tensor:
        """The image [C, H, W] that stands for what the pipeline itself draws with its own scheduler, 8 bits a value."""
        pipe = self.family.load(self.checkpoint)
        stream = torch.Generator().manual_seed(sample_seed(0, 0))
        given: Any = {**self.family.call, "num_inference_steps": STEPS, "output_type": "np"} | call
        output = pipe(generator=[stream], **given)
        return quantized(to_pixels(stills(decoded(output)))[0].float() / 255)

    def _written(self, call: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a call as a config has them: images are files."""
        found: dict[str, Any] = {}
        for name, value in call.items():
            if isinstance(value, Image.Image):
                path = self.checkpoint.parent / f"{self.checkpoint.name}_{name}.png"
                value.save(path)
                found[name] = str(path)
            else:
                found[name] = value
        return found

    def _loop(self, call: dict[str, Any]) -> dict[str, Any]:
        """The loop: the pipeline's own, with these arguments, where a strength says how much of an image to change."""
        if "strength" not in call:
            return {"name": "denoise"}
        options = {"image": "image", "mask": "mask_image", "strength": "strength"}
        return {"name": "pipeline"} | {option: call.pop(name) for option, name in options.items() if name in call}

    def _added(self) -> dict[str, Any]:
        """Options of the model for what ``from_pretrained`` leaves out."""
        if not self.family.finish:
            return {}
        return {"ip_adapter": str(self.checkpoint), "ip_adapter_scale": 0.8}
