"""A plan as a diffusers scheduler, for every pipeline that takes one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from diffexp.plan.execute import History, advance, clamped
from diffexp.plan.levels import Level
from diffexp.plan.table import Plan, Row

Generators = torch.Generator | list[torch.Generator] | None
Observe = Callable[[Tensor, Tensor, Level], None]
"""``(what the network saw, its output, where)``, once a step."""


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """Runs a compiled plan inside a diffusers pipeline.

    Args:
        compile: the plan for a number of steps; called again whenever the pipeline asks for another number. It is also
            called with ``begin=k`` (the plan for the steps from k on, as they are when nothing came before them) where
            a multistep method begins in the middle, and with ``timesteps=``, ``sigmas=`` or ``mu=`` where the pipeline
            passes them; see ``compile_recipe``.
        num_train_timesteps: of the model, for pipelines that read it from the config.
        prediction_type: likewise.
        config: likewise, everything else: the config of the pipeline's own scheduler.
        generators: what noise is drawn from where the pipeline's call hands none to ``step`` (flow pipelines).
        observe: watches every step.

    Noise is drawn by diffusers' own ``randn_tensor`` in the order in which the original scheduler draws it, so a
    generator gives the same picture.
    """

    config_name = "scheduler_config.json"

    def __init__(
        self,
        compile: Callable[..., Plan],
        num_train_timesteps: int = 1000,
        prediction_type: str = "epsilon",
        *,
        config: Mapping[str, Any] | None = None,
        generators: Generators = None,
        observe: Observe | None = None,
    ) -> None:
        own = {"num_train_timesteps": num_train_timesteps, "prediction_type": prediction_type}
        # A plan reads no variance that a network predicts.
        rest = {key: value for key, value in (config or {}).items() if key != "variance_type" and key[0] != "_"}
        self.register_to_config(**{"steps_offset": 1, "clip_sample": False} | own | rest)
        self._compile = compile
        self._generators = generators
        self._observe = observe
        self.num_inference_steps: int | None = None
        self.timesteps = torch.arange(num_train_timesteps - 1, -1, -1)
        self._reset(None)

    def _reset(self, plan: Plan | None) -> None:
        self._whole = self._running = plan
        self._visit: dict[str, Any] = {}
        self._skipped = 0
        self._history = History.empty()
        self._begin_index: int | None = None
        self._step_index: int | None = None

    @property
    def plan(self) -> Plan:
        """The plan for all steps.

        Raises:
            ValueError: ``set_timesteps`` has not been called.
        """
        if self._whole is None:
            raise ValueError("call set_timesteps(num_inference_steps) first")
        return self._whole

    @property
    def order(self) -> int:
        """Evaluations a step; ``timesteps`` has so many entries for each."""
        if self._whole is None or not self.num_inference_steps:
            return 1
        return max(1, round(self._whole.nfe / self.num_inference_steps))

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the start sample."""
        return 1.0 if self._whole is None else self._whole.start_std * self._whole.start_scale

    @property
    def step_index(self) -> int | None:
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this entry of ``timesteps`` (image-to-image)."""
        self._begin_index = begin_index

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Compile for a number of steps; ``timesteps`` then has one entry per model evaluation.

        Args:
            num_inference_steps: steps; ``timesteps`` or ``sigmas`` can decide it instead.
            device: where ``timesteps`` are wanted.
            timesteps: visit exactly these.
            sigmas, mu: the levels of a flow pipeline and how far it wants them shifted, as its own scheduler takes
                them. A grid that was chosen for the plan is kept.

        Raises:
            ValueError: the plan perturbs its start sample, which a pipeline gives no place for.
        """
        visit: dict[str, Any] = {}
        given = timesteps if timesteps is not None else sigmas if sigmas is not None else ()
        steps = num_inference_steps or len(given)
        if timesteps is not None:
            visit["timesteps"] = [float(t) for t in timesteps]
        elif sigmas is not None:
            visit["sigmas"] = [float(sigma) for sigma in sigmas]
        if mu is not None:
            visit["mu"] = float(mu)
        plan = self._compile(steps, **visit)
        if plan.start_z:
            raise ValueError(f"{plan.name} adds noise before its first evaluation; a pipeline cannot run it")
        self._reset(plan)
        self._visit = visit
        self.num_inference_steps = steps
        values = [row.level.timestep for row in plan.rows]
        whole = all(value == int(value) for value in values)
        self.timesteps = torch.tensor(values, dtype=torch.int64 if whole else torch.float32, device=device)

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the network's input at this timestep, [batch, *shape]."""
        if timestep is None:
            return sample
        row = self.plan.rows[self._where(timestep)]
        return sample if row.scale == 1.0 else sample * row.scale

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generators = None,
        return_dict: bool = True,
        **_: Any,
    ) -> SchedulerOutput | tuple[Tensor]:
        """x_{k+1} from x_k and the network's output, in the dtype of ``sample``; nothing is edited in place."""
        row = self._row(timestep)
        assert self._step_index is not None and self._running is not None
        # The state between evaluations stays in float32 where the network runs in half precision.
        exact = torch.promote_types(sample.dtype, torch.float32)
        x, m = sample.to(exact), model_output.to(exact)
        if self._observe:
            self._observe(x if row.scale == 1.0 else x * row.scale, m, row.level)
        self._history.push(x, m, clamped(row, x, m), self._running.depth)

        def noise() -> Tensor:
            shape, device = model_output.shape, model_output.device
            source = self._generators if generator is None else generator
            return randn_tensor(shape, generator=source, device=device, dtype=exact)

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

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """``add_noise`` under the name and in the order of flow-matching schedulers."""
        return self.add_noise(sample, noise, timestep)

    def _row(self, timestep: float | Tensor) -> Row:
        """The row at hand: the next one in order, or wherever the timestep jumped to."""
        index = self._where(timestep)
        if index != self._step_index:
            self._begin_at(index)
        self._step_index = index
        assert self._running is not None
        return self._running.rows[index - self._skipped]

    def _where(self, timestep: float | Tensor) -> int:
        index = self._entry(timestep)
        return self._nearest(timestep) if index is None else index

    def _entry(self, timestep: float | Tensor) -> int | None:
        """Return which entry of ``timesteps`` this is a view of, without copying its value from a GPU."""
        own = self.timesteps.untyped_storage().data_ptr()
        if isinstance(timestep, Tensor) and timestep.numel() == 1 and timestep.untyped_storage().data_ptr() == own:
            return int(timestep.storage_offset())
        return None

    def _nearest(self, timestep: float | Tensor) -> int:
        """Return the entry of this value: the one that is due if it fits, because a timestep may occur twice."""
        rows, due = self.plan.rows, self._step_index
        if due is None and self._begin_index is not None:
            return self._begin_index
        if due is not None and due < len(rows) and abs(rows[due].level.timestep - float(timestep)) <= 1e-3:
            return due
        return self._index(timestep)

    def _begin_at(self, index: int) -> None:
        """Nothing came before this entry of ``timesteps``: rows that look back are compiled anew."""
        self._history, self._running, self._skipped = History.empty(), self.plan, 0
        if index == 0 or self.plan.depth == 0:
            return
        step, within = divmod(index, self.order)
        self._running = self._compile(self.num_inference_steps, begin=step, **self._visit)
        self._skipped = index
        if within or len(self._running.rows) != len(self.plan.rows) - index:
            raise ValueError(f"{self.plan.name} cannot begin at entry {index} of its timesteps, within a step")

    def _index(self, timestep: float | Tensor) -> int:
        value = float(timestep)
        distances = [abs(row.level.timestep - value) for row in self.plan.rows]
        return distances.index(min(distances))


def _column(values: Sequence[float], like: Tensor, tail: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, *tail)
