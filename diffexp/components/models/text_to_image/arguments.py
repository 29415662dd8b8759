"""Arguments of a pipeline's call: those of the run, and those that a user gives as ``pipe.<name>``."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from diffexp.components.user_files import read_images
from diffexp.errors import InputError, nearest

OF_THE_RUN = {
    "prompt": "write prompt=...",
    "negative_prompt": "write negative_prompt=...",
    "num_inference_steps": "write steps=...",
    "guidance_scale": "write guidance_scale=...",
    "guidance_rescale": "write guidance.rescale=...",
    "height": "write model.height=...",
    "width": "write model.width=...",
    "clip_skip": "write model.clip_skip=...",
    "generator": "write seed=...",
    "timesteps": "write grid.timesteps=...",
    "sigmas": "write grid.sigmas=...",
    "num_images_per_prompt": "write num_samples=...",
    "num_videos_per_prompt": "write num_samples=...",
    "num_waveforms_per_prompt": "write num_samples=...",
    "latents": "the samples are the loop's",
    "output_type": "the samples are the loop's",
    "return_dict": "the samples are the loop's",
    "strength": "write loop=pipeline loop.strength=...",
    "denoising_end": "the steps are the loop's",
    "denoising_start": "the steps are the loop's",
}
"""Arguments that follow from the run, with what to do instead."""
IMAGES = ("image", "mask_image", "control_image")


def arguments_of(pipe: Any, offered: Mapping[str, Any], given: Mapping[str, Any], usual_scale: float) -> dict[str, Any]:
    """The arguments of a pipeline's call.

    Args:
        pipe: the pipeline.
        offered: what the run says; what the call does not take is left out, where that changes nothing.
        given: what the user has set by name.
        usual_scale: the guidance scale that is used where none is given.

    Raises:
        InputError: the pipeline takes no such argument.
    """
    name, parameters = type(pipe).__name__, inspect.signature(pipe.__call__).parameters
    for key in (key for key in given if key not in parameters):
        raise InputError(f"{name} takes no {key}; leave the loop's option out")
    found = {key: value for key, value in offered.items() if key in parameters and value is not None} | dict(given)
    if offered.get("guidance_rescale") and "guidance_rescale" not in found:
        raise InputError(f"{name} takes no guidance_rescale; leave guidance.rescale out")
    if "guidance_scale" not in found and offered.get("guidance_scale") not in (None, 1.0, usual_scale):
        raise InputError(f"{name} takes no guidance_scale; leave it out")
    if offered.get("negative_prompt") is not None:
        _check_negative_prompt(name, parameters, found)
    return found


def _check_negative_prompt(name: str, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    if "negative_prompt" not in given:
        raise InputError(f"{name} takes no negative_prompt; leave it out")
    if "true_cfg_scale" in parameters and not given.get("true_cfg_scale", parameters["true_cfg_scale"].default) > 1:
        both = "give one, or neither; without loop=pipeline it is pipe.true_cfg_scale"
        raise InputError(f"{name} reads negative_prompt only with loop.true_cfg_scale above 1; {both}")


def read_given(
    pipe: Any, given: Mapping[str, Any], shape: Callable[[], tuple[int, int, int]], indices: Sequence[int]
) -> dict[str, Any]:
    """The arguments ``pipe.<name>`` of a config, with the images that files are named for.

    Args:
        pipe: the pipeline.
        given: by name; a text for an argument that takes an image names a file, or a folder with one per sample.
        shape: returns (channels, height, width) of images.
        indices: of the samples in the run.

    Raises:
        InputError: the call has no such argument, the run decides it, or an image cannot be read.
    """
    parameters, read = inspect.signature(pipe.__call__).parameters, dict(given)
    for name, value in given.items():
        if name not in parameters:
            raise InputError(f"pipe.{name}: {type(pipe).__name__} takes no such argument{nearest(name, parameters)}")
        if name in OF_THE_RUN:
            raise InputError(f"pipe.{name} is not free: {OF_THE_RUN[name]}")
        if isinstance(value, str) and (name in IMAGES or "Image" in str(parameters[name].annotation)):
            images = read_images(f"pipe.{name}", value, shape(), indices)
            # Some pipelines take one image only, and no list.
            read[name] = images[0] if len(images) == 1 or name.startswith("ip_adapter") else images
    return read


def blank_images(pipe: Any, shape: tuple[int, int, int]) -> dict[str, Image.Image]:
    """Black images for the arguments of a pipeline's call that name its images."""
    _, height, width = shape
    return {name: Image.new("RGB", (width, height)) for name in images_of(pipe)}


def default_number(pipe: Any, name: str, otherwise: float) -> float:
    """The default of an argument of a pipeline's call."""
    parameter = inspect.signature(pipe.__call__).parameters.get(name)
    return float(parameter.default) if parameter and isinstance(parameter.default, int | float) else otherwise


def images_of(pipe: Any) -> list[str]:
    """The arguments of a pipeline's call that name its images."""
    parameters = inspect.signature(pipe.__call__).parameters
    return [name for name in IMAGES if name in parameters]


def lacking(pipe: Any, arguments: Mapping[str, Any], error: InputError) -> InputError:
    """The error of a call, with the images that it may need."""
    absent = [f"pipe.{name}=..." for name in images_of(pipe) if name not in arguments]
    if not absent:
        return error
    if needs_mask(pipe):
        error = InputError(f"a pipeline whose UNet takes {pipe.unet.config['in_channels']} channels: {error}")
    return InputError(f"{error}; it may need {', '.join(absent)}, or loop=pipeline loop.image=...")


def needs_mask(pipe: Any) -> bool:
    """Whether its UNet reads the sample, a mask and the masked image, all three at once."""
    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    if unet is None or vae is None:
        return False
    return unet.config["in_channels"] == 2 * vae.config["latent_channels"] + 1


def cycled(texts: str | Sequence[str] | None, indices: Sequence[int]) -> list[str] | None:
    """The text of every sample; a list is cycled."""
    if texts is None:
        return None
    several = [texts] if isinstance(texts, str) else list(texts)
    return [several[i % len(several)] for i in indices]
