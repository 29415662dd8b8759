"""A pipeline's own call, paused at every step: its prediction as a function of the sample and the timestep.

The call runs in a thread of its own with a scheduler that steps nowhere. Its ``timesteps`` wait for the next question
(a sample, a timestep); the pipeline evaluates its network with all that it adds (guidance, ControlNet, masks, adapters,
hooks) and hands the prediction to ``step``, which passes it on as the answer and returns the sample of the next
question. The end of the timesteps hands over the finished sample, which the pipeline decodes.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor

from diffexp.components.models.text_to_image.timesteps import Timesteps
from diffexp.errors import InputError
from diffexp.plan.levels import CLEAN, SAME_TIMESTEP, Level, Schedule, input_level

STATELESS = {"get_velocity", "index_for_timestep", "register_to_config", "set_begin_index"}
"""Methods of schedulers whose results do not depend on earlier steps; names that begin with ``_sigma`` besides."""
OF_STOCK = {"generator", "eta", "prev_timestep"}
"""Options of ``step`` about what a solver of ours does in its own way."""


class Closed(BaseException):
    """Ends a call from which nothing more is wanted; no handler of a pipeline catches it."""


@dataclass(frozen=True, eq=False)
class Question:
    """A sample [B, *shape] and the timestep to evaluate it at, without axes; without one, the finished sample."""

    x: Tensor
    t: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The prediction of a pipeline."""

    output: Tensor
    """In the shape of the sample, guided."""
    edited: Tensor | None
    """The sample that it was made for, where the pipeline has changed that of the question (inpainting)."""

    def first(self, count: int) -> "Answer":
        """That for the first samples."""
        return Answer(self.output[:count], None if self.edited is None else self.edited[:count])


class PausingScheduler:
    """Takes the place of a pipeline's scheduler; what a pipeline reads besides is read off ``stock``.

    Args:
        stock: the scheduler whose timesteps, sigmas and config the pipeline sees; ``set_timesteps`` is called on it.
        pipeline: the class whose call has the loop over the timesteps.
        levels: of the questions, as far as they are known beforehand; else those of ``stock``.
        schedule: that they belong to.
        wait: returns the next question.
        answer: takes the pipeline's own start sample before the first question, then each answer.
        interrupted: whether the pipeline was asked to stop.
    """

    init_noise_sigma = 1.0

    def __init__(
        self,
        stock: Any,
        pipeline: type,
        levels: Sequence[Level],
        schedule: Schedule | None,
        wait: Callable[[], Question],
        answer: Callable[[Tensor | Answer], None],
        interrupted: Callable[[], bool],
    ) -> None:
        self.stock = stock
        self.visited: Mapping[str, Any] = {}
        """Keywords of ``set_timesteps``."""
        self.asked: list[Tensor] = []
        """Timesteps of the questions so far."""
        self.skipped = 0
        """Timesteps that the pipeline leaves out at the beginning, because it begins with an image."""
        self.begins_at: Level | None = None
        """The level of the image that it begins with; None if it begins with noise alone."""
        self.set_timesteps = self._set_timesteps_as(stock)
        self._name, self._call = pipeline.__name__, inspect.unwrap(pipeline.__call__)
        self._wait, self._answer, self._interrupted = wait, answer, interrupted
        self._levels, self._schedule = levels, schedule
        self._evaluating = False
        self._next: Question | None = None
        self._given: Tensor | None = None
        self._variance: Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "stock" not in self.__dict__:
            raise AttributeError(name)
        try:
            found = getattr(self.stock, name)
        except AttributeError as error:
            raise AttributeError(f"its scheduler has no {name}") from error
        if inspect.ismethod(found) and name not in STATELESS and not name.startswith("_sigma"):
            raise InputError(f"{self._name} calls {name} of its scheduler, for which diffexp has no counterpart")
        return found

    @property
    def timesteps(self) -> Tensor:
        return Timesteps.of(self._known, self)

    @property
    def order(self) -> int:
        """Evaluations a step."""
        steps = getattr(self.stock, "num_inference_steps", None) or 0
        return max(1, round(len(self._levels) / steps)) if steps else 1

    @property
    def _known(self) -> Tensor:
        """The timesteps of the questions, as far as they are known; those of ``stock`` where they are not."""
        own = self.stock.timesteps
        return torch.tensor([one.timestep for one in self._levels], device=own.device) if self._levels else own

    @property
    def visits(self) -> Sequence[Tensor]:
        """Timesteps of the questions so far, with that of the next one."""
        due = None if self._next is None or self._evaluating else self._next.t
        return self.asked if due is None else [*self.asked, due]

    def length(self, known: int) -> int:
        """The number of questions, of which so many were known beforehand."""
        return len(self.asked) if self._next and self._next.t is None else max(known, len(self.visits))

    @property
    def sigmas(self) -> Tensor:
        """Those of ``timesteps`` and the end, with that of the current question in its place."""
        own, step = self.stock.sigmas, len(self.asked) - 1
        if self._schedule is None:
            return own
        known = [self._schedule.sigma_of(level) for level in self._levels] or own[:-1].tolist()
        if step >= 0:
            known += [known[-1]] * (step - len(known))
            known[step : step + 1] = [self._schedule.sigma_of(self._level(float(self.asked[step])))]
        return torch.cat([own.new_tensor(known), own[-1:]])

    @property
    def step_index(self) -> int | None:
        return len(self.asked) - 1 if self.asked else None

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample: questions are in the scale of the network's input."""
        return sample

    def add_noise(self, clean: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """Samples at one of the levels, in the scale of the network's input."""
        level = self._level(float(timesteps.flatten()[0]))
        if self._next is None:
            self.begins_at = level
        return level.alpha * clean + level.sigma * noise

    def scale_noise(self, clean: Tensor, timesteps: Any, noise: Tensor) -> Tensor:
        """``add_noise`` under the name and in the order of flow-matching schedulers."""
        return self.add_noise(clean, noise, timesteps)

    def step_noise(self, noise: Tensor) -> Tensor:
        """Noise between the last evaluation and the next, in units of the smaller of DDPM's variances.

        The logarithm of its variance lies between those of both, where the network says (Nichol & Dhariwal 2021,
        arXiv:2102.09672, eq. 15).
        """
        if self._variance is None:
            return noise
        here = self._level(float(self.asked[-1]))
        there = next(iter(self._levels[len(self.asked) :]), CLEAN)
        beta = here.sigma**2 - (here.alpha / there.alpha * there.sigma) ** 2
        smaller = max(there.sigma**2 / here.sigma**2 * beta, 1e-20)  # as in diffusers, which takes its logarithm
        return noise * (beta / smaller) ** ((self._variance[: len(noise)].to(noise) + 1) / 4)

    def _level(self, timestep: float) -> Level:
        assert self._schedule
        same = SAME_TIMESTEP * self._schedule.num_train_timesteps
        known = (level for level in self._levels if abs(level.timestep - timestep) <= same)
        return next(known, None) or input_level(self._schedule, timestep)

    def _set_timesteps_as(self, stock: Any) -> Callable[..., None]:
        @functools.wraps(stock.set_timesteps)  # pipelines read its signature
        def set_timesteps(*args: Any, **options: Any) -> None:
            if self.asked:
                raise InputError(f"{self._name} has more than one loop over timesteps")
            stock.set_timesteps(*args, **options)
            self.visited = options

        return set_timesteps

    def questions(self, known: int) -> Iterator[Tensor]:
        """Timesteps to evaluate the network at, each once the last answer is there and another question asked.

        The pipeline takes them for ``known`` timesteps.
        """
        if self.asked:
            raise InputError(f"{self._name} has more than one loop over timesteps")
        self.skipped = len(self._known) - known
        start = self._find_start()
        if start is None:  # the first evaluation shows it
            yield self._ask(self._known[self.skipped])
        else:
            self._answer(start)
            self._next = self._wait()
            start.copy_(self._next.x)
            self._given = start
        while self._next is not None and self._next.t is not None and not self._interrupted():
            if self._evaluating:
                raise InputError(f"{self._name} goes through its timesteps without stepping, by one of its options")
            yield self._ask(self._next.t)

    def step(
        self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, return_dict: bool = True, **options: Any
    ) -> Any:
        """Pass the prediction on; returns the sample of the next question, in the dtype of ``sample``."""
        self._evaluating = False
        for key in (key for key, value in options.items() if value is not None and key not in OF_STOCK):
            raise InputError(f"{self._name} steps with {key}, for which diffexp has no counterpart")
        if model_output.shape != sample.shape:
            model_output, self._variance = model_output.split(sample.shape[1], dim=1)
        if self._next is None:
            self._first_answer(model_output, sample)
        else:
            self._reply(model_output, sample)
        assert self._next is not None
        x = self._given = self._next.x.to(sample.dtype)
        return DDIMSchedulerOutput(x, x) if return_dict else (x, x)

    def _ask(self, t: Tensor) -> Tensor:
        like = self.stock.timesteps
        self.asked.append(t.to(like.device, like.dtype if like.is_floating_point() else torch.float32))
        self._evaluating = True
        return self.asked[-1]

    def _reply(self, output: Tensor, sample: Tensor) -> None:
        """Answer the current question, and wait for the next."""
        given = self._given
        changed = given is not None and sample is not given and not _equal(sample, given)
        if changed and len(self.asked) == 1:
            return  # the first sample was not where it seemed: the same question once more
        self._answer(Answer(output, sample if changed else None))
        self._next = self._wait()

    def _first_answer(self, output: Tensor, sample: Tensor) -> None:
        """Report the start sample; answer the first question if it is for it."""
        self._answer(sample)
        self._next = self._wait()
        t = self._next.t
        if t is not None and _equal(self._next.x, sample) and bool(t.to(self.asked[0]) == self.asked[0]):
            self._answer(Answer(output, None))
            self._next = self._wait()

    def _find_start(self) -> Tensor | None:
        """The variable that the loop hands to ``step``, in its frame; None where it is not there yet."""
        frame = sys._getframe()
        while frame is not None and frame.f_code is not self._call.__code__:
            frame = frame.f_back
        found = None if frame is None else frame.f_locals.get(_name_of_sample(self._call))
        return found if isinstance(found, Tensor) else None


@functools.lru_cache(maxsize=64)
def _name_of_sample(call: Callable[..., Any]) -> str:
    """The name of the third argument of ``scheduler.step`` in the source of a pipeline."""
    match = re.search(r"scheduler\.step\(\s*[^,]+,\s*[^,]+,\s*(\w+)", inspect.getsource(call))
    return match[1] if match else "latents"


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other), other)
