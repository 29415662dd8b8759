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

REMEMBERED = 8
"""How many pieces of a path are kept: more than one step ever asks for."""
SAME = 1e-5
"""Values of sigma so near to each other, relatively, are the same one: samplers compute in float32."""


def in_k_diffusion_convention(function: Callable[..., Any]) -> bool:
    """Whether the first parameters are ``(model, x, sigmas)``."""
    return list(inspect.signature(function).parameters)[:3] == ["model", "x", "sigmas"]


def from_k_diffusion(sampler: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A sampler ``(model, x, sigmas, extra_args, callback, disable, **options) -> x`` in our convention.

    It works on x / alpha and sigma / alpha, or on the straight path where a schedule ends without signal (see
    ``SigmaSpace``); its ``model(x, sigma)`` is the x0 estimate, as in ours. A ``noise_sampler`` is a ``BrownianPath``.
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
    """The path from ``high`` down to ``low``: it moves by sqrt(high - low) times ``unit``."""

    high: float
    low: float
    unit: Tensor


@dataclass
class BrownianPath:
    """Standard normal noise of an interval of sigma: (W(sigma) - W(sigma_next)) / sqrt(|sigma - sigma_next|).

    What intervals share moves them alike, as with k-diffusion's Brownian tree: the noise of a step knows that of its
    middle stage. A step that begins above the last one's, as after a restart, begins another path.
    """

    noise: Noise
    pieces: list[_Piece] = field(default_factory=list)
    """From above to below, without a gap."""

    def __call__(self, sigma: Tensor | float | None = None, sigma_next: Tensor | float | None = None) -> Tensor:
        """``noise`` itself wherever the interval overlaps none before, or is none."""
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
        self.pieces = self.pieces[-REMEMBERED:]
        first, *others = within
        if not others:
            return first.unit
        parts = [math.sqrt((piece.high - piece.low) / (high - low)) * piece.unit for piece in (first, *others)]
        return sum(parts[1:], parts[0])

    def _known(self, sigma: Tensor | float) -> float:
        """Sigma, of the whole batch; the end of a piece where it is that but for rounding."""
        value = float(sigma.reshape(-1)[0] if isinstance(sigma, Tensor) else sigma)
        ends = (end for piece in self.pieces for end in (piece.high, piece.low))
        return next((end for end in ends if math.isclose(end, value, rel_tol=SAME)), value)

    def _split(self, point: float) -> None:
        """Divide the piece around ``point``, of which only the ends are known so far, by a Brownian bridge."""
        for index, piece in enumerate(self.pieces):
            if piece.low < point < piece.high:
                upper = (piece.high - point) / (piece.high - piece.low)
                root, other, z = math.sqrt(upper), math.sqrt(1 - upper), self.noise()
                above = _Piece(piece.high, point, root * piece.unit + other * z)
                below = _Piece(point, piece.low, other * piece.unit - root * z)
                self.pieces[index : index + 1] = [above, below]
                return
