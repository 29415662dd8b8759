"""Image to image: noise is added to an image, and sampling begins there."""

from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.models.base import encode_images, picture_shape
from diffexp.components.pixels import to_tensor
from diffexp.components.user_files import read_images
from diffexp.errors import InputError
from diffexp.plan.compile import sample


@loop(inputs=["image"])
def img2img(batch: Batch, *, image: str, strength: float = 0.8) -> Tensor:
    """SDEdit (Meng et al. 2022, arXiv:2108.01073): the image at an intermediate noise level is the start sample.

    The last ``strength`` of the steps are taken, on the levels of the whole timestep schedule. A multistep method
    begins there without a history, as at the start of a whole run. With the same noise the result equals that of
    diffusers' image-to-image pipelines.

    Args:
        image: a file, or a folder whose images are assigned to the samples in turn.
        strength: amount of noise to add, in (0, 1]; 1 takes all steps and leaves little of the image.

    Raises:
        InputError: the image cannot be read, or there is no step left to take.
    """
    begin = first_step(strength, batch.recipe.steps)
    images = to_tensor(read_images("loop.image", image, picture_shape(batch.model), batch.indices))
    x0 = encode_images(batch.model, images, batch.generators)
    part = batch.recipe.part(begin)
    batch.expect(part.sampler.nfe)
    eps = batch.noise()
    start = part.start.alpha * x0.to(eps.dtype) + part.start.sigma * eps
    return sample(part.sampler, batch.network, start, batch.noise)


def first_step(strength: float, steps: int) -> int:
    """The step to begin at so that the last ``strength`` of all steps are taken.

    Raises:
        InputError: strength is not in (0, 1], or so small that no step is left.
    """
    if not 0 < strength <= 1:
        raise InputError(f"loop.strength={strength:g} must be greater than 0 and at most 1")
    taken = min(int(steps * strength), steps)
    if taken == 0:
        least = _least_strength(steps)
        raise InputError(f"loop.strength={strength:g} of steps={steps} leaves no step; give at least {least:g}")
    return steps - taken


def _least_strength(steps: int) -> float:
    """The least strength that leaves a step, rounded up to two significant digits."""
    whole = 10 ** (len(str(steps - 1)) + 1)
    return next(n / whole for n in range(-(-whole // steps), whole + 1) if int(steps * (n / whole)))
