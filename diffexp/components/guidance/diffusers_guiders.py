"""The guiders of diffusers (``diffusers.guiders``) as guidance: each combines the two predictions in its own way."""

import copy
import inspect
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from diffexp.catalog.guiders import CHANGES_LAYERS, LEFT_OUT, REFUSED
from diffexp.components.guidance.base import Predict, both_sides
from diffexp.components.models.base import Condition
from diffexp.errors import InputError

PROTOCOL = ("set_state", "prepare_inputs", "prepare_models", "num_conditions")
"""What makes a class a guider."""


def is_guider(thing: Any) -> bool:
    """Whether it is a class in the manner of ``diffusers.guiders.BaseGuidance``."""
    return isinstance(thing, type) and all(hasattr(thing, name) for name in PROTOCOL)


def guider_of(cls: Callable[..., Any], options: Mapping[str, Any], scale: float) -> Any:
    """A guider with the run's scale.

    Raises:
        InputError: a class that needs more than the two predictions, or that refuses its options.
    """
    from diffusers.guiders import BaseGuidance

    from diffexp.components.checkpoints.quiet import quietly

    name = cls.__name__
    reason = LEFT_OUT.get(name)
    if reason is None and getattr(cls, "prepare_models", None) is not BaseGuidance.prepare_models:
        reason = CHANGES_LAYERS
    if reason:
        raise InputError(f"{name} {reason}; choose another guidance")
    for option in options.keys() & REFUSED.keys():
        raise InputError(f"guidance.{option} {REFUSED[option]}")
    try:
        scales = {"guidance_scale": scale} if "guidance_scale" in inspect.signature(cls).parameters else {}
        with quietly():  # it says of every object that it is experimental
            guider = cls(**scales, **options)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{name} refuses its options: {' '.join(str(error).split())}") from error
    return guider


def try_out(guider: Any, shape: Sequence[int], steps: int) -> None:
    """Let it combine random predictions for a sample of this shape, at the first, middle and last step.

    Raises:
        InputError: it breaks off, or gives what is no number.
    """
    name, own = type(guider).__name__, _begin(guider, steps)
    generator = torch.Generator().manual_seed(0)
    for step in (0, steps // 2, steps - 1):
        positive, negative = torch.randn(2, 1, *shape, generator=generator)
        own.set_state(step, steps, None)
        try:
            combined = _combined(own, positive, negative)
        except Exception as error:
            told = " ".join(str(error).split())
            raise InputError(f"{name} cannot guide samples of shape {list(shape)}: {told}") from error
        if not combined.isfinite().all():
            raise InputError(f"{name} gives NaN at step {step} with these options; change one")


def guided_by(guider: Any, predict: Predict, timesteps: Sequence[float]) -> Predict:
    """``predict`` under a guider, which is told for every evaluation which step of the run it is.

    That is how many of the timesteps that the run visits lie above the one at hand, out of all: in a run of one
    evaluation a step the number of the step, as in a pipeline of diffusers. It holds as well for solvers with several
    evaluations a step, loops that take a part of the steps or come back, and rows at different levels. What a guider
    remembers lasts as long as the condition of a batch, so that neither batches nor runs know of each other.

    Args:
        guider: of ``guider_of``; it stays as it is.
        timesteps: those that the run visits, in any order.
    """
    visited = sorted({*timesteps})
    sides = both_sides(predict)
    begun: WeakKeyDictionary[Condition, Any] = WeakKeyDictionary()

    def guided(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if condition.negative is None:
            return predict(u, t, condition)
        own = begun.get(condition)
        if own is None:
            own = begun[condition] = _begin(guider, len(visited))
        steps = _steps(t, visited)
        if len({*steps}) > 1:
            return at_several(own, steps, u, t, condition)
        own.set_state(steps[0], len(visited), t[0])
        if own.num_conditions == 1:
            positive = predict(u, t, condition)
            return _combined(own, positive, positive)
        negative, positive = sides(u, t, condition)
        return _combined(own, positive, negative)

    def at_several(own: Any, steps: Sequence[int], u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        if getattr(own, "momentum_buffer", None) is not None:
            name = type(own).__name__
            raise InputError(f"{name} with momentum follows the steps one by one; this loop asks for several at once")
        negative, positive = sides(u, t, condition)
        output = torch.empty_like(positive)
        for step in sorted({*steps}):
            rows = [row for row, its_own in enumerate(steps) if its_own == step]
            own.set_state(step, len(visited), t[rows[0]])
            output[rows] = _combined(own, positive[rows], negative[rows])
        return output

    return guided


def _begin(guider: Any, steps: int) -> Any:
    """A copy at the start of a run, wherever in it the first evaluation will be."""
    own = copy.deepcopy(guider)
    own.set_state(0, steps, None)
    own.prepare_inputs({})  # where guiders set up their memory
    return own


def _steps(t: Tensor, visited: Sequence[float]) -> list[int]:
    """Of every row: how many of the timesteps, given in rising order, lie above its own, but for rounding."""
    return [len(visited) - bisect_right(visited, own + 1e-6 * max(1.0, abs(own))) for own in t.tolist()]


def _combined(guider: Any, positive: Tensor, negative: Tensor) -> Tensor:
    return guider(guider.prepare_inputs({"noise_pred": (positive, negative)})).pred
