"""A pipeline's call in a thread of its own, whose prediction is a function; see ``paused``."""

import contextvars
import copy
import functools
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from diffexp.components.models.base import Condition
from diffexp.components.models.passes import PassCounter
from diffexp.components.models.text_to_image.paused import Answer, Closed, PausingScheduler, Question
from diffexp.errors import InputError, one_line
from diffexp.plan.levels import Level, Schedule

LIVENESS_SECONDS = 5.0
"""How often it is checked that the thread that owes an answer is alive."""

MORE = "{} prepares as many evaluations as the scheduler has levels, and this scheduler chooses to take more"
"""The error of a pipeline with a list of something for each step."""


class PausedCall:
    """One call of a pipeline, in a thread that ends with this object.

    Inference mode holds in it; autocast, modes of torch functions and context variables are those of the creator.

    Args:
        pipe: a pipeline of diffusers; the call has a shallow copy of it.
        arguments: of its call.
        levels: of what will be asked, as far as it is known; else those of its scheduler.
        schedule: that the levels belong to; without one the scheduler adds noise to images by itself.
        reads_variance: whether noise gets the variance that the network predicts.

    Raises:
        InputError: the pipeline refuses its arguments, or drives its scheduler in a way that is not known here.
        CallError: its own code fails.
    """

    def __init__(
        self,
        pipe: Any,
        arguments: Mapping[str, Any],
        levels: Sequence[Level] = (),
        schedule: Schedule | None = None,
        reads_variance: bool = False,
    ) -> None:
        self._name, self.reads_variance = type(pipe).__name__, reads_variance
        self._questions, self._answers = SimpleQueue[Question | None](), SimpleQueue[Any]()
        own, stock = copy.copy(pipe), copy.deepcopy(pipe.scheduler)
        own.set_progress_bar_config(disable=True)
        interrupted = functools.partial(getattr, weakref.proxy(own), "_interrupt", False)
        wait = Waiting(self._questions, self._name)
        self.scheduler = PausingScheduler(stock, type(pipe), levels, schedule, wait, self._answers.put, interrupted)
        """What the pipeline takes for its scheduler."""
        own.__dict__["scheduler"] = self.scheduler  # past the pipeline's record of its parts
        self.passes = PassCounter()
        """Counts the forward passes of its networks."""
        run = functools.partial(_run, own, arguments, self._answers, Context(), self.passes)
        target = contextvars.copy_context().run
        self._thread = threading.Thread(target=target, args=(run,), name=f"call of {self._name}", daemon=True)
        self._thread.start()
        self.close = weakref.finalize(self, self._questions.put, None)
        """Ends the call, unless it is over."""
        start = self._received()
        if not isinstance(start, Tensor):
            raise InputError(f"{self._name} has no loop over the timesteps of its scheduler")
        streams = arguments.get("generator")
        self._copies = len(start) // len(streams) if isinstance(streams, list) and streams else 1
        self.start: Tensor = start[: len(start) // self._copies].clone()
        """The pipeline's own start sample [B, *shape]; some hold it twice, one for each side of guidance."""

    def predict(self, x: Tensor, t: Tensor) -> Answer:
        """The prediction for samples ``x`` [B, *shape] at the timestep ``t``."""
        answer = self._ask(x, t)
        if not isinstance(answer, Answer):
            self.close()
            raise KeyboardInterrupt(f"{self._name} was interrupted")
        return answer.first(len(x))

    def finish(self, x: Tensor) -> Any:
        """What the pipeline's call returns for the finished samples ``x`` [B, *shape]."""
        return self._ask(x)

    def _ask(self, x: Tensor, t: Tensor | None = None) -> Any:
        if not self.close.alive:  # an answer that nobody waited for may be left
            raise InputError(f"{self._name}: its call is over")
        self._questions.put(Question(x if self._copies == 1 else torch.cat([x] * self._copies), t))
        return self._received()

    def _received(self) -> Any:
        try:
            while True:
                try:
                    found = self._answers.get(timeout=LIVENESS_SECONDS)
                    break
                except Empty:
                    if not self._thread.is_alive() and self._answers.empty():
                        raise InputError(f"{self._name}: its call is over") from None
        except BaseException:
            self.close()
            raise
        if isinstance(found, _Failure):
            self.close()
            raise found.error
        return found


@dataclass(frozen=True, eq=False)
class Called(Condition):
    """The condition of a batch that a pipeline's own call holds, from its first use on."""

    make: Callable[[], PausedCall] = field(kw_only=True)

    @functools.cached_property
    def call(self) -> PausedCall:
        """The call, which draws the start noise from the streams of the samples."""
        return self.make()

    @classmethod
    def by(cls, call: PausedCall, condition: Condition) -> "Called":
        """The condition of samples that this call draws: ``condition`` itself, where it can hold a call."""
        found = condition if isinstance(condition, cls) else cls({}, None, condition.captions, make=lambda: call)
        found.__dict__["call"] = call
        return found

    def start_noise(self, draw: Callable[[], Tensor]) -> Tensor:
        return self.call.start.to(torch.promote_types(self.call.start.dtype, torch.float32))

    def step_noise(self, noise: Tensor) -> Tensor:
        return self.call.scheduler.step_noise(noise) if self.call.reads_variance else noise


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def denoisers(pipe: Any) -> list[torch.nn.Module]:
    """The networks that denoise; pipelines of diffusers call them so, one for each range of noise levels."""
    parts = [part for name, part in pipe.components.items() if name.startswith(("unet", "transformer"))]
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def is_distilled(pipe: Any) -> bool:
    """Whether a network takes the guidance scale as an input."""
    return any(getattr(network, "config", {}).get("guidance_embeds") for network in denoisers(pipe))


@dataclass(frozen=True, eq=False)
class Waiting:
    """Waits for the next question to a pipeline; there is one line of them."""

    questions: "SimpleQueue[Question | None]"
    name: str
    """Of the pipeline."""

    def __call__(self) -> Question:
        if (question := self.questions.get()) is None:
            raise Closed
        return question

    def __deepcopy__(self, memo: Any) -> Any:
        raise InputError(f"{self.name} steps several samples side by side, each with a scheduler of its own")


def _run(
    pipe: Any, arguments: Mapping[str, Any], answers: "SimpleQueue[Any]", context: "Context", passes: PassCounter
) -> None:
    try:
        with context.entered(), passes.watching(denoisers(pipe)):
            found = pipe(**arguments)
    except Closed:
        return
    except BaseException as error:
        name, asked = type(pipe).__name__, len(pipe.scheduler.asked)
        more = isinstance(error, IndexError) and asked > len(pipe.scheduler.timesteps)
        found = _Failure(InputError(MORE.format(name)) if more else _readable(error, name, asked))
    answers.put(found)


class CallError(InputError, RuntimeError):
    """The call of a pipeline ended with an error of its own code."""


def _readable(error: BaseException, name: str, asked: int) -> BaseException:
    """One line for whatever a pipeline raises after so many questions."""
    if not isinstance(error, Exception) or isinstance(error, InputError):
        return error
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    reason, place = one_line(error), f"{Path(frame.f_code.co_filename).name}:{line}"
    if str(frame.f_globals.get("__name__")).startswith("diffusers.hooks"):
        made = InputError(f"model.cache fails in a {name} ({reason}); change its options, or leave it out")
    elif isinstance(error, ValueError | TypeError | AttributeError) and str(error):  # about its arguments
        made = InputError(f"{name}: {' '.join(str(error).split())}")
    else:
        when = f"in evaluation {asked}" if asked else "before its first evaluation"
        options = "its arguments are pipe.<name>=..., its size is model.height and model.width"
        made = CallError(f"{name} fails {when} ({place}): {reason}; {options}")
    made.__cause__ = error
    return made


def with_config(pipe: Any, config: Mapping[str, Any]) -> Any:
    """A shallow copy of a pipeline whose scheduler has other entries in its config."""
    own, scheduler = copy.copy(pipe), copy.copy(pipe.scheduler)
    scheduler._internal_dict = FrozenDict({**scheduler.config, **config})
    own.__dict__["scheduler"] = scheduler
    return own


class Probe(Closed):
    """Stands for a network until it is evaluated; then it ends the call, with the keywords of the evaluation."""

    def __init__(self, network: Any) -> None:
        self.network, self.inputs = network, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["network"], name)

    def __call__(self, *_: Any, **inputs: Any) -> Any:
        self.inputs = inputs
        raise self


def inputs_of_unet(pipe: Any, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords that the call of a pipeline evaluates its UNet with at first; nothing is evaluated."""
    own = with_config(pipe, {})
    own.__dict__["unet"] = probe = Probe(pipe.unet)
    try:
        own(**arguments)
    except Probe:
        return probe.inputs
    raise InputError(f"{type(pipe).__name__} does not evaluate its UNet")


class SingleNoise(TorchFunctionMode):
    """Draws noise in float32 and then rounds it, so that a seed gives the same image in every precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        dtype = kwargs.get("dtype")
        if func is torch.randn and dtype in (torch.float16, torch.bfloat16):
            return func(*args, **kwargs | {"dtype": torch.float32}).to(dtype)
        return func(*args, **kwargs)


def single_noise(dtype: torch.dtype) -> AbstractContextManager[Any]:
    """``SingleNoise`` where a network computes in ``dtype`` and draws noise in it."""
    return SingleNoise() if dtype.itemsize < 4 else nullcontext()


class Context:
    """The state of torch that belongs to the current thread, besides gradients."""

    def __init__(self) -> None:
        self._modes = _get_current_function_mode_stack()
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self._stream = torch.accelerator.current_stream() if accelerator else None
        kinds = ["cpu", *([accelerator.type] if accelerator else [])]
        self._autocast = [(k, torch.get_autocast_dtype(k), torch.is_autocast_enabled(k)) for k in kinds]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Enter it in another thread, until the end of the block."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode())
            for kind, dtype, enabled in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            if self._stream is not None:
                torch.accelerator.set_stream(self._stream)
            for mode in self._modes:
                stack.enter_context(mode)
            yield
