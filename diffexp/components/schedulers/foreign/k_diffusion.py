"""Samplers in the convention of k-diffusion: ``(model, x, sigmas, extra_args, callback, disable, **options) -> x``."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from diffexp.components.schedulers.shared.sigma_space import SigmaSpace
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser, Noise

STORED_PIECES = 8
"""Number of pieces of a path that are stored: more than any step uses."""
SAME_SIGMA = 1e-5
"""Relative difference below which two values of sigma are the same: samplers compute in float32."""


def in_k_diffusion_convention(function: Callable[..., Any]) -> bool:
    """Whether the first parameters are ``(model, x, sigmas)``."""
    return list(inspect.signature(function).parameters)[:3] == ["model", "x", "sigmas"]


def from_k_diffusion(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Convert a sampler ``(model, x, sigmas, extra_args, callback, disable, **options) -> x`` to our convention.

    The sampler works on x / alpha and sigma / alpha, or on the straight path where a schedule ends without signal (see
    ``SigmaSpace``); its ``model(x, sigma)`` is the x0 estimate, as in ours. Its ``noise_sampler``, if it has one, is a
    ``BrownianPath``.
    """
    accepted = inspect.signature(sampler).parameters

    def function(denoise: Denoiser, x: Tensor, levels: Levels, noise: Noise, **options: Any) -> Tensor:
        space = SigmaSpace.of(levels.schedule)
        sigmas = torch.tensor([space.sigma(level) for level in levels], dtype=x.dtype, device=x.device)
        visited = dict(zip(sigmas.tolist(), levels))

        def model(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
            value = float(sigma.reshape(-1)[0])
            level = visited.get(value) or space.level(value)
            return denoise(x * space.scale(level), level)

        fixed = {"extra_args": {}, "callback": None, "disable": True, "noise_sampler": BrownianPath(noise)}
        given = {name: value for name, value in fixed.items() if name in accepted}
        return sampler(model, x / space.scale(levels[0]), sigmas, **given, **options) * space.scale(levels[-1])

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
