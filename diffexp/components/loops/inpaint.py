"""Inpainting: a part of a picture is drawn anew so that it fits the rest, by a model that was not trained for it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.loops.img2img import first_step
from diffexp.components.models.base import encode_images, picture_shape
from diffexp.components.pixels import to_tensor
from diffexp.components.schedulers.shared.sigma_space import add_noise
from diffexp.components.user_files import read_masks, read_pictures
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.execute import Network
from diffexp.plan.levels import Level
from diffexp.plan.predictions import Target


@loop
def inpaint(batch: Batch, *, image: str, mask: str, strength: float = 1.0, resample: int = 1, jump: int = 10) -> Tensor:
    """Draw what is white in the mask; everything else stays as it is in the picture.

    The network always sees the known part at the noise level at hand, and in the known part its answer is replaced by
    the truth. Between evaluations the scheduler does what it always does, so any scheduler will do. Deterministic
    ones with one evaluation a step draw the picture of diffusers' inpainting pipelines with the same noise.

    ``resample`` > 1 is RePaint (Lugmayr et al. 2022, arXiv:2201.09865, section 4.2): after every ``jump`` steps noise
    is added for as many steps back, and they are taken again, so that both parts come to agree. A multistep method
    begins each of these stretches without a history.

    Args:
        image: a file, or a folder whose pictures the samples take turns with.
        mask: likewise; white is what is to be drawn.
        strength: in (0, 1]; below 1 what is under the mask is only changed, as in ``loop=img2img``.
        resample: how often every stretch is drawn; the number of evaluations grows with it.
        jump: steps of a stretch, where ``resample`` is greater than 1.

    Raises:
        InputError: a picture cannot be read, a mask does not fit its picture, or there is no step to take.
    """
    if resample < 1 or jump < 1:
        raise InputError(f"loop.resample={resample} and loop.jump={jump} must be at least 1")
    steps, shape = batch.recipe.steps, picture_shape(batch.model)
    begin, jump = first_step(strength, steps), steps if resample == 1 else jump
    pictures = to_tensor(read_pictures("loop.image", image, shape, batch.indices))
    masks = to_tensor(read_masks(mask, image, shape, batch.indices)).to(batch.model.device)
    known = encode_images(batch.model, pictures, batch.generators)
    eps = batch.noise()
    known = known.to(eps.dtype)
    parts = [batch.recipe.part(k, min(k + jump, steps)) for k in range(begin, steps, jump)]
    batch.expect(resample * sum(part.sampler.nfe for part in parts))
    x = parts[0].start.alpha * known + parts[0].start.sigma * eps if begin else batch.sampler.start_std * eps
    drawn = torch.nn.functional.interpolate(masks, size=known.shape[-2:])
    network = Informed(batch.network, batch.model.prediction, known, drawn, eps)
    for part in parts:
        for again in reversed(range(resample)):
            x = sample(part.sampler, network, x, batch.noise)
            if again:
                x = add_noise(x, part.end, part.start, batch.noise())  # eq. 1 of the paper, several steps
                network.eps = batch.noise()
    return torch.lerp(known, x, drawn.to(x.dtype))


@dataclass
class Informed:
    """A network that is told a part of the picture."""

    network: Network
    prediction: Target
    known: Tensor
    """The picture as a sample [B, *shape]."""
    drawn: Tensor
    """1 where it is to be drawn, 0 where it is known, [B, 1, height, width]."""
    eps: Tensor
    """The noise on what is known."""
    begun: bool = False

    def __call__(self, u: Tensor, level: Level) -> Tensor:
        noisy = level.alpha * self.known + level.sigma * self.eps
        # The start sample is seen as it is, as a whole run begins with noise alone.
        seen = torch.where(self.drawn > 0, u, noisy.to(u.dtype)) if self.begun else u
        self.begun = True
        output = self.network(seen, level)
        truth = self.prediction.output(level, self.known, (u - level.alpha * self.known) / level.sigma)
        return torch.where(self.drawn > 0, output, truth.to(output.dtype))
