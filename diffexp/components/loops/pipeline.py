"""The whole call of a diffusers pipeline, with its tasks and additions; the samples are our solver's."""

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.loops.img2img import first_step
from diffexp.components.models.base import state_dtype
from diffexp.components.user_files import read_images, read_masks
from diffexp.errors import InputError
from diffexp.plan.compile import sample

if TYPE_CHECKING:
    from diffexp.components.models.text_to_image.black_box import TextToImage
    from diffexp.components.models.text_to_image.paused_call import PausedCall

KEYS = {"controlnet": "control_image", "ip_adapter": "ip_adapter_image"}
"""The image of what is added to a pipeline, by the option that adds it."""


@loop(
    alone=True,
    inputs=["image", "mask", "control_image", "ip_adapter_image"],
    guides=True,
    idle=["control_scale where control_image=null", "true_cfg_scale where negative_prompt=null"],
)
def pipeline(
    batch: Batch,
    *,
    image: str | None = None,
    mask: str | None = None,
    strength: float | None = None,
    true_cfg_scale: float | None = None,
    control_image: str | None = None,
    control_scale: float = 1.0,
    ip_adapter_image: str | None = None,
) -> Tensor:
    """Run the whole pipeline: encode the prompt, loop, guide, decode. Any text-to-image family, any scheduler.

    The call is paused at every step, where the scheduler takes the pipeline's prediction and makes the next sample.
    The noise of sample i is that of ``loop=denoise``. With ``image`` it is the family's image-to-image pipeline, with
    ``mask`` too its inpainting pipeline.

    Args:
        image: start from this image: a file, or a folder whose images are assigned to the samples in turn.
        mask: likewise; white is to be generated.
        strength: how much of ``image`` to change, in (0, 1]; null: the pipeline's own default.
        true_cfg_scale: classifier-free guidance of models that take ``guidance_scale`` as an input and need no other
            (Flux, Qwen-Image); above 1 they read ``negative_prompt``.
        control_image: input of the ControlNet ``model.controlnet``.
        control_scale: its weight.
        ip_adapter_image: input of the IP-Adapter ``model.ip_adapter``.

    Raises:
        InputError: the model is not a pipeline, or the family has none for the task.
    """
    if not hasattr(batch.model, "task"):
        raise InputError(f"model={batch.model.id} is not a pipeline of diffusers; leave loop=pipeline out")
    from diffexp.components.models.text_to_image.arguments import needs_mask

    model: TextToImage = batch.model  # pyright: ignore[reportAssignmentType]
    if mask is not None and image is None:
        raise InputError("loop.mask needs loop.image, the image that it belongs to")
    pipe = model.pipe if image is None else model.task("image-to-image" if mask is None else "inpainting")
    if mask is None and needs_mask(pipe) and not batch.request.arguments:
        raise InputError(f"model={batch.model.id} is made for inpainting: add loop.image=... and loop.mask=...")
    own = batch.request.arguments
    shown = {"controlnet": control_image, "ip_adapter": ip_adapter_image}
    _check_inputs(pipe, {part: image or own.get(KEYS[part]) for part, image in shown.items()})
    parameters = inspect.signature(pipe.__call__).parameters
    indices = batch.indices
    arguments: dict[str, Any] = {"strength": strength, "true_cfg_scale": true_cfg_scale}
    if image is not None:
        if "strength" in parameters:
            first_step(parameters["strength"].default if strength is None else strength, batch.recipe.steps)
        arguments["image"] = read_images("loop.image", image, model.picture_shape, indices)
    if mask is not None:
        arguments["mask_image"] = read_masks(mask, str(image), model.picture_shape, indices)
    if control_image is not None:
        key = "control_image" if "control_image" in parameters else "image"
        arguments[key] = read_images("loop.control_image", control_image, model.picture_shape, indices)
        arguments["controlnet_conditioning_scale"] = control_scale
    if ip_adapter_image is not None:
        adapting = read_images("loop.ip_adapter_image", ip_adapter_image, model.picture_shape, [0])
        (arguments["ip_adapter_image"],) = adapting
    arguments = {name: value for name, value in arguments.items() if value is not None}
    given = model.arguments_for(pipe, batch.request, indices, batch.condition, batch.generators, **arguments)
    return _draw(batch, model, model.call(pipe, batch.request, given))


def _check_inputs(pipe: Any, images: Mapping[str, str | None]) -> None:
    """Check that what is added to a pipeline gets its image, and that every image has a model that reads it."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    projection = getattr(network, "encoder_hid_proj", None)  # SD 3 has another name for it
    adapted = hasattr(projection, "image_projection_layers") or getattr(network, "image_proj", None) is not None
    present = {"controlnet": getattr(pipe, "controlnet", None) is not None, "ip_adapter": adapted}
    for part, option in KEYS.items():
        if present[part] and images[part] is None:
            raise InputError(f"model.{part} needs an image: add loop.{option}=...")
        if images[part] is not None and not present[part]:
            raise InputError(f"loop.{option}={images[part]} needs a model that reads it: add model.{part}=...")


def _draw(batch: Batch, model: "TextToImage", call: "PausedCall") -> Tensor:
    """The samples of a call that waits for its first question."""
    from diffexp.components.models.text_to_image.paused_call import Called

    condition, sampler = Called.by(call, batch.condition), batch.sampler
    start = batch.noise() if condition is batch.condition else call.start.to(state_dtype(model))
    if (level := call.scheduler.begins_at) is None:
        start = start * sampler.start_std
    else:
        part = batch.recipe.part(call.scheduler.skipped // call.scheduler.order)
        start, sampler = start * (part.start.alpha / level.alpha), part.sampler
        batch.expect(sampler.nfe)
    own = condition is batch.condition  # whose noise it makes already
    noise = batch.noise if own else lambda: condition.step_noise(batch.noise())
    return model.samples(sample(sampler, batch.unguided(condition), start, noise), call)
