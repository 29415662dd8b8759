"""What a pipeline steps: the rows of a plan, or a scheduler object by its formulas."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from diffexp.plan.execute import History, advance, clamped
from diffexp.plan.formulas import Draw, State
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
    """The rows of a plan, one after another.

    Args:
        plan: whose ``x`` of past rows are the samples that were handed in.
        begun: the plan for the timesteps from an index on, as they are when nothing came before them.
    """

    def __init__(self, plan: Plan, begun: Callable[[int], Plan]) -> None:
        self._whole = self._running = plan
        self._begun = begun
        self._skipped = 0
        self._history = History.empty()
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

    def scale(self, timestep: Any) -> float:
        return self._whole.rows[self._index(timestep)].scale

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
        if index != self.step_index:
            self._history, self._running, self._skipped = History.empty(), self._whole, 0
            if index and self._whole.depth:
                self._running, self._skipped = self._begun(index), index
        row = self._running.rows[index - self._skipped]
        self._history.push(x, m, clamped(row, x, m), self._running.depth)
        self.step_index = index + 1
        return advance(row, self._history, lambda: draw(x.dtype))

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


class ObjectSteps:
    """A scheduler object, replayed by its formulas: whatever is called, it does what the object would do.

    Args:
        method: whose object it is.
        prepared: whether its timesteps are set.
        unscaled: whether callers hand in and get the network's input instead of the object's own sample.
    """

    def __init__(self, method: ObjectMethod, *, prepared: bool, unscaled: bool = False) -> None:
        self._method = method
        self._unscaled = unscaled
        self._first = self._state = State(method.stepping(prepared=prepared))
        self._kept: list[Tensor] = []

    @property
    def scheduler(self) -> Any:
        """A copy of the object as it would be now."""
        return self._state.holding(self._kept)

    @property
    def timesteps(self) -> Tensor:
        return self._state.scheduler.timesteps

    @property
    def init_noise_sigma(self) -> float | Tensor:
        sigma = getattr(self._state.scheduler, "init_noise_sigma", 1.0)
        return sigma * self._own_scale(self.timesteps[0]) if self._unscaled else sigma

    @property
    def step_index(self) -> int | None:
        return getattr(self._state.scheduler, "step_index", None)

    @property
    def begin_index(self) -> int | None:
        return getattr(self._state.scheduler, "begin_index", None)

    def begin_at(self, index: int) -> None:
        if hasattr(self._state.scheduler, "set_begin_index"):
            self._state = self._state.beginning(index)

    def scale(self, timestep: Any) -> float:
        """The factor of ``scale_model_input``; it may change the object's state, as that does."""
        index, due = entry(self.timesteps, timestep), self.step_index
        if index is not None and due is not None and index < due:
            factor, _ = self._first.scale(timestep)  # a look back, at which the object would answer for what is due
        else:
            factor, self._state = self._state.scale(timestep)
        return 1.0 if self._unscaled else factor

    def seen_at(self, timestep: Any) -> tuple[float, Level]:
        return 1.0 if self._unscaled else self._own_scale(timestep), self._method.level(float(timestep))

    @property
    def step_function(self) -> Callable[..., Any]:
        """The ``step`` of the object."""
        return self._state.scheduler.step

    def step(
        self, m: Tensor, timestep: Any, x: Tensor, draw: Draw, options: Mapping[str, Any], return_dict: bool
    ) -> Any:
        """What ``step`` returns; by an object that returns nothing else the next sample alone."""
        options = {**self._method.step_options, **options}
        if not return_dict and "return_dict" in inspect.signature(self.step_function).parameters:
            options["return_dict"] = False
        given = (value for _, value in sorted(options.items()) if isinstance(value, Tensor) and value.shape == x.shape)
        formula, after = self._state.step(timestep, options, x.shape)
        if self._unscaled:
            x = x / self._own_scale(timestep)
        returned, self._kept = formula([x, m, *self._kept, *(one.to(x.dtype) for one in given)], draw)
        self._state = after
        index = self.step_index
        if not self._unscaled or index is None or index >= len(self.timesteps):
            return returned
        leaves, structure = pytree.tree_flatten(returned)
        leaves[0] = leaves[0] * self._own_scale(self.timesteps[index])
        return pytree.tree_unflatten(leaves, structure)

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """``add_noise`` of the object, or of flow models ``scale_noise``."""
        scheduler = self.scheduler
        if hasattr(scheduler, "scale_noise"):
            return scheduler.scale_noise(clean, timesteps, noise)
        noised = scheduler.add_noise(clean, noise, timesteps)
        if not self._unscaled:
            return noised
        factors = [self._own_scale(t) for t in timesteps.reshape(-1).cpu()]
        return noised * column(factors, noised)

    def _own_scale(self, timestep: Any) -> float:
        """The factor of the object's ``scale_model_input``."""
        return self._state.scale(timestep)[0]
