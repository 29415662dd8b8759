"""The three kinds of noise schedules that models are trained with: variance preserving, variance exploding, flow."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import torch

from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, Level


@dataclass(frozen=True)
class VPSchedule:
    """Variance-preserving discrete schedule (Ho et al. 2020): alpha_t^2 = alphas_cumprod[t], alpha^2 + sigma^2 = 1."""

    alphas_cumprod: tuple[float, ...]
    final: Level = CLEAN
    discrete = True

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
        snr_shift_scale: float = 1.0,
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
        if snr_shift_scale != 1:  # CogVideoX divides the signal-to-noise ratio by it
            bar = torch.cumprod(1.0 - betas, dim=0)
            betas = _betas_of(bar / (snr_shift_scale + (1 - snr_shift_scale) * bar))
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

    @property
    def timestep_range(self) -> tuple[float, float]:
        return 0.0, float(self.num_train_timesteps - 1)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.ratios[0], self.ratios[-1]

    def at(self, timestep: float) -> Level:
        """Between training timesteps sigma / alpha is interpolated linearly, as diffusers' Euler does."""
        _check_timestep(self.timestep_range, timestep)
        low = math.floor(timestep)
        if low == timestep:
            alpha_bar = self.alphas_cumprod[low]
            return Level(float(timestep), math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar))
        weight = timestep - low
        if math.isinf(self.ratios[low + 1]):  # zero terminal SNR: linear in alpha / sigma there
            return self._from_ratio(float(timestep), self.ratios[low] / (1 - weight))
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
            return self._from_ratio(low + 1 - table[low] / ratio, ratio)
        weight = math.log(ratio / table[low]) / math.log(table[low + 1] / table[low])
        return self._from_ratio(low + weight, ratio)

    def at_index(self, index: float) -> Level:
        return self.at(index)

    def at_sigma(self, sigma: float) -> Level:
        """Return the level with this sigma / alpha, the sigma of k-diffusion."""
        return self.at_ratio(sigma)

    def sigma_of(self, level: Level) -> float:
        return level.ratio

    def input_scale(self, level: Level) -> float:
        return 1.0

    @staticmethod
    def _from_ratio(timestep: float, ratio: float) -> Level:
        if math.isinf(ratio):
            return Level(timestep, 0.0, 1.0)
        scale = math.hypot(1.0, ratio)
        return Level(timestep, 1.0 / scale, ratio / scale)


@dataclass(frozen=True)
class VESchedule:
    """Variance-exploding schedule (Song et al. 2021; Karras et al. 2022): alpha = 1, sigma up to ``sigma_max``.

    The timestep is c_noise = log(sigma) / 4 (Karras et al. 2022, table 1). Uniform grids, which such models have no
    training timesteps for, are uniform in it.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    sigma_data: float | None = None
    """Standard deviation of the data where the network is preconditioned as in EDM; None: it sees x as it is."""
    num_train_timesteps: int = 1000
    final: Level = CLEAN
    discrete = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(
                f"sigma_min={self.sigma_min:g} and sigma_max={self.sigma_max:g} must satisfy 0 < min < max"
            )

    @property
    def timestep_range(self) -> tuple[float, float]:
        return math.log(self.sigma_min) / 4, math.log(self.sigma_max) / 4

    @property
    def sigma_range(self) -> tuple[float, float]:
        return self.sigma_min, self.sigma_max

    def at(self, timestep: float) -> Level:
        _check_timestep(self.timestep_range, timestep)
        return Level(float(timestep), 1.0, math.exp(4 * timestep))

    def at_index(self, index: float) -> Level:
        low, high = self.timestep_range
        weight = index / max(self.num_train_timesteps - 1, 1)
        return self.at_ratio(math.exp(4 * ((1 - weight) * low + weight * high)))

    def at_ratio(self, ratio: float) -> Level:
        return Level(math.log(ratio) / 4, 1.0, ratio) if ratio > 0 else CLEAN

    def at_sigma(self, sigma: float) -> Level:
        return self.at_ratio(sigma)

    def sigma_of(self, level: Level) -> float:
        return level.ratio

    def input_scale(self, level: Level) -> float:
        """c_in = 1 / sqrt(sigma^2 + sigma_data^2)."""
        return 1.0 if self.sigma_data is None else 1 / math.hypot(level.sigma, self.sigma_data)


@dataclass(frozen=True)
class FlowSchedule:
    """Straight paths between data and noise (Lipman et al. 2023; Liu et al. 2023): alpha = 1 - sigma.

    The timestep is num_train_timesteps * sigma. ``shift`` moves uniform grids towards the noise, for large images
    (Esser et al. 2024, arXiv:2403.03206, eq. 23).
    """

    shift: float = 1.0
    num_train_timesteps: int = 1000
    final: Level = CLEAN
    discrete = False

    def __post_init__(self) -> None:
        if self.shift <= 0:
            raise InputError(f"shift={self.shift:g} must be greater than 0")

    @property
    def timestep_range(self) -> tuple[float, float]:
        return 0.0, float(self.num_train_timesteps)

    @property
    def sigma_range(self) -> tuple[float, float]:
        return 1 / self.num_train_timesteps, 1.0

    def at(self, timestep: float) -> Level:
        _check_timestep(self.timestep_range, timestep)
        return self.at_sigma(timestep / self.num_train_timesteps)

    def at_index(self, index: float) -> Level:
        return self.at_sigma(self.shifted((index + 1) / self.num_train_timesteps))

    def at_ratio(self, ratio: float) -> Level:
        return self.at_sigma(1.0 if math.isinf(ratio) else ratio / (1 + ratio))

    def at_sigma(self, sigma: float) -> Level:
        return Level(sigma * self.num_train_timesteps, 1 - sigma, sigma) if sigma > 0 else CLEAN

    def sigma_of(self, level: Level) -> float:
        return level.sigma / (level.alpha + level.sigma)

    def input_scale(self, level: Level) -> float:
        return 1.0

    def shifted(self, sigma: float) -> float:
        """sigma' = shift * sigma / (1 + (shift - 1) * sigma), in [0, 1] for sigma in [0, 1]."""
        return min(self.shift * sigma / (1 + (self.shift - 1) * sigma), 1.0)  # rounding may end just above 1


def _check_timestep(allowed: tuple[float, float], timestep: float) -> None:
    low, high = allowed
    if not low <= timestep <= high:
        raise InputError(f"timestep {timestep:g} is outside the training range {low:g}..{high:g}")


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
    return _betas_of(((root - last) * (first / (first - last))) ** 2)


def _betas_of(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    return 1 - torch.cat([alphas_cumprod[0:1], alphas_cumprod[1:] / alphas_cumprod[:-1]])
