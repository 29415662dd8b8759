"""Samplers in the conventions of k-diffusion and of ComfyUI: functions of ``(model, x, sigmas, ...)``."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffexp.catalog.signatures import k_diffusion_parameters
from diffexp.components.schedulers.foreign.k_model import KModel
from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser, Noise

STORED_PIECES = 8
"""Number of pieces of a path that are stored: more than any step uses."""
SAME_SIGMA = 1e-5
"""Relative difference below which two values of sigma are the same: samplers compute in float32."""
READS_UNCONDITIONAL = "reads_unconditional"
"""Attribute of a sampler that was seen to read the estimate without guidance (CFG++)."""


def in_k_diffusion_convention(function: Callable[..., Any]) -> bool:
    """Whether a function has the first parameters of a sampler of k-diffusion."""
    return bool(k_diffusion_parameters(list(inspect.signature(function).parameters)))


def is_adaptive(function: Callable[..., Any]) -> bool:
    """Whether a sampler in that convention chooses its steps by what it finds: it is given neither levels nor ``n``."""
    first = k_diffusion_parameters(list(inspect.signature(function).parameters))
    return bool(first) and not {"sigmas", "n"} & {*first}


def from_k_diffusion(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Convert a sampler ``(model, x, sigmas, extra_args, callback, disable, **options) -> x`` to our convention.

    The sampler works on x / alpha and sigma / alpha, or on the straight path where a schedule ends without signal (see
    ``SigmaSpace``); its ``model`` is a ``KModel``. Its ``noise_sampler``, if it has one, is a ``BrownianPath``.
    One that chooses its own levels gets ``sigma_max`` and ``sigma_min``, the model's lowest if the levels end clean.
    """
    accepted = inspect.signature(sampler).parameters
    first, adaptive = k_diffusion_parameters(list(accepted)), is_adaptive(sampler)

    def function(denoise: Denoiser, x: Tensor, levels: Levels, noise: Noise, **options: Any) -> Tensor:
        space = SigmaSpace.of(levels.schedule)
        sigmas = torch.tensor([space.sigma(level) for level in levels], dtype=x.dtype, device=x.device)
        model = KModel(denoise, levels, space, sigmas, check_finite=adaptive)
        lowest = space.sigma(levels.schedule.at_sigma(levels.schedule.sigma_range[0]))
        known = {
            "model": model,
            "x": x / space.scale(levels[0]),
            "sigmas": sigmas,
            "sigma_min": float(sigmas[-1]) or min(lowest, float(sigmas[-2])),
            "sigma_max": float(sigmas[0]),
            "n": levels.steps,
        }
        fixed = {"extra_args": {}, "callback": None, "disable": True, "noise_sampler": BrownianPath(noise)}
        given = {name: value for name, value in fixed.items() if name in accepted}
        x = sampler(*(known[name] for name in first), **given, **options) * space.scale(levels[-1])
        if model.unconditional_was_read:
            setattr(sampler, READS_UNCONDITIONAL, True)
        return x

    return function


@dataclass(frozen=True)
class _Piece:
    """An interval of the path: from ``high`` down to ``low`` it moves by sqrt(high - low) times ``unit``."""

    high: float
    low: float
    unit: Tensor


@dataclass
class BrownianPath:
    """Standard normal noise of an interval of sigma: (W(sigma) - W(sigma_next)) / sqrt(|sigma - sigma_next|).

    Overlapping intervals share the noise of their overlap, as in k-diffusion's Brownian tree: the noise of a step
    includes that of its middle stage. A step that begins above the last one, as after a restart, begins another path.
    """

    noise: Noise
    pieces: list[_Piece] = field(default_factory=list)
    """From high to low sigma, without a gap."""

    def __call__(self, sigma: Tensor | float | None = None, sigma_next: Tensor | float | None = None) -> Tensor:
        """Return the noise of an interval; a fresh draw if it overlaps no earlier one, or if none is given."""
        if sigma is None or sigma_next is None:
            return self.noise()
        low, high = sorted((self._known(sigma), self._known(sigma_next)))
        if low == high:
            return self.noise()
        if not self.pieces or high > self.pieces[0].high or self.pieces[-1].low > high:
            self.pieces = []
        end = self.pieces[-1].low if self.pieces else high
        for point in (high, low):
            self._split(point)
        if low < end:
            self.pieces.append(_Piece(end, low, self.noise()))
        within = [piece for piece in self.pieces if piece.high <= high and piece.low >= low]
        self.pieces = self.pieces[-STORED_PIECES:]
        first, *others = within
        if not others:
            return first.unit
        parts = [math.sqrt((piece.high - piece.low) / (high - low)) * piece.unit for piece in (first, *others)]
        return sum(parts[1:], parts[0])

    def _known(self, sigma: Tensor | float) -> float:
        """Return sigma as a number, and exactly as the end of a piece if it differs from one by rounding only."""
        value = float(sigma.reshape(-1)[0] if isinstance(sigma, Tensor) else sigma)
        ends = (end for piece in self.pieces for end in (piece.high, piece.low))
        return next((end for end in ends if math.isclose(end, value, rel_tol=SAME_SIGMA)), value)

    def _split(self, point: float) -> None:
        """Divide the piece around ``point`` in two by a Brownian bridge."""
        for index, piece in enumerate(self.pieces):
            if piece.low < point < piece.high:
                upper = (piece.high - point) / (piece.high - piece.low)
                root, other, z = math.sqrt(upper), math.sqrt(1 - upper), self.noise()
                above = _Piece(piece.high, point, root * piece.unit + other * z)
                below = _Piece(point, piece.low, other * piece.unit - root * z)
                self.pieces[index : index + 1] = [above, below]
                return
