"""What a pipeline steps: the rows of a plan, or a scheduler object by its formulas."""

import copy
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from diffexp.plan.execute import History, advance, clamped
from diffexp.plan.formulas import Draw, Formula, Formulas
from diffexp.plan.handed_in import KEPT, formulas_of
from diffexp.plan.levels import Level
from diffexp.plan.method import ObjectMethod
from diffexp.plan.table import Plan


def entry(timesteps: Tensor | None, timestep: Any) -> int | None:
    """Which entry of ``timesteps`` this is a view of, without copying its value from a GPU; None for other values."""
    if timesteps is None or not isinstance(timestep, Tensor) or timestep.numel() != 1:
        return None
    same = timestep.untyped_storage().data_ptr() == timesteps.untyped_storage().data_ptr()
    return int(timestep.storage_offset()) if same else None


def column(values: Sequence[float], like: Tensor) -> Tensor:
    """A number for each sample, [batch, 1, ...]."""
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.ndim - 1))


class RowSteps:
    """The rows of a plan, one after another, as its code would compute them from the samples that are handed in.

    Args:
        plan: one whose code is not known, or is no function of these samples, is run by its rows alone.
        begun: the plan for the timesteps from an index on, as they are when nothing came before them.
    """

    def __init__(self, plan: Plan, begun: Callable[[int], Plan]) -> None:
        self._whole = plan
        self._begun = begun
        self._runs: dict[int, _Run] = {}
        self._running: _Run | None = None
        self.begin_index: int | None = None
        self.step_index: int | None = None
        values = [level.timestep for level in plan.levels]
        whole = all(value == int(value) for value in values)
        self.timesteps = torch.tensor(values, dtype=torch.int64 if whole else torch.float32)

    @property
    def init_noise_sigma(self) -> float:
        return self._whole.start_std * self._whole.start_scale

    def begin_at(self, index: int) -> None:
        self.begin_index = index

    def scaled(self, sample: Tensor, timestep: Any) -> Tensor:
        """The network's input."""
        scale = self._whole.rows[self._index(timestep)].scale
        return sample if scale == 1.0 else sample * scale

    def seen_at(self, timestep: Any) -> tuple[float, Level]:
        """The factor between sample and input of the network, and the level of the input."""
        row = self._whole.rows[self._index(timestep)]
        return row.scale, row.level

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        rows = [self._whole.rows[self._nearest(t)] for t in timesteps.reshape(-1)]
        alpha = column([row.level.alpha / row.scale for row in rows], clean)
        return alpha * clean + column([row.level.sigma / row.scale for row in rows], clean) * noise

    def step_function(self, model_output: Any, timestep: Any, sample: Any, generator: Any, return_dict: Any) -> None:
        """The order of the arguments of ``PlanScheduler.step``."""

    def step(
        self, m: Tensor, timestep: Any, x: Tensor, draw: Draw, options: Mapping[str, Any], return_dict: bool
    ) -> Tensor:
        """The next sample.

        Raises:
            TypeError: there are options; a plan has none.
        """
        if options:
            raise TypeError(f"step() got an unexpected keyword argument '{next(iter(options))}'")
        index = self._index(timestep)
        if self._running is None or index != self.step_index:
            self._running = self._run_from(index)
        self.step_index = index + 1
        return self._running.step(index, x, m, draw)

    def _run_from(self, index: int) -> "_Run":
        first = index if self._whole.depth else 0
        if first not in self._runs:
            plan = self._begun(first) if first else self._whole
            self._runs[first] = _Run(plan, first, formulas_of(plan))
        return self._runs[first].again()

    def _index(self, timestep: Any) -> int:
        """The row of this timestep: the one that is due if it fits, because a timestep may occur twice."""
        if (index := entry(self.timesteps, timestep)) is not None:
            return index
        due = self.begin_index if self.step_index is None else self.step_index
        if due is not None and (self.step_index is None or self._fits(due, timestep)):
            return due
        return self._nearest(timestep)

    def _nearest(self, timestep: Any) -> int:
        distances = [abs(level.timestep - float(timestep)) for level in self._whole.levels]
        return distances.index(min(distances))

    def _fits(self, index: int, timestep: Any) -> bool:
        levels = self._whole.levels
        return index < len(levels) and abs(levels[index].timestep - float(timestep)) <= 1e-3


class _Run:
    """Rows that are run one after another, with what they keep between steps.

    Args:
        plan: of these rows.
        first: index of the first one among all.
        formulas: what to run instead of the rows.
    """

    def __init__(self, plan: Plan, first: int, formulas: Sequence[Formula] | None) -> None:
        self._plan, self._first, self._formulas = plan, first, formulas
        self._history, self._kept = History.empty(), []

    def again(self) -> "_Run":
        """The run with nothing kept."""
        return _Run(self._plan, self._first, self._formulas)

    def step(self, index: int, x: Tensor, m: Tensor, draw: Draw) -> Tensor:
        if self._formulas is not None:
            formula = self._formulas[index - self._first]
            found, after = formula([x, m, *self._kept], lambda _: draw(x.dtype))
            self._kept = after[KEPT]
            return found
        row = self._plan.rows[index - self._first]
        self._history.push(x, m, clamped(row, x, m), self._plan.depth)
        return advance(row, self._history, lambda: draw(x.dtype))


class ObjectSteps:
    """A scheduler object whose ``step`` runs by its formulas; everything else is the object's own.

    Args:
        method: whose object it is.
        prepared: whether its timesteps are set.
        unscaled: whether callers hand in and get the network's input instead of the object's own sample.
    """

    def __init__(self, method: ObjectMethod, *, prepared: bool, unscaled: bool = False) -> None:
        self._method = method
        self._unscaled = unscaled
        self.scheduler = method.stepping(prepared=prepared)
        self._new = copy.copy(self.scheduler)
        self._formulas = Formulas()

    @property
    def timesteps(self) -> Tensor:
        return self.scheduler.timesteps

    @property
    def init_noise_sigma(self) -> float | Tensor:
        sigma = getattr(self.scheduler, "init_noise_sigma", 1.0)
        return sigma * _input_scale(self._new, self.timesteps[0]) if self._unscaled else sigma

    @property
    def step_index(self) -> int | None:
        return getattr(self.scheduler, "step_index", None)

    @property
    def begin_index(self) -> int | None:
        return getattr(self.scheduler, "begin_index", None)

    def begin_at(self, index: int) -> None:
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(index)

    def scaled(self, sample: Tensor, timestep: Any) -> Tensor:
        """The network's input."""
        if self._unscaled or not hasattr(self.scheduler, "scale_model_input"):
            return sample
        index, due = entry(self.timesteps, timestep), self.step_index
        if index is not None and due is not None and index < due:
            return sample * _input_scale(self._new, timestep)  # a look back; the object answers for what is due
        return self.scheduler.scale_model_input(sample, timestep)

    def seen_at(self, timestep: Any) -> tuple[float, Level]:
        scale = 1.0 if self._unscaled else _input_scale(self.scheduler, timestep)
        return scale, self._method.level(float(timestep))

    @property
    def step_function(self) -> Callable[..., Any]:
        """The ``step`` of the object."""
        return self.scheduler.step

    def step(
        self, m: Tensor, timestep: Any, x: Tensor, draw: Draw, options: Mapping[str, Any], return_dict: bool
    ) -> Any:
        """What ``step`` returns; by an object that returns nothing else the next sample alone."""
        options = {**self._method.step_options, **options}
        if not return_dict and "return_dict" in inspect.signature(self.step_function).parameters:
            options["return_dict"] = False
        if self._unscaled:
            x = x / _input_scale(self.scheduler, timestep)
        returned = self._formulas.step(self.scheduler, m, timestep, x, options, draw)
        index = self.step_index
        if not self._unscaled or index is None or index >= len(self.timesteps):
            return returned
        leaves, structure = pytree.tree_flatten(returned)
        leaves[0] = leaves[0] * _input_scale(self.scheduler, self.timesteps[index])
        return pytree.tree_unflatten(leaves, structure)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``add_noise`` of the object, or of flow models ``scale_noise``."""
        if hasattr(self.scheduler, "scale_noise"):
            return self.scheduler.scale_noise(clean, timesteps, noise)
        noised = self.scheduler.add_noise(clean, noise, timesteps)
        if not self._unscaled:
            return noised
        factors = [_input_scale(self.scheduler, t) for t in timesteps.reshape(-1).cpu()]
        return noised * column(factors, noised)


def _input_scale(scheduler: Any, timestep: Any) -> float:
    """The factor of ``scale_model_input``, of a copy, because the call may count as the start of the steps."""
    if not hasattr(scheduler, "scale_model_input"):
        return 1.0
    return float(copy.copy(scheduler).scale_model_input(torch.ones(1), timestep))


def visiting(source: ObjectMethod, steps: int | None, given: Mapping[str, Any]) -> ObjectMethod:
    """The method for these arguments; sigmas get the end that they lack where the object counts it among them."""
    found = source.visiting(steps, **given)
    if "sigmas" not in given or len(found.stepping().timesteps) == len(given["sigmas"]):
        return found
    end = source.stepping().sigmas[-1].item()
    if math.isclose(given["sigmas"][-1], end, rel_tol=1e-5, abs_tol=1e-6):
        return found
    return source.visiting(steps, **{**given, "sigmas": [*given["sigmas"], end]})
