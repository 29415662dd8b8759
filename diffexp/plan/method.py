"""A scheduler bound to a model's levels: code that turns a start sample into an output.

Every kind of scheduler (a function, k-diffusion's convention, a diffusers-style class) becomes a ``Method``. The same
method is traced once by ``compile``, or run directly where it is not linear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeGuard

from torch import Tensor

from diffexp.plan.levels import Level, Levels
from diffexp.plan.training import Training

Noise = Callable[[], Tensor]
"""Fresh standard normal noise in the shape of the sample."""


class Evaluate(Protocol):
    """One network evaluation at ``u``; ``x`` is the sample it belongs to, in the scheduler's own scaling."""

    def __call__(self, x: Tensor, u: Tensor, level: Level) -> Tensor: ...


class Method(Protocol):
    """Bound scheduler code."""

    @property
    def name(self) -> str: ...
    @property
    def start_std(self) -> float:
        """Standard deviation of the start sample."""
        ...

    @property
    def nfe(self) -> int:
        """Evaluations as far as they are known beforehand: a class knows its timesteps, a function may make more."""
        ...

    @property
    def levels(self) -> Sequence[Level]:
        """Level of every evaluation, in the scale of the network's input, as far as they are known beforehand."""
        ...

    @property
    def ends(self) -> tuple[Level, Level]:
        """Levels of the start sample and of the output, in the method's own scaling of x."""
        ...

    def part(self, begin: int, end: int) -> "Method":
        """The method for the steps from ``begin`` up to but without ``end``."""
        ...

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor: ...


class ObjectMethod(Method, Protocol):
    """A scheduler object with ``set_timesteps`` and ``step``, as diffusers' pipelines drive them."""

    @property
    def scheduler(self) -> Any:
        """The object as it is before ``set_timesteps``."""
        ...

    @property
    def step_options(self) -> Mapping[str, Any]:
        """Keywords of every ``step``."""
        ...

    def stepping(self, *, prepared: bool = True) -> Any:
        """A fresh object to step, with its timesteps set if ``prepared``: step(output, timestep, sample, ...)."""
        ...

    def visiting(self, num_inference_steps: int | None, **given: Any) -> "ObjectMethod":
        """The method for other arguments of ``set_timesteps``; raises what the object raises for them."""
        ...

    def in_own_precision(self) -> "ObjectMethod":
        """The method with the arithmetic of the object as it is, float32 for classes of diffusers."""
        ...

    def level(self, timestep: float) -> Level:
        """The level that the network takes its input for."""
        ...


def drives_object(method: Method | None) -> TypeGuard[ObjectMethod]:
    """Whether a method drives a scheduler object."""
    return hasattr(method, "stepping")


class Denoiser:
    """Argument ``denoise`` of scheduler functions: (x, level) -> x0 estimate, clipped by the model's rule."""

    def __init__(self, evaluate: Evaluate, training: Training) -> None:
        self._evaluate = evaluate
        self._input_scale = training.schedule.input_scale
        self._prediction = training.prediction
        self._clip = training.clip

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The x0 estimate at ``level``, in the shape of x."""
        return self._clean(x, self._output(x, level), level)

    def predict(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(x0, eps) of one evaluation: x0 is clipped by the model's rule, eps is the network's unclipped estimate."""
        output = self._output(x, level)
        return self._clean(x, output, level), combine(self._prediction.noise(level), x, output)

    def _output(self, x: Tensor, level: Level) -> Tensor:
        scale = self._input_scale(level)
        return self._evaluate(x, x if scale == 1 else x * scale, level.scaled(scale))

    def _clean(self, x: Tensor, output: Tensor, level: Level) -> Tensor:
        x0 = combine(self._prediction.clean(level), x, output)
        return x0 if self._clip is None else self._clip(x0)


def combine(coefficients: tuple[float, float], x: Tensor, output: Tensor) -> Tensor:
    """p * x + q * output, without touching a tensor whose coefficient is 0."""
    p, q = coefficients
    if p == 0:
        return output if q == 1 else q * output
    return p * x if q == 0 else p * x + q * output


@dataclass
class FunctionMethod:
    """A function ``(denoise, x, levels, noise, **options) -> x``."""

    function: Callable[..., Tensor]
    grid: Levels
    training: Training
    options: Mapping[str, Any]
    name: str
    adaptive: bool = False
    """Whether it chooses its steps by what it finds, so that no table says what it does."""

    @property
    def nfe(self) -> int:
        return self.grid.steps

    @property
    def levels(self) -> Sequence[Level]:
        """Levels of the timestep schedule without its end; a function may evaluate the network at others too."""
        return [level.scaled(self.training.schedule.input_scale(level)) for level in self.grid[:-1]]

    @property
    def start_std(self) -> float:
        return self.grid.start_std

    @property
    def ends(self) -> tuple[Level, Level]:
        return self.grid[0], self.grid[-1]

    def part(self, begin: int, end: int) -> "FunctionMethod":
        return replace(self, grid=self.grid.part(begin, end))

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        return self.function(Denoiser(evaluate, self.training), x, self.grid, noise, **self.options)
