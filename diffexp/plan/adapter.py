"""A plan as a diffusers scheduler, for every pipeline that takes one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffexp.plan.execute import History, advance, clamped
from diffexp.plan.plan import Plan, Row


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """Runs a compiled plan inside a diffusers pipeline.

    Args:
        compile: the plan for a number of steps; called again whenever the pipeline asks for another number.
        num_train_timesteps: of the model, for pipelines that read it from the config.
        prediction_type: likewise.

    Noise is drawn by diffusers' own ``randn_tensor`` in the order in which the original scheduler draws it, so a
    generator gives the same picture.
    """

    order = 1
    config_name = "scheduler_config.json"

    def __init__(
        self, compile: Callable[[int], Plan], num_train_timesteps: int = 1000, prediction_type: str = "epsilon"
    ) -> None:
        self.register_to_config(
            num_train_timesteps=num_train_timesteps, prediction_type=prediction_type, steps_offset=1, clip_sample=False
        )
        self._compile = compile
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self._reset(None)

    def _reset(self, plan: Plan | None) -> None:
        self._plan = plan
        self._history = History.empty()
        self._begin_index: int | None = None
        self._step_index: int | None = None

    @property
    def plan(self) -> Plan:
        """The plan in use.

        Raises:
            ValueError: ``set_timesteps`` has not been called.
        """
        if self._plan is None:
            raise ValueError("call set_timesteps(num_inference_steps) first")
        return self._plan

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the start sample."""
        return 1.0 if self._plan is None else self._plan.start_std * self._plan.start_scale

    @property
    def step_index(self) -> int | None:
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this row (image-to-image)."""
        self._begin_index = begin_index

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Compile for a number of steps; ``timesteps`` then has one entry per model evaluation.

        Raises:
            ValueError: the plan perturbs its start sample, which a pipeline gives no place for.
        """
        plan = self._compile(num_inference_steps)
        if plan.start_z:
            raise ValueError(f"{plan.name} adds noise before its first evaluation; a pipeline cannot run it")
        self._reset(plan)
        self.num_inference_steps = num_inference_steps
        values = [row.level.timestep for row in plan.rows]
        whole = all(value == int(value) for value in values)
        self.timesteps = torch.tensor(values, dtype=torch.int64 if whole else torch.float32, device=device)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """What the network sees at this timestep, [batch, *shape]."""
        if timestep is None:
            return sample
        row = self._row(timestep)
        return sample if row.scale == 1.0 else sample * row.scale

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
        **_: Any,
    ) -> SchedulerOutput | tuple[Tensor]:
        """x_{k+1} from x_k and the network's output, in the dtype of ``sample``; nothing is edited in place."""
        row = self._row(timestep)
        assert self._step_index is not None
        # The state between evaluations stays in float32 where the network runs in half precision.
        exact = torch.promote_types(sample.dtype, torch.float32)
        x, m = sample.to(exact), model_output.to(exact)
        self._history.push(x, m, clamped(row, x, m), self.plan.depth)

        def noise() -> Tensor:
            shape, device = model_output.shape, model_output.device
            return randn_tensor(shape, generator=generator, device=device, dtype=model_output.dtype).to(exact)

        previous = advance(row, self._history, noise).to(sample.dtype)
        self._step_index += 1
        return SchedulerOutput(prev_sample=previous) if return_dict else (previous,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(alpha_t * x0 + sigma_t * noise) / scale_t for one of the plan's timesteps per sample."""
        rows = [self.plan.rows[self._index(t)] for t in timesteps.reshape(-1)]
        tail = [1] * (original_samples.ndim - 1)
        alpha = _column([row.level.alpha / row.scale for row in rows], original_samples, tail)
        sigma = _column([row.level.sigma / row.scale for row in rows], original_samples, tail)
        return alpha * original_samples + sigma * noise

    def _row(self, timestep: float | Tensor) -> Row:
        """The row at hand: the next one in order, or wherever the timestep jumped to."""
        rows, value = self.plan.rows, float(timestep)
        index = self._step_index
        if index is None or index >= len(rows) or abs(rows[index].level.timestep - value) > 1e-3:
            index = self._begin_index if self._begin_index is not None and index is None else self._index(timestep)
            self._history = History.empty()
        self._step_index = index
        return rows[index]

    def _index(self, timestep: float | Tensor) -> int:
        value = float(timestep)
        distances = [abs(row.level.timestep - value) for row in self.plan.rows]
        return distances.index(min(distances))


def _column(values: Sequence[float], like: Tensor, tail: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *tail)
