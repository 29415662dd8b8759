"""Inversion: find the noise that generates an image, and sample again from there."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.models.base import Condition, encode_images, picture_shape, state_dtype
from diffexp.components.pixels import to_tensor
from diffexp.components.prompts import read_texts
from diffexp.components.user_files import read_images
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.execute import Network
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.method import combine
from diffexp.plan.predictions import Target
from diffexp.plan.table import Plan


@loop(inputs=["image", "source"])
def inversion(batch: Batch, *, image: str, source: str | list[str] | None = None, iterations: int = 1) -> Tensor:
    """DDIM inversion (Song et al. 2021, arXiv:2010.02502, section 4.3; Hertz et al. 2022, arXiv:2208.01626, section 4).

    The probability-flow ODE is solved from the image up to the first level of the run, level by level and without
    guidance; the run's scheduler, guidance and prompt then generate a sample from that noise. With the same prompt and
    no guidance that is the image again, up to the errors of scheduler and steps; with another prompt, an edit.

    A step of DDIM down from ``there`` to ``here`` evaluates the network at ``there``. Its exact inverse is therefore an
    implicit equation for the noisier sample; one iteration, with the less noisy sample as the guess, is DDIM inversion
    as in diffusers (``DDIMInverseScheduler``), and more of them solve the equation (fixed-point iteration, Pan et al.
    2023, arXiv:2309.04907): then ``scheduler=euler``, or ``ddim``, returns to the image. They converge where a step is
    short compared with the noise, and cannot invert a clipped x0.

    Args:
        image: a file, or a folder whose images are assigned to the samples in turn.
        source: prompt, or class, of the image itself; null: that of the run.
        iterations: evaluations of the network per level on the way up.

    Raises:
        InputError: the image cannot be read, or the scheduler is not a table that starts from noise alone.
    """
    if iterations < 1:
        raise InputError(f"loop.iterations={iterations} must be at least 1")
    plan, model = batch.sampler, batch.model
    if not isinstance(plan, Plan) or plan.start_z:
        raise InputError("loop=inversion needs a scheduler that compiles to a table and starts from noise alone")
    images = to_tensor(read_images("loop.image", image, picture_shape(model), batch.indices))
    levels = visited(plan)
    batch.expect(plan.nfe + iterations * len(levels))
    x0 = encode_images(model, images, batch.generators).to(state_dtype(model))
    noisy = noised(batch.unguided(_source(batch, source, levels, iterations)), model.prediction, x0, levels, iterations)
    return sample(plan, batch.network, noisy / (plan.rows[0].scale * plan.start_scale), batch.noise)


def visited(plan: Plan) -> list[Level]:
    """The levels at which the plan evaluates the network, each once, by increasing noise; it starts at the last."""
    top = plan.levels[0]
    found = {level.ratio: level for level in plan.levels if level.ratio < top.ratio}
    return [*(found[ratio] for ratio in sorted(found)), top]


def noised(network: Network, prediction: Target, x0: Tensor, levels: Sequence[Level], iterations: int) -> Tensor:
    """Follow the ODE from samples ``x0`` [batch, *shape] to the last of the levels, as the network sees it there."""
    x = x0
    for here, there in pairwise([CLEAN, *levels]):
        x_here = x
        for _ in range(iterations):
            eps = combine(prediction.noise(there), x, network(x, there))
            x = (there.alpha / here.alpha) * x_here + (there.sigma - there.alpha * here.ratio) * eps
    return x


def _source(batch: Batch, source: str | list[str] | None, levels: Sequence[Level], iterations: int) -> Condition:
    if source is None and not getattr(batch.model, "guides", False):
        return batch.condition
    request = replace(batch.request, levels=[level for level in levels for _ in range(iterations)])
    if source is not None:
        request = replace(request, prompt=read_texts("loop.source", source), label=None, negative_prompt=None)
    return batch.unguided_condition(request)
