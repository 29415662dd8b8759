"""A scheduler bound to a model's levels: code that turns a start sample into an output.

Every kind of scheduler (a function, k-diffusion's convention, a diffusers-style class) becomes a ``Method``. The same
method is traced once by ``compile``, or run directly where it is not linear.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from torch import Tensor

from diffexp.plan.levels import Level, Levels, Schedule
from diffexp.plan.predictions import Clip, DynamicThreshold, Prediction, Target

Noise = Callable[[], Tensor]
"""Fresh standard normal noise in the shape of the sample."""


class Evaluate(Protocol):
    """One network evaluation at ``u``; ``x`` is the sample it belongs to, in the scheduler's own scaling."""

    def __call__(self, x: Tensor, u: Tensor, level: Level) -> Tensor: ...


@dataclass(frozen=True)
class TrainingSpec:
    """What a scheduler has to know of a model: how it was trained."""

    schedule: Schedule
    prediction: Target = Prediction.EPSILON
    clip: Clip | DynamicThreshold | None = None
    scheduler_config: Mapping[str, Any] = field(default_factory=dict)
    """The checkpoint's own scheduler config, for schedulers that are diffusers classes."""
    spacing: str = "leading"
    steps_offset: int = 0


class Spec(Protocol):
    """Anything that tells how it was trained: a ``TrainingSpec`` or a model."""

    @property
    def schedule(self) -> Schedule: ...
    @property
    def prediction(self) -> Target: ...
    @property
    def clip(self) -> Clip | DynamicThreshold | None: ...
    @property
    def scheduler_config(self) -> Mapping[str, Any]: ...
    @property
    def spacing(self) -> str: ...
    @property
    def steps_offset(self) -> int: ...


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
    def timesteps(self) -> Sequence[float]:
        """Those that it visits, as far as they are known beforehand."""
        ...

    @property
    def ends(self) -> tuple[Level, Level]:
        """The levels of the start sample and of the output, in the method's own scaling of x."""
        ...

    def part(self, begin: int, end: int) -> "Method":
        """The method for the steps from ``begin`` up to but without ``end``."""
        ...

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor: ...


class Denoiser:
    """What a scheduler function calls: ``denoise(x, level)`` is the x0 estimate, clipped as the model asks for."""

    def __init__(self, evaluate: Evaluate, spec: Spec) -> None:
        self._evaluate = evaluate
        self._input_scale = spec.schedule.input_scale
        self._prediction = spec.prediction
        self._clip = spec.clip

    def __call__(self, x: Tensor, level: Level) -> Tensor:
        """The x0 estimate at ``level``, in the shape of x."""
        return self._clean(x, self._ask(x, level), level)

    def predict(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(x0, eps) of one evaluation: x0 is clipped as the model asks for, eps is what the network said."""
        output = self._ask(x, level)
        return self._clean(x, output, level), combine(self._prediction.noise(level), x, output)

    def _ask(self, x: Tensor, level: Level) -> Tensor:
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
    levels: Levels
    spec: Spec
    options: Mapping[str, Any]
    name: str

    @property
    def nfe(self) -> int:
        return self.levels.steps

    @property
    def timesteps(self) -> Sequence[float]:
        return [level.timestep for level in self.levels[:-1]]

    @property
    def start_std(self) -> float:
        return self.levels.start_std

    @property
    def ends(self) -> tuple[Level, Level]:
        return self.levels[0], self.levels[-1]

    def part(self, begin: int, end: int) -> "FunctionMethod":
        return replace(self, levels=self.levels.part(begin, end))

    def __call__(self, evaluate: Evaluate, x: Tensor, noise: Noise) -> Tensor:
        return self.function(Denoiser(evaluate, self.spec), x, self.levels, noise, **self.options)
