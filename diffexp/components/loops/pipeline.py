"""Black box: the call of a diffusers pipeline, with one of our plans as its scheduler."""

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

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
    from diffexp.components.models.text_to_image.arguments import needs_mask

    model: TextToImage = batch.model  # pyright: ignore[reportAssignmentType]
    if mask is not None and image is None:
        raise InputError("loop.mask needs loop.image, the image that it belongs to")
    pipe = model.pipe if image is None else model.task("image-to-image" if mask is None else "inpainting")
    if mask is None and needs_mask(pipe) and not batch.request.arguments:
        raise InputError(f"model={batch.model.id} is made for inpainting: add loop.image=... and loop.mask=...")
    _check_inputs(pipe, {"controlnet": control_image, "ip_adapter": ip_adapter_image})
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
        shown = read_images("loop.ip_adapter_image", ip_adapter_image, model.picture_shape, [0])
        (arguments["ip_adapter_image"],) = shown
    arguments = {name: value for name, value in arguments.items() if value is not None}
    request = replace(batch.request, guidance=_guidance(batch))
    given = model.arguments_for(pipe, request, indices, batch.condition, batch.generators, **arguments)
    return _call(batch, model, pipe, given)


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


def _call(batch: Batch, model: "TextToImage", pipe: Any, arguments: Mapping[str, Any]) -> Tensor:
    from diffexp.components.models.text_to_image.paused_call import denoisers, single_noise

    stock, last = pipe.scheduler, list[Tensor]()
    try:
        pipe.scheduler = _recording(_scheduler(batch, stock), last)
        with single_noise(model.dtype), batch.monitor.passes.watching(denoisers(pipe)):
            return model.taken(pipe(**arguments), last[-1], batch.condition)
    except ValueError as error:  # as pipelines and schedulers raise for their arguments
        raise InputError(f"{type(pipe).__name__}: {' '.join(str(error).split())}") from error
    finally:
        pipe.scheduler = stock


def _guidance(batch: Batch) -> dict[str, float]:
    """The scales for the guidance that the pipeline applies itself: that of guidances with the trait ``pipelines``."""
    traits = batch.guidance_traits
    if not traits.get("pipelines"):
        raise InputError(
            f"loop=pipeline uses the guidance of the pipeline; guidance={batch.guidance} needs loop=denoise"
        )
    scale = 1.0 if traits.get("ignores_scale") else batch.guidance_scale
    return {"guidance_scale": scale, "guidance_rescale": batch.guidance_options.get("rescale", 0.0)}


def _scheduler(batch: Batch, stock: Any) -> Any:
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
        return PlanScheduler(plan, config=config, generators=list(batch.generators), observe=batch.seen)
    method = sampler.method
    if isinstance(method, ClassMethod):
        # The pipeline calls ``set_timesteps`` itself, and with nothing that was asked for here.
        asked = {*method.set_options} & {*recipe.options} or (method.visit and not recipe.grid.is_auto)
        if not asked:
            return _observed(copy.deepcopy(method.scheduler), method, batch.seen)
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


def _recording(scheduler: Any, last: list[Tensor]) -> Any:
    """The scheduler, which puts the sample of its latest step into ``last``."""
    step = scheduler.step

    @functools.wraps(step)
    def recorded(*args: Any, **options: Any) -> Any:
        found = step(*args, **options)
        last[:] = [found[0]]
        return found

    scheduler.step = recorded
    return scheduler


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
        InputError: the scheduler is not a table, or its class does not use them.
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
