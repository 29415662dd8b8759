"""A plan as a diffusers scheduler, for every pipeline that takes one."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.schedulers.scheduling_utils import SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from torch.utils import _pytree as pytree

from diffexp.errors import InputError
from diffexp.plan.compile import compile_method
from diffexp.plan.levels import Level
from diffexp.plan.method import drives_object
from diffexp.plan.stepping import ObjectSteps, RowSteps, entry
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear

Generators = torch.Generator | list[torch.Generator] | None
Observe = Callable[[Tensor, Tensor, Level], None]
"""``(what the network saw, its output, where)``, once a step."""


class PlanScheduler(SchedulerMixin, ConfigMixin):
    """Runs a compiled plan inside a diffusers pipeline.

    Args:
        compile: the plan for a number of steps; called again whenever the pipeline sets another number. It is also
            called with ``begin=k`` (the plan for the steps from k on, as they are when nothing came before them) where
            a multistep method begins in the middle, and with ``timesteps=``, ``sigmas=`` or ``mu=`` where the pipeline
            passes them; see ``compile_recipe``.
        num_train_timesteps: of the model, for pipelines that read it from the config.
        prediction_type: likewise.
        config: likewise, everything else: the config of the pipeline's own scheduler. Without one it is that of the
            scheduler object, if the plans come from one.
        generators: what noise is drawn from where the pipeline's call hands none to ``step`` (flow pipelines).
        observe: watches every step.

    A plan that was compiled from a scheduler object does what the object does, whatever the caller makes of its
    samples: blends them between steps, begins in the middle, passes keywords of ``step``. Its other methods and
    attributes are the object's. Noise is drawn by diffusers' own ``randn_tensor`` in the order in which the original
    scheduler draws it, so a generator gives the same picture.
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
        rest = _without_names(config or {})
        if str(rest.get("variance_type")).startswith("learned"):
            rest["variance_type"] = "fixed_small"  # a plan reads no variance that a network predicts
        self.register_to_config(**{"steps_offset": 1, "clip_sample": False} | own | rest)
        self._has_config = config is not None
        self._compile = compile
        self._generators = generators
        self._observe = observe
        self.num_inference_steps: int | None = None
        self._plan: Plan | None = None
        self._set_steps: RowSteps | ObjectSteps | None = None
        self._timesteps: Tensor | None = None

    @property
    def plan(self) -> Plan:
        """The plan for all steps.

        Raises:
            ValueError: ``set_timesteps`` has not been called.
        """
        if self._plan is None:
            raise ValueError("call set_timesteps(num_inference_steps) first")
        return self._plan

    @functools.cached_property
    def _unset_steps(self) -> ObjectSteps | None:
        """The scheduler object before ``set_timesteps``; None where plans are made from something else."""
        for steps in (10, 1):  # whatever is allowed: the plan is only asked what it was compiled from
            try:
                source = self._compile(steps).source
            except (InputError, NotLinear):
                continue
            return ObjectSteps(source, prepared=False) if drives_object(source) else None
        return None

    @property
    def _steps(self) -> RowSteps | ObjectSteps | None:
        return self._set_steps or self._unset_steps

    @property
    def _ready_steps(self) -> RowSteps | ObjectSteps:
        return self._steps or RowSteps(self.plan, self._begun)

    @property
    def _object(self) -> ObjectSteps | None:
        return self._steps if isinstance(self._steps, ObjectSteps) else None

    @property
    def timesteps(self) -> Tensor:
        """One entry per model evaluation."""
        if self._timesteps is not None:
            return self._timesteps
        found = getattr(self._object, "timesteps", None)
        return torch.arange(len(self) - 1, -1, -1) if found is None else found

    @timesteps.setter
    def timesteps(self, timesteps: Tensor) -> None:
        self._timesteps = timesteps
        if self._object is not None:
            self._object.scheduler.timesteps = timesteps.cpu()

    @property
    def order(self) -> int:
        """Evaluations a step; ``timesteps`` has so many entries for each."""
        if self._object is not None:
            return getattr(self._object.scheduler, "order", 1)
        if self._plan is None or not self.num_inference_steps:
            return 1
        return max(1, round(self._plan.nfe / self.num_inference_steps))

    @property
    def init_noise_sigma(self) -> float | Tensor:
        """Standard deviation of the start sample."""
        return 1.0 if self._steps is None else self._steps.init_noise_sigma

    @property
    def step_index(self) -> int | None:
        return None if self._steps is None else self._steps.step_index

    @property
    def begin_index(self) -> int | None:
        return None if self._steps is None else self._steps.begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start at this entry of ``timesteps`` (image-to-image)."""
        self._ready_steps.begin_at(begin_index)

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def __getattr__(self, name: str) -> Any:
        """What the scheduler object has besides."""
        if name[:2] != "__" and "_timesteps" in self.__dict__ and self._object is not None:
            scheduler = self._object.scheduler
            if name in vars(scheduler) or hasattr(type(scheduler), name):
                return getattr(scheduler, name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set what the scheduler object has on the object."""
        steps, own = self.__dict__.get("_set_steps"), name in self.__dict__ or hasattr(type(self), name)
        if not own and isinstance(steps, ObjectSteps) and name in vars(steps.scheduler):
            setattr(steps.scheduler, name, value)
        else:
            super().__setattr__(name, value)

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        **options: Any,
    ) -> None:
        """Compile for a number of steps; ``timesteps`` then has one entry per model evaluation.

        Args:
            num_inference_steps: steps; ``timesteps`` or ``sigmas`` can decide it instead.
            device: where ``timesteps`` are wanted.
            timesteps: visit exactly these; a scheduler object visits them as it does by itself.
            sigmas, mu: the levels of a flow pipeline and how far it wants them shifted, as its own scheduler takes
                them. A grid that was chosen for the plan is kept.
            **options: further ones of the scheduler object.

        Raises:
            ValueError: the plan perturbs its start sample, which a pipeline gives no place for.
        """
        given = timesteps if timesteps is not None else sigmas if sigmas is not None else ()
        steps = num_inference_steps or len(given)
        visit: dict[str, Any] = {} if sigmas is None else {"sigmas": [float(sigma) for sigma in sigmas]}
        if mu is not None:
            visit["mu"] = float(mu)
        if timesteps is not None:
            options["timesteps"] = [float(timestep) for timestep in timesteps]
        plan = self._compile(steps, **visit)
        source = plan.source
        if options and drives_object(source) and options.keys() <= _parameters(source.scheduler.set_timesteps).keys():
            found = compile_method(source.visiting(num_inference_steps, **options))
            plan = found.unscaled() if plan.is_unscaled else found
        elif options:
            plan = self._compile(steps, **visit, **options)
            visit |= options
        if plan.start_z:
            raise ValueError(f"{plan.name} adds noise before its first evaluation; a pipeline cannot run it")
        self._plan, self._visit = plan, visit
        if drives_object(plan.source):
            self._set_steps = ObjectSteps(plan.source, prepared=True, unscaled=plan.is_unscaled)
        else:
            self._set_steps = RowSteps(plan, self._begun)
        self._timesteps = self._set_steps.timesteps.to(device)
        self.num_inference_steps = getattr(getattr(self._set_steps, "scheduler", None), "num_inference_steps", steps)
        if not self._has_config and self._object is not None:
            self.register_to_config(**_without_names(getattr(self._object.scheduler, "config", {})))

    def _begun(self, index: int) -> Plan:
        """The plan for the timesteps from this index on, as they are when nothing came before them."""
        step, within = divmod(index, self.order)
        plan = self._compile(self.num_inference_steps, begin=step, **self._visit)
        if within or len(plan.rows) != len(self.plan.rows) - index:
            raise ValueError(f"{plan.name} cannot begin at entry {index} of its timesteps, within a step")
        return plan

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """Return the network's input at this timestep, [batch, *shape]."""
        return sample if timestep is None else self._ready_steps.scaled(sample, self._on_cpu(timestep))

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        *options: Any,
        generator: Generators = None,
        return_dict: bool = True,
        **named: Any,
    ) -> Any:
        """x_{k+1} from x_k and the network's output, in the dtype of ``sample``; nothing is edited in place.

        Args:
            model_output, timestep, sample: as everywhere in diffusers.
            *options, **named: further ones of the scheduler object's ``step``.
            generator: what noise is drawn from; one, or one for each sample.
            return_dict: an output object instead of a tuple.
        """
        steps = self._ready_steps
        placed = dict(zip(list(_parameters(steps.step_function))[3:], options))
        named = {"generator": generator, "return_dict": return_dict, **named, **placed}
        generator, return_dict = named.pop("generator"), named.pop("return_dict")
        timestep = self._on_cpu(timestep)
        # The state between evaluations stays in float32 where the network runs in half precision.
        exact = torch.promote_types(sample.dtype, torch.float32)
        x, m = sample.to(exact), model_output.to(exact)
        if self._observe:
            scale, level = steps.seen_at(timestep)
            self._observe(x if scale == 1.0 else x * scale, m, level)

        def draw(dtype: torch.dtype | None) -> Tensor:
            source = self._generators if generator is None else generator
            shape, device = model_output.shape, model_output.device
            return randn_tensor(shape, generator=source, device=device, dtype=dtype or model_output.dtype).to(exact)

        found = steps.step(m, timestep, x, draw, named, return_dict)
        if isinstance(found, Tensor):
            found = SchedulerOutput(prev_sample=found) if return_dict else (found,)
        return pytree.tree_map_only(Tensor, lambda one: one.to(sample.dtype), found)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """(alpha_t * x0 + sigma_t * noise) / scale_t for one of the plan's timesteps per sample."""
        return self._ready_steps.add_noise(original_samples, noise, timesteps)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """``add_noise`` under the name and in the order of flow-matching schedulers."""
        return self.add_noise(sample, noise, timestep)

    def _on_cpu(self, timestep: Any) -> Any:
        """The timestep where its value can be read; that of an entry of ``timesteps`` is not copied from a GPU."""
        index = entry(self._timesteps, timestep)
        if index is not None and self._set_steps is not None:
            return self._set_steps.timesteps[index]
        return timestep.cpu() if isinstance(timestep, Tensor) else timestep


def _without_names(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("_class_name", "_diffusers_version")}


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
