"""Black box: the call of a diffusers pipeline, with one of our plans as its scheduler."""

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffexp import loop
from diffexp.components.grids.choice import Grid
from diffexp.components.loops.base import Batch
from diffexp.components.loops.img2img import first_step
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.components.user_files import read_images, read_masks
from diffexp.errors import InputError
from diffexp.plan.compile import compile_method
from diffexp.plan.levels import Level
from diffexp.plan.method import drives_object
from diffexp.plan.schedules import FlowSchedule
from diffexp.plan.stepping import visiting
from diffexp.plan.table import Plan

if TYPE_CHECKING:
    from diffexp.components.models.text_to_image.black_box import TextToImage

log = logging.getLogger(__name__)

Observe = Callable[[Tensor, Tensor, Level], None]


@loop(
    alone=True,
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

    The scheduler is compiled to a plan that the pipeline uses; a diffusers class that is not linear is used itself.
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
        InputError: the model is not a pipeline, the family has none for the task, or the scheduler cannot run in one.
    """
    if not hasattr(batch.model, "task"):
        raise InputError(f"model={batch.model.id} is not a pipeline of diffusers; leave loop=pipeline out")
    model: TextToImage = batch.model  # pyright: ignore[reportAssignmentType]
    if mask is not None and image is None:
        raise InputError("loop.mask needs loop.image, the image that it belongs to")
    pipe = model.pipe if image is None else model.task("image-to-image" if mask is None else "inpainting")
    if mask is None and _needs_mask(pipe):
        raise InputError(f"model={batch.model.id} is made for inpainting: add loop.image=... and loop.mask=...")
    _check_inputs(pipe, {"controlnet": control_image, "ip_adapter": ip_adapter_image})
    parameters = inspect.signature(pipe.__call__).parameters
    shape, indices = model.picture_shape, batch.indices
    arguments: dict[str, Any] = {"strength": strength, "true_cfg_scale": true_cfg_scale}
    if image is not None:
        if "strength" in parameters:
            first_step(parameters["strength"].default if strength is None else strength, batch.recipe.steps)
        arguments["image"] = read_images("loop.image", image, shape, indices)
    if mask is not None:
        arguments["mask_image"] = read_masks(mask, str(image), shape, indices)
    if control_image is not None:
        key = "control_image" if "control_image" in parameters else "image"
        arguments[key] = read_images("loop.control_image", control_image, shape, indices)
        arguments["controlnet_conditioning_scale"] = control_scale
    if ip_adapter_image is not None:
        (arguments["ip_adapter_image"],) = read_images("loop.ip_adapter_image", ip_adapter_image, shape, [0])
    arguments = {name: value for name, value in arguments.items() if value is not None}
    for name in (name for name in arguments if name not in parameters):
        raise InputError(f"{type(pipe).__name__} takes no {name}; leave the loop's option out")
    return _call(batch, model, pipe, arguments)


def _needs_mask(pipe: Any) -> bool:
    """Whether its UNet reads the sample, a mask and the masked image, all three at once."""
    unet, vae = getattr(pipe, "unet", None), getattr(pipe, "vae", None)
    if unet is None or vae is None:
        return False
    return unet.config["in_channels"] == 2 * vae.config["latent_channels"] + 1


def _check_inputs(pipe: Any, images: Mapping[str, str | None]) -> None:
    """Check that what is added to a pipeline gets its image, and that every image has a model that reads it."""
    network = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    projection = getattr(network, "encoder_hid_proj", None)  # SD 3 has another name for it
    adapted = hasattr(projection, "image_projection_layers") or getattr(network, "image_proj", None) is not None
    present = {"controlnet": getattr(pipe, "controlnet", None) is not None, "ip_adapter": adapted}
    for part, option in (("controlnet", "control_image"), ("ip_adapter", "ip_adapter_image")):
        if present[part] and images[part] is None:
            raise InputError(f"model.{part} needs an image: add loop.{option}=...")
        if images[part] is not None and not present[part]:
            raise InputError(f"loop.{option}={images[part]} needs a model that reads it: add model.{part}=...")


def _call(batch: Batch, model: "TextToImage", pipe: Any, arguments: dict[str, Any]) -> Tensor:
    parameters = inspect.signature(pipe.__call__).parameters
    offered = {
        **model.arguments(batch.request, batch.indices, batch.condition),
        "num_inference_steps": batch.recipe.steps,
        "guidance_scale": _guidance_scale(batch),
        "guidance_rescale": batch.guidance_options.get("rescale", 0.0),
        "height": model.height,
        "width": model.width,
        "generator": list(batch.generators),
        "output_type": model.output_type,
    }
    given = {name: value for name, value in offered.items() if name in parameters} | arguments
    if offered["guidance_rescale"] and "guidance_rescale" not in given:
        raise InputError(f"{type(pipe).__name__} takes no guidance_rescale; leave guidance.rescale out")
    if "guidance_scale" not in given and offered["guidance_scale"] not in (1.0, model.guidance_scale):
        raise InputError(f"{type(pipe).__name__} takes no guidance_scale; leave it out")
    if "negative_prompt" in offered:
        _check_negative_prompt(pipe, parameters, given)
    stock = pipe.scheduler
    try:
        pipe.scheduler = _scheduler(batch, stock, _observer(batch, model, pipe))
        precision = _SingleNoise() if model.dtype.itemsize < 4 else nullcontext()
        with precision, batch.monitor.passes.watching(_networks(pipe)):
            return model.pictures(pipe(**given)).to(model.device)
    except ValueError as error:  # as pipelines and schedulers raise for their arguments
        raise InputError(f"{type(pipe).__name__}: {' '.join(str(error).split())}") from error
    finally:
        pipe.scheduler = stock


def _networks(pipe: Any) -> list[torch.nn.Module]:
    """The networks that denoise; pipelines of diffusers call them so, one for each range of noise levels."""
    parts = [part for name, part in pipe.components.items() if name.startswith(("unet", "transformer"))]
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def _check_negative_prompt(pipe: Any, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
    name = type(pipe).__name__
    if "negative_prompt" not in given:
        raise InputError(f"{name} takes no negative_prompt; leave it out")
    if "true_cfg_scale" in parameters and not given.get("true_cfg_scale", parameters["true_cfg_scale"].default) > 1:
        raise InputError(f"{name} reads negative_prompt only with loop.true_cfg_scale above 1; give one, or neither")


def _guidance_scale(batch: Batch) -> float:
    """The scale for the guidance that the pipeline applies itself: that of guidances with the trait ``pipelines``."""
    traits = batch.guidance_traits
    if not traits.get("pipelines"):
        raise InputError(
            f"loop=pipeline uses the guidance of the pipeline; guidance={batch.guidance} needs loop=denoise"
        )
    return 1.0 if traits.get("ignores_scale") else batch.guidance_scale


def _scheduler(batch: Batch, stock: Any, observe: Observe) -> Any:
    from diffexp.plan.adapter import PlanScheduler

    recipe, sampler = batch.recipe, batch.sampler
    if isinstance(sampler, Plan):

        def plan(steps: int, **visit: Any) -> Plan:
            same = steps == recipe.steps and not visit
            found = sampler if same else compile_recipe(recipe, steps, **visit)
            if steps == recipe.steps and 0 in batch.indices and not _same_levels(found, sampler):
                log.warning("%s visits other levels than plan.csv has: %s", found.name, _summary(found))
            # Unscaled, because some pipelines (Kandinsky's) never call scale_model_input.
            return found.unscaled()

        config = dict(stock.config) | recipe.scheduler_config
        return PlanScheduler(plan, config=config, generators=list(batch.generators), observe=observe)
    method = sampler.method
    if isinstance(method, ClassMethod):
        # The pipeline calls ``set_timesteps`` itself, and with nothing that was asked for here.
        asked = {*method.set_options} & {*recipe.options} or (method.visit and not recipe.grid.is_auto)
        if not asked:
            return _observed(copy.deepcopy(method.scheduler), method, observe)
    raise InputError(f"{method.name} is not a table ({sampler.reason}): a pipeline cannot run it, loop=denoise can")


def _same_levels(one: Plan, other: Plan) -> bool:
    times = [[level.timestep for level in plan.levels] for plan in (one, other)]
    return len(times[0]) == len(times[1]) and all(abs(a - b) <= 1e-2 for a, b in zip(*times))


def _summary(plan: Plan) -> str:
    shown = [f"{level.timestep:.4g}" for level in plan.levels]
    return " ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]])


def _observed(scheduler: Any, method: ClassMethod, observe: Observe) -> Any:
    """The class itself; every step is observed."""
    step = scheduler.step

    @functools.wraps(step)  # pipelines inspect its signature
    def observed(model_output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **options: Any) -> Any:
        u = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        observe(u, model_output, method.level(float(timestep)))
        return step(model_output, timestep, sample, *rest, **options, **method.step_options)

    scheduler.step = observed
    return scheduler


def _observer(batch: Batch, model: "TextToImage", pipe: Any) -> Observe:
    """Records the evaluations of a pipeline, with latents [B, C, H, W] where the pipeline packs them as tokens."""

    def unpacked(x: Tensor) -> Tensor:
        if x.ndim == 3 and hasattr(pipe, "_unpack_latents"):
            x = pipe._unpack_latents(x, model.height, model.width, pipe.vae_scale_factor)
        return x.squeeze(2) if x.ndim == 5 else x

    return lambda u, output, level: batch.seen(unpacked(u), unpacked(output), level)


class _SingleNoise(TorchFunctionMode):
    """Draws noise in float32 and then rounds it, so that a seed gives the same image in every precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype")
        if func is torch.randn and dtype in (torch.float16, torch.bfloat16):
            return func(*args, **kwargs | {"dtype": torch.float32}).to(dtype)
        return func(*args, **kwargs)


def compile_recipe(
    recipe: Recipe,
    steps: int,
    *,
    begin: int = 0,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    mu: float | None = None,
) -> Plan:
    """The plan of a recipe for what a pipeline requests; with the recipe bound, ``compile`` of a PlanScheduler.

    Sigmas and mu mean what the scheduler's class in diffusers makes of them, and matter where the recipe leaves its
    timestep schedule to the model.

    Raises:
        InputError: the scheduler is not a table, or its class makes nothing of them.
    """
    grid, training = recipe.grid, recipe.training
    if timesteps is not None:
        grid = Grid(timesteps=timesteps)
    elif grid.is_auto and (sigmas is not None or mu is not None):
        if isinstance(training.schedule, FlowSchedule) and training.scheduler_config:
            training = replace(training, set_timesteps=lambda *_: {"sigmas": sigmas, "mu": mu})
        elif sigmas is not None:
            source = getattr(replace(recipe, steps=steps).sampler, "source", None)
            if drives_object(source) and "sigmas" in inspect.signature(source.scheduler.set_timesteps).parameters:
                return compile_method(visiting(source, None, {"sigmas": list(sigmas)}))
            grid = Grid(sigmas=sigmas)
    found = replace(recipe, steps=steps, grid=grid, training=training)
    sampler = found.part(begin).sampler if begin else found.sampler
    if not isinstance(sampler, Plan):
        raise InputError(f"{sampler.method.name} runs directly ({sampler.reason}), and a pipeline needs a plan")
    return sampler
