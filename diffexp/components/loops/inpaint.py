"""Inpainting: part of an image is generated to fit the rest, by a model that was not trained for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.loops.img2img import first_step
from diffexp.components.models.base import encode_images, mask_of, picture_shape
from diffexp.components.pixels import to_tensor
from diffexp.components.schedulers.shared.sigma_space import add_noise
from diffexp.components.user_files import read_images, read_masks
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.execute import Network
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Target


@loop(inputs=["image", "mask"], idle=["jump where resample=1"])
def inpaint(batch: Batch, *, image: str, mask: str, strength: float = 1.0, resample: int = 1, jump: int = 10) -> Tensor:
    """Generate what is white in the mask; everything else stays as it is in the image.

    The network always sees the known part at the current noise level, and in the known part its output is replaced by
    the true one. Between evaluations the scheduler is unchanged, so any scheduler works. Deterministic ones with one
    evaluation per step give the result of diffusers' inpainting pipelines with the same noise.

    ``resample`` > 1 is RePaint (Lugmayr et al. 2022, arXiv:2201.09865, section 4.2): after every ``jump`` steps noise
    is added to return as many steps, and they are taken again, which harmonises both parts. A multistep method begins
    each of these stretches without a history.

    Args:
        image: a file, or a folder whose images are assigned to the samples in turn.
        mask: likewise; white is to be generated.
        strength: in (0, 1]; below 1 what is under the mask is only changed, as in ``loop=img2img``.
        resample: how often every stretch is sampled; the number of evaluations grows with it.
        jump: steps of a stretch, where ``resample`` is greater than 1.

    Raises:
        InputError: an image cannot be read, a mask does not fit its image, or there is no step to take.
    """
    if resample < 1 or jump < 1:
        raise InputError(f"loop.resample={resample} and loop.jump={jump} must be at least 1")
    steps, shape = batch.recipe.steps, picture_shape(batch.model)
    begin, jump = first_step(strength, steps), steps if resample == 1 else jump
    images = to_tensor(read_images("loop.image", image, shape, batch.indices))
    masks = to_tensor(read_masks(mask, image, shape, batch.indices)).to(batch.model.device)
    known = encode_images(batch.model, images, batch.generators)
    eps = batch.noise()
    known = known.to(eps.dtype)
    parts = [batch.recipe.part(k, min(k + jump, steps)) for k in range(begin, steps, jump)]
    batch.expect(resample * sum(part.sampler.nfe for part in parts))
    x = parts[0].start.alpha * known + parts[0].start.sigma * eps if begin else batch.sampler.start_std * eps
    unknown = mask_of(batch.model, masks, known)
    network = WithKnownPart(batch.network, batch.model.prediction, known, unknown, eps)
    for part in parts:
        for again in reversed(range(resample)):
            x = sample(part.sampler, network, x, batch.noise)
            if again:
                x = add_noise(x, part.end, part.start, batch.noise())  # eq. 1 of the paper, several steps
                network.eps = batch.noise()
    return torch.lerp(known, x, unknown.to(x.dtype))


@dataclass
class WithKnownPart:
    """A network whose input and output are replaced where the image is known."""

    network: Network
    prediction: Target
    known: Tensor
    """The image as a sample [B, *shape]."""
    unknown: Tensor
    """1 where it is to be generated, 0 where it is known, [B, 1, height, width]."""
    eps: Tensor
    """The noise on the known part."""
    begun: bool = False

    def __call__(self, u: Tensor, level: Level) -> Tensor:
        noisy = level.alpha * self.known + level.sigma * self.eps
        # The first input is left as it is: a whole run begins with noise alone.
        visible = torch.where(self.unknown > 0, u, noisy.to(u.dtype)) if self.begun else u
        self.begun = True
        output = self.network(visible, level)
        true_output = self.prediction.output(level, self.known, (u - level.alpha * self.known) / level.sigma)
        return torch.where(self.unknown > 0, output, true_output.to(output.dtype))
