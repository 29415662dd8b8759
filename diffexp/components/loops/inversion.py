"""Inversion: the noise from which a picture is drawn is found, and the picture drawn again from there."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from torch import Tensor

from diffexp import loop
from diffexp.components.loops.base import Batch
from diffexp.components.models.base import Condition, encode_images, picture_shape, state_dtype
from diffexp.components.pixels import to_tensor
from diffexp.components.prompts import read_texts
from diffexp.components.user_files import read_pictures
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.execute import Network
from diffexp.plan.levels import CLEAN, Level
from diffexp.plan.method import combine
from diffexp.plan.predictions import Target
from diffexp.plan.table import Plan


@loop
def inversion(batch: Batch, *, image: str, source: str | list[str] | None = None, iterations: int = 1) -> Tensor:
    """DDIM inversion (Song et al. 2021, arXiv:2010.02502, section 4.3; Hertz et al. 2022, arXiv:2208.01626, section 4).

    The probability-flow ODE is solved from the picture up to the start of the run's grid, level by level and without
    guidance; the run's scheduler, guidance and prompt then draw a sample from the noise that was found. With the same
    prompt and no guidance that is the picture again, as well as scheduler and steps can; with another prompt, an edit.

    A step of DDIM down from ``there`` to ``here`` asks the network at ``there``. Its exact inverse is therefore an
    implicit equation for the noisier sample; one iteration, with the less noisy sample as the guess, is DDIM inversion
    as diffusers does it (``DDIMInverseScheduler``), and more of them solve the equation (fixed-point iteration, Pan et
    al. 2023, arXiv:2309.04907): then ``scheduler=euler``, or ``ddim``, returns to the picture. They converge if steps
    are short beside the noise that is there, and find no way back through a clipped x0.

    Args:
        image: a file, or a folder whose pictures the samples take turns with.
        source: prompt, or class, of the picture itself; null: that of the run.
        iterations: evaluations of the network a level on the way up.

    Raises:
        InputError: the picture cannot be read, or the scheduler is no table with a start that is noise alone.
    """
    if iterations < 1:
        raise InputError(f"loop.iterations={iterations} must be at least 1")
    plan, model = batch.sampler, batch.model
    if not isinstance(plan, Plan) or plan.start_z:
        raise InputError("loop=inversion needs a scheduler that is a table and begins with the start noise alone")
    pictures = to_tensor(read_pictures("loop.image", image, picture_shape(model), batch.indices))
    levels = visited(plan)
    batch.expect(plan.nfe + iterations * len(levels))
    x0 = encode_images(model, pictures, batch.generators).to(state_dtype(model))
    noisy = noised(batch.unguided(_source(batch, source)), model.prediction, x0, levels, iterations)
    return sample(plan, batch.network, noisy / (plan.rows[0].scale * plan.start_scale), batch.noise)


def visited(plan: Plan) -> list[Level]:
    """The levels at which the plan asks the network, each once, least noise first; the last is where it begins."""
    top = plan.rows[0].level
    found = {row.level.ratio: row.level for row in plan.rows if row.level.ratio < top.ratio}
    return [*(found[ratio] for ratio in sorted(found)), top]


def noised(network: Network, prediction: Target, x0: Tensor, levels: Sequence[Level], iterations: int) -> Tensor:
    """From samples ``x0`` [batch, *shape] along the ODE to the last of the levels, as the network sees it there."""
    x = x0
    for here, there in pairwise([CLEAN, *levels]):
        begun = x
        for _ in range(iterations):
            eps = combine(prediction.noise(there), x, network(x, there))
            x = (there.alpha / here.alpha) * begun + (there.sigma - there.alpha * here.ratio) * eps
    return x


def _source(batch: Batch, source: str | list[str] | None) -> Condition:
    if source is None:
        return batch.condition
    request = replace(batch.request, prompt=read_texts("loop.source", source), label=None, negative_prompt=None)
    return batch.model.conditions(request, batch.indices).drawn(batch.generators)
