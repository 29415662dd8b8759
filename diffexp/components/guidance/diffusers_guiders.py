"""Guiders of diffusers (``diffusers.guiders``) as guidance; each combines the two predictions in its own way."""

import copy
import inspect
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from diffexp.catalog.diffusers_guiders import CHANGES_LAYERS, EXCLUDED, REFUSED
from diffexp.components.guidance.base import Predict, both_sides
from diffexp.components.models.base import Condition
from diffexp.errors import InputError

PROTOCOL = ("set_state", "prepare_inputs", "prepare_models", "num_conditions")
"""Members of a guider."""


def is_guider(thing: Any) -> bool:
    """Whether it is a class with the interface of ``diffusers.guiders.BaseGuidance``."""
    return isinstance(thing, type) and all(hasattr(thing, name) for name in PROTOCOL)


def guider_of(cls: Callable[..., Any], options: Mapping[str, Any], scale: float) -> Any:
    """Build a guider with the scale of the run.

    Raises:
        InputError: the class needs more than the two predictions, or refuses its options.
    """
    from diffusers.guiders import BaseGuidance

    from diffexp.components.checkpoints.quiet import quietly

    name = cls.__name__
    reason = EXCLUDED.get(name)
    if reason is None and getattr(cls, "prepare_models", None) is not BaseGuidance.prepare_models:
        reason = CHANGES_LAYERS
    if reason:
        raise InputError(f"{name} {reason}; choose another guidance")
    for option in options.keys() & REFUSED.keys():
        raise InputError(f"guidance.{option} {REFUSED[option]}")
    try:
        scales = {"guidance_scale": scale} if "guidance_scale" in inspect.signature(cls).parameters else {}
        with quietly():  # diffusers warns that guiders are experimental
            guider = cls(**scales, **options)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{name} refuses its options: {' '.join(str(error).split())}") from error
    return guider


def try_out(guider: Any, shape: Sequence[int], steps: int) -> None:
    """Combine random predictions for a sample of this shape, at the first, middle and last step.

    Raises:
        InputError: the guider raises, or returns NaN or infinity.
    """
    name, own = type(guider).__name__, _begin(guider, steps)
    generator = torch.Generator().manual_seed(0)
    for step in (0, steps // 2, steps - 1):
        positive, negative = torch.randn(2, 1, *shape, generator=generator)
        own.set_state(step, steps, None)
        try:
            combined = _combined(own, positive, negative)
        except Exception as error:
            message = " ".join(str(error).split())
            raise InputError(f"{name} cannot guide samples of shape {list(shape)}: {message}") from error
        if not combined.isfinite().all():
            raise InputError(f"{name} gives NaN at step {step} with these options; change one")


def guided_by(guider: Any, predict: Predict, timesteps: Sequence[float]) -> Predict:
    """``predict`` under a guider, which gets the number of the step at every evaluation.

    This number is that of the visited timesteps above the current one; in a run with one evaluation per step it is the
    index of the step, as in a pipeline of diffusers. It is defined too for solvers with several evaluations per step,
    loops over some of the steps or back in time, and rows at different levels. The state of a guider lives as long as
    the condition of a batch, so that batches and runs are independent.

    Args:
        guider: see ``guider_of``; not modified.
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
            raise InputError(f"{name} with momentum needs the steps one by one; this loop evaluates several at once")
        negative, positive = sides(u, t, condition)
        output = torch.empty_like(positive)
        for step in sorted({*steps}):
            rows = [row for row, its_own in enumerate(steps) if its_own == step]
            own.set_state(step, len(visited), t[rows[0]])
            output[rows] = _combined(own, positive[rows], negative[rows])
        return output

    return guided


def _begin(guider: Any, steps: int) -> Any:
    """A copy of the guider in its state at the start of a run."""
    own = copy.deepcopy(guider)
    own.set_state(0, steps, None)
    own.prepare_inputs({})  # guiders initialise their state here
    return own


def _steps(t: Tensor, visited: Sequence[float]) -> list[int]:
    """Return for every row the number of ``visited`` timesteps (ascending) above its own, up to rounding."""
    return [len(visited) - bisect_right(visited, own + 1e-6 * max(1.0, abs(own))) for own in t.tolist()]


def _combined(guider: Any, positive: Tensor, negative: Tensor) -> Tensor:
    return guider(guider.prepare_inputs({"noise_pred": (positive, negative)})).pred
