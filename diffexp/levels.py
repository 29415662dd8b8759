"""Noise schedules: how much signal and noise a model sees at each timestep.

Everywhere ``x = alpha * x0 + sigma * eps`` with ``eps ~ N(0, I)``. Timesteps grow with the noise; sampling runs
from high to low. Numbers are Python floats (float64), so that coefficients carry no float32 rounding.
"""

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Protocol, overload

import torch

from diffexp.errors import InputError


@dataclass(frozen=True, slots=True)
class Level:
    """One point of a noise schedule."""

    timestep: float
    """What the network is told; may be fractional."""
    alpha: float
    """Scale of the clean sample, in [0, 1]."""
    sigma: float
    """Standard deviation of the noise, >= 0."""

    @property
    def ratio(self) -> float:
        """Noise-to-signal ratio sigma / alpha: the ``sigma`` of k-diffusion and EDM; inf without signal."""
        return self.sigma / self.alpha if self.alpha else math.inf

    @property
    def log_snr(self) -> float:
        """Half log signal-to-noise ratio, log(alpha / sigma): the ``lambda`` of DPM-Solver."""
        return -math.log(self.ratio) if self.ratio else math.inf


CLEAN = Level(timestep=0.0, alpha=1.0, sigma=0.0)
"""No noise: where sampling ends."""


class Schedule(Protocol):
    """A training noise schedule: every level a model may be asked about."""

    @property
    def num_train_timesteps(self) -> int: ...

    @property
    def final(self) -> Level:
        """The level a strided chain (DDIM) ends at: fully clean, or the first training level."""
        ...

    def at(self, timestep: float) -> Level:
        """The level at a timestep, fractional ones included."""
        ...

    def at_ratio(self, ratio: float) -> Level:
        """The level with noise-to-signal ratio sigma / alpha, at whatever timestep that is."""
        ...


@dataclass(frozen=True)
class Levels(Sequence[Level]):
    """The levels a solver visits: one per step from high noise to low, then the clean end. ``len`` is steps + 1."""

    points: tuple[Level, ...]
    schedule: Schedule
    start_std: float
    """Standard deviation of the start sample for a solver on continuous levels."""
    stride: int | None = None
    """Training timesteps per step where the grid is uniform in time (num_train_timesteps // steps), else None."""

    @overload
    def __getitem__(self, index: int) -> Level: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Level, ...]: ...
    def __getitem__(self, index: int | slice) -> Level | tuple[Level, ...]:
        return self.points[index]

    def __len__(self) -> int:
        return len(self.points)

    @property
    def steps(self) -> int:
        return len(self.points) - 1

    def pairs(self) -> Iterator[tuple[Level, Level]]:
        """(where the step starts, where it lands) for every step."""
        return pairwise(self.points)

    def strided_pairs(self) -> Iterator[tuple[Level, Level]]:
        """As ``pairs``, but a step of a uniform grid lands ``stride`` training timesteps lower, as in diffusers' DDIM.

        On the leading grid that is the next level; on linspace and trailing it can lie beside it.
        """
        for here, there in self.pairs():
            if self.stride is None:
                yield here, there if there.sigma else self.schedule.final
            else:
                target = here.timestep - self.stride
                yield here, self.schedule.at(target) if target >= 0 else self.schedule.final

    def on_training_timesteps(self) -> "Levels":
        """The same grid for a discrete chain: uniform grids are rounded to training timesteps, the start is N(0, I)."""
        points = self.points
        if self.stride is not None:
            points = (*(self.schedule.at(round(level.timestep)) for level in points[:-1]), points[-1])
        return replace(self, points=points, start_std=1.0)


@dataclass(frozen=True)
class VPSchedule:
    """Variance-preserving discrete schedule (Ho et al. 2020): alpha_t^2 = alphas_cumprod[t], alpha^2 + sigma^2 = 1."""

    alphas_cumprod: tuple[float, ...]
    final: Level = CLEAN

    @classmethod
    def from_betas(
        cls,
        *,
        beta_schedule: str = "linear",
        beta_start: float = 1e-4,
        beta_end: float = 0.02,
        num_train_timesteps: int = 1000,
        trained_betas: Sequence[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        set_alpha_to_one: bool = True,
    ) -> "VPSchedule":
        """The schedule of a checkpoint, under the names of diffusers' scheduler configs.

        The cumulative product is taken in float32 on purpose: it is the table the network was trained with.

        Raises:
            InputError: unknown ``beta_schedule``.
        """
        betas = (
            torch.tensor(list(trained_betas), dtype=torch.float32)
            if trained_betas is not None
            else _betas(beta_schedule, beta_start, beta_end, num_train_timesteps)
        )
        if rescale_betas_zero_snr:
            betas = _rescale_zero_terminal_snr(betas)
        schedule = cls(tuple(torch.cumprod(1.0 - betas, dim=0).double().tolist()))
        # Without set_alpha_to_one the last step ends at the first training level (Stable Diffusion's convention).
        return schedule if set_alpha_to_one else replace(schedule, final=schedule.at(0))

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    @cached_property
    def ratios(self) -> tuple[float, ...]:
        """sigma / alpha at every training timestep, increasing."""
        return tuple(math.sqrt((1 - a) / a) if a else math.inf for a in self.alphas_cumprod)

    def at(self, timestep: float) -> Level:
        """Between training timesteps sigma / alpha is interpolated linearly, as diffusers' Euler does."""
        if not 0 <= timestep <= self.num_train_timesteps - 1:
            raise InputError(f"timestep {timestep:g} is outside the training range 0..{self.num_train_timesteps - 1}")
        low = math.floor(timestep)
        if low == timestep:
            alpha_bar = self.alphas_cumprod[low]
            return Level(float(timestep), math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))
        weight = timestep - low
        return self._from_ratio(float(timestep), (1 - weight) * self.ratios[low] + weight * self.ratios[low + 1])

    def at_ratio(self, ratio: float) -> Level:
        """Alpha and sigma are exact; the timestep is interpolated linearly in log(sigma / alpha) and clamped."""
        if ratio <= 0:
            return CLEAN
        table = self.ratios
        if ratio >= table[-1]:
            return self._from_ratio(float(len(table) - 1), ratio)
        if ratio <= table[0]:
            return self._from_ratio(0.0, ratio)
        low = min(bisect_right(table, ratio) - 1, len(table) - 2)
        if math.isinf(table[low + 1]):
            return self._from_ratio(float(low), ratio)
        weight = math.log(ratio / table[low]) / math.log(table[low + 1] / table[low])
        return self._from_ratio(low + weight, ratio)

    @staticmethod
    def _from_ratio(timestep: float, ratio: float) -> Level:
        if math.isinf(ratio):
            return Level(timestep, 0.0, 1.0)
        scale = math.hypot(1.0, ratio)
        return Level(timestep, 1.0 / scale, ratio / scale)


def _betas(name: str, start: float, end: float, count: int) -> torch.Tensor:
    if name == "linear":
        return torch.linspace(start, end, count, dtype=torch.float32)
    if name == "scaled_linear":  # latent diffusion
        return torch.linspace(start**0.5, end**0.5, count, dtype=torch.float32) ** 2
    if name == "squaredcos_cap_v2":  # Nichol & Dhariwal 2021, eq. 17
        bar = [math.cos((t / count + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(count + 1)]
        return torch.tensor([min(1 - after / before, 0.999) for before, after in pairwise(bar)], dtype=torch.float32)
    if name == "laplace":
        snr = [math.exp(-0.5 * math.copysign(1, 0.5 - u) * math.log(1 - 2 * abs(0.5 - u) + 1e-6)) for u in _unit(count)]
        bar = [math.sqrt(s / (1 + s)) for s in snr]
        return torch.tensor([min(1 - after / before, 0.999) for before, after in pairwise(bar)], dtype=torch.float32)
    if name == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, count)) * (end - start) + start
    names = ["linear", "scaled_linear", "squaredcos_cap_v2", "laplace", "sigmoid"]
    raise InputError(f"beta_schedule={name} is not known; choose one of {', '.join(names)}")


def _unit(count: int) -> list[float]:
    return [t / count for t in range(count + 1)]


def _rescale_zero_terminal_snr(betas: torch.Tensor) -> torch.Tensor:
    """Shift and scale sqrt(alphas_cumprod) so that the last one is 0 (Lin et al. 2023, algorithm 1)."""
    root = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = root[0].clone(), root[-1].clone()
    alphas_cumprod = ((root - last) * (first / (first - last))) ** 2
    return 1 - torch.cat([alphas_cumprod[0:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
