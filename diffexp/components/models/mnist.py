"""The model that ships with the package: handwritten digits, 32x32, class-conditional."""

from dataclasses import replace
from pathlib import Path

from diffexp import model
from diffexp.components.checkpoints.layout import check_network, find_layout, read_config
from diffexp.components.checkpoints.scheduler_config import read_training
from diffexp.components.models.base import Model, Runtime
from diffexp.components.models.labels import ClassLabels
from diffexp.components.models.unet import load_unet
from diffexp.errors import InputError

WEIGHTS = Path(__file__).parent / "weights" / "mnist"
_NUMERALS = "zero one two three four five six seven eight nine".split()
DIGITS = ClassLabels(model="mnist", count=10, words={word: i for i, word in enumerate(_NUMERALS)}, null=10)


@model
def mnist(runtime: Runtime, *, weights: str | None = None) -> Model:
    """Handwritten digits: a UNet2DModel trained on MNIST by ``python -m diffexp.train``.

    Samples are 1x32x32 in [-1, 1]; classes 0..9, and 10 for "no label". ``label`` or ``prompt`` ("seven", "7",
    "a seven", or a list of such) choose digits; without either, sample i shows the digit i modulo 10.

    Args:
        weights: a folder with config.json, diffusion_pytorch_model.safetensors and scheduler_config.json, such as
            training writes; by default the weights in the package. Without a scheduler_config.json the network counts
            as trained with DDPMScheduler's defaults (linear betas, epsilon, clipped to [-1, 1]).

    Raises:
        InputError: the folder holds no such network.
    """
    folder = Path(weights).expanduser() if weights else WEIGHTS
    if not folder.is_dir():
        raise InputError(f"model.weights={folder}: no such folder; python -m diffexp.train task=denoiser makes one")
    names = [path.name for path in folder.iterdir()]
    layout = find_layout(names, f"model.weights={folder}")
    check_network(read_config(folder / "config.json"), str(folder))
    config = read_config(folder / layout.scheduler) if layout.scheduler else {}
    training = read_training(config, str(folder))
    return replace(load_unet(runtime, folder, layout, training, id="mnist", labels=_digits), feature_domain="mnist")


def _digits(classes: int | None) -> ClassLabels:
    if classes != DIGITS.count + 1:
        raise InputError(f"model=mnist needs a network with num_class_embeds=11, not {classes}")
    return DIGITS
