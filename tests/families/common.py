"""What every tiny checkpoint is made of: seeded random weights, loud enough that a wrong coefficient shows."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DiffusionPipeline
from PIL import Image
from torch import Tensor

SIZE = {"height": 32, "width": 32}
LATENT_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


@dataclass(frozen=True)
class Family:
    """A family of pipelines: its tiny checkpoint and the smallest call that draws a sample with it.

    Attributes:
        save: writes the checkpoint into a folder and returns it.
        call: arguments of the pipeline's ``__call__`` besides the steps and the generator.
        output: the field of the pipeline's output that holds the samples.
        finish: adds to a loaded pipeline what ``from_pretrained`` cannot restore.
    """

    save: Callable[[Path], Path]
    call: Mapping[str, Any] = field(default_factory=lambda: {"prompt": "a cat", **SIZE})
    output: str = "images"
    finish: Callable[[Any, Path], None] | None = None

    def load(self, folder: Path) -> Any:
        pipe: Any = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **absent(folder))
        if self.finish:
            self.finish(pipe, folder)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def draw(self, pipe: Any, steps: int = 2, seed: int = 0, **call: Any) -> Tensor:
        """One sample as the pipeline itself draws it, without the axis of the batch.

        Returns:
            ``[H, W, C]`` or ``[F, H, W, C]`` with values in [0, 1], or sound ``[channels, T]`` or ``[T]``.
        """
        stream = torch.Generator().manual_seed(seed)
        arguments = {"output_type": "np", "generator": stream, "num_inference_steps": steps} | {**self.call} | call
        return torch.as_tensor(np.asarray(getattr(pipe(**arguments), self.output)[0]))


def absent(folder: Path) -> dict[str, None]:
    """The parts that a checkpoint leaves out, as ``from_pretrained`` of some pipelines wants to be told."""
    index = json.loads((folder / "model_index.json").read_text())
    return {name: None for name, kind in index.items() if kind == [None, None]}


def picture(size: int = 32) -> Image.Image:
    """Colours that change over both directions, for ControlNets, adapters and image-to-image."""
    ramp = np.linspace(0, 255, size)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([red, green, np.full_like(red, 128)], axis=-1).astype(np.uint8))


@contextmanager
def seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def louder(network: Any, layer: str, factor: float) -> Any:
    """Random networks whisper: their last layer is scaled so that outputs are of the size of noise."""
    weight = network.get_submodule(layer).weight
    with torch.no_grad():
        weight.mul_(factor)
        weight[4:] *= 0.01 if len(weight) == 8 else 1.0  # a predicted log variance lies in [-1, 1]
    return network.eval()


def vae(**changes: Any) -> AutoencoderKL:
    """Two pixels a latent in each direction."""
    config: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
        "norm_num_groups": 8,
        "sample_size": 32,
    }
    return louder(AutoencoderKL(**config | changes), "decoder.conv_out", 3.0)


def deep_vae(**changes: Any) -> AutoencoderKL:
    """Eight pixels a latent in each direction, which some pipelines take for granted."""
    levels = {
        "block_out_channels": (8, 8, 16, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    return vae(**levels | changes)


FLOW_VAE = {"use_quant_conv": False, "use_post_quant_conv": False}


def save(folder: Path, kind: Any, **components: Any) -> Path:
    kind(**components).save_pretrained(folder)
    return folder
