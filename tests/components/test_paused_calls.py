"""The call of a pipeline as a function: it answers what it is asked, and ends with whoever asks."""

import gc
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, LattePipeline, StableDiffusion3Pipeline
from torch import Tensor

from diffexp.components.models.text_to_image.cache import enable_cache
from diffexp.components.models.text_to_image.paused_call import PausedCall
from diffexp.errors import InputError
from diffexp.experiment.device import out_of_memory
from tests.families import FAMILIES
from tests.pipeline_runs import Tiny

ABSENT = {"text_encoder_3": None, "tokenizer_3": None}


@pytest.fixture(scope="module")
def pipe(tiny: Tiny) -> Any:
    pipe = StableDiffusion3Pipeline.from_pretrained(tiny("sd3"), local_files_only=True, **ABSENT)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def calls() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("call of ")]


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """No thread is left over."""
    yield
    gc.collect()
    until = time.monotonic() + 10
    while calls() and time.monotonic() < until:
        time.sleep(0.01)
    assert not calls()


def arguments(**more: Any) -> dict[str, Any]:
    streams = [torch.Generator().manual_seed(seed) for seed in range(2)]
    size = {"height": 32, "width": 32}
    return (
        {"prompt": ["a cat", "two dogs"], "num_inference_steps": 4, "generator": streams, "output_type": "pt"}
        | size
        | more
    )


def euler(call: PausedCall, repeat: int = 1) -> Tensor:
    """The pipeline's own method, by hand; every question is asked ``repeat`` times, with others in between."""
    sigmas, x = call.scheduler.stock.sigmas, call.start
    for here, there, t in zip(sigmas, sigmas[1:], call.scheduler.stock.timesteps):
        for _ in range(repeat - 1):
            call.predict(torch.randn_like(x), torch.tensor(500.0))
        x = x + (there - here) * call.predict(x, t).output
    return x


def test_answers_are_those_of_the_pipelines_own_loop(pipe: Any) -> None:
    """Whatever else is asked in between; callbacks see the same steps."""
    seen: list[Tensor] = []

    def keep(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
        seen.append(tensors["latents"])
        return {}

    theirs = pipe(**arguments(callback_on_step_end=keep)).images
    stock, count = pipe.scheduler, len(seen)
    for repeat in (1, 2):
        call = PausedCall(pipe, arguments(callback_on_step_end=keep))
        x = euler(call, repeat)
        assert torch.equal(x, seen[count - 1])
        assert torch.equal(call.finish(x).images, theirs)
    assert len(seen) == count + 4 + 8 and pipe.scheduler is stock


def test_what_is_asked_first_need_not_be_the_start(pipe: Any) -> None:
    """The first sample is put where the loop keeps its own; nothing is evaluated for that."""
    evaluated: list[int] = []
    hook = pipe.transformer.register_forward_pre_hook(lambda *_: evaluated.append(1))
    x, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(7)), torch.tensor(300.0)
    first = PausedCall(pipe, arguments()).predict(x, t).output
    assert len(evaluated) == 1
    hook.remove()
    call = PausedCall(pipe, arguments())
    call.predict(call.start, torch.tensor(1000.0))
    assert torch.equal(call.predict(x, t).output, first)
    assert torch.equal(call.predict(x.double(), t).output, first)


def test_samples_are_decoded_without_an_evaluation(pipe: Any) -> None:
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    decoded = PausedCall(pipe, arguments()).finish(x).images
    call = PausedCall(pipe, arguments())
    call.predict(call.start, torch.tensor(1000.0))
    assert torch.equal(call.finish(x).images, decoded)


def test_a_pipeline_that_is_interrupted(pipe: Any) -> None:
    def stop(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
        pipe._interrupt = step == 1
        return {}

    call = PausedCall(pipe, arguments(callback_on_step_end=stop))
    with pytest.raises(KeyboardInterrupt, match="StableDiffusion3Pipeline was interrupted"):
        euler(call)
    with pytest.raises(InputError, match="its call is over"):
        call.predict(call.start, torch.tensor(1.0))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"height": 30}, InputError, "StableDiffusion3Pipeline: `height` and `width` have to be divisible by"),
        ({"nonsense": 1}, InputError, "StableDiffusion3Pipeline: .* unexpected keyword argument 'nonsense'"),
        ({"output_type": "pt", "sigmas": [1.0]}, None, ""),
    ],
)
def test_what_a_pipeline_refuses(
    pipe: Any, changes: dict[str, Any], error: type[Exception] | None, message: str
) -> None:
    if error is None:
        assert len(PausedCall(pipe, arguments(**changes)).scheduler.stock.timesteps) == 1
        return
    with pytest.raises(error, match=message) as caught:
        PausedCall(pipe, arguments(**changes))
    assert "\n" not in str(caught.value)


def test_an_error_inside_ends_both_sides(pipe: Any) -> None:
    """With one line that says what failed, where, and what can be changed."""
    call = PausedCall(pipe, arguments())
    with pytest.raises(RuntimeError, match="size") as caught:
        call.predict(torch.randn(2, 4, 16, 24), torch.tensor(300.0))
    assert isinstance(caught.value, InputError)
    line = r"StableDiffusion3Pipeline fails before its first evaluation \(\w+.py:\d+\): RuntimeError: .*; its arguments"
    assert re.match(line, str(caught.value)) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="its call is over"):
        call.predict(call.start, torch.tensor(300.0))


@pytest.mark.parametrize("error", [KeyError("missing"), AssertionError(), RuntimeError("CUDA out of memory\nof much")])
def test_whatever_a_network_raises_is_one_line(pipe: Any, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    hook = pipe.transformer.register_forward_pre_hook(fail)
    try:
        call = PausedCall(pipe, arguments())
        with pytest.raises(InputError, match=f"fails in evaluation 1 .*: {type(error).__name__}") as caught:
            call.predict(call.start, torch.tensor(300.0))
    finally:
        hook.remove()
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error
    assert out_of_memory(caught.value) == isinstance(error, RuntimeError)  # for the caller to halve its batch


def test_an_interrupt_ends_both_sides_at_once(pipe: Any) -> None:
    """Also while the pipeline evaluates."""
    go = threading.Event()
    hook = pipe.transformer.register_forward_pre_hook(lambda *_: go.wait(60) and None)
    call = PausedCall(pipe, arguments())
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        call.predict(call.start, torch.tensor(300.0))
    assert time.monotonic() - begun < 30
    go.set()
    hook.remove()
    with pytest.raises(InputError, match="its call is over"):
        call.predict(call.start, torch.tensor(300.0))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda scheduler: scheduler.undo_step, "calls undo_step of its scheduler|has no undo_step"),
        (lambda scheduler: scheduler.stochastic_step, "has no stochastic_step"),
        (
            lambda scheduler: scheduler.step(*torch.ones(3, 1), per_token_timesteps=torch.ones(1)),
            "steps with per_token_timesteps, for which diffexp has no counterpart",
        ),
        (lambda scheduler: __import__("copy").deepcopy(scheduler), "steps several samples side by side"),
    ],
)
def test_a_scheduler_that_is_used_in_other_ways(pipe: Any, use: Callable[[Any], object], message: str) -> None:
    scheduler = PausedCall(pipe, arguments()).scheduler
    with pytest.raises((InputError, AttributeError), match=message):
        use(scheduler)


def test_the_levels_that_a_pipeline_makes(tiny: Tiny) -> None:
    pipe = FluxPipeline.from_pretrained(tiny("flux"), local_files_only=True)
    call = PausedCall(pipe, arguments())
    scheduler, start = call.scheduler, call.start
    assert start.shape == (2, 64, 16)  # packed as tokens
    assert set(scheduler.visited) == {"sigmas", "mu", "device"} and scheduler.visited["mu"] == pytest.approx(0.4675)
    assert len(scheduler.timesteps) == 4 and float(scheduler.timesteps[0]) == 1000
    assert float(scheduler.sigmas[0]) == 1 and scheduler.order == 1 and scheduler.config["shift"] == 3.0


def test_autocast_and_inference_mode_are_carried_over(pipe: Any) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rounded = PausedCall(pipe, arguments())
        output = rounded.predict(rounded.start, torch.tensor(500.0)).output
    exact = PausedCall(pipe, arguments()).predict(rounded.start, torch.tensor(500.0)).output
    assert 0 < float((output - exact).abs().max()) < 0.1 * float(exact.abs().max())
    assert exact.is_inference()


def test_a_cache_is_part_of_the_answer(tiny: Tiny) -> None:
    def drawn(cache: Any) -> Tensor:
        pipe: Any = FluxPipeline.from_pretrained(tiny("flux"), local_files_only=True)
        if cache:
            pipe._current_timestep = torch.tensor(500.0)
            enable_cache(pipe, cache)
        call = PausedCall(pipe, arguments())
        return call.finish(euler(call)).images

    plain = drawn(None)
    assert torch.equal(drawn({"name": "first_block", "threshold": 0.0}), plain)
    assert not torch.equal(drawn({"name": "first_block", "threshold": 10.0}), plain)
    # Without classifier-free guidance a batch has no second half, as one of them takes for granted unless it is told.
    with pytest.raises(InputError, match="model.cache fails in a FluxPipeline .*; change its options, or leave it out"):
        drawn("faster")
    assert not torch.equal(drawn({"name": "mag", "mag_ratios": [1.0, 1.1, 1.0, 1.0], "num_inference_steps": 4}), plain)
    with pytest.raises(InputError, match="model.cache=mag cannot be used in a FluxPipeline .*mag_ratios"):
        drawn("mag")
    with pytest.raises(InputError, match="model.cache=nonsense is not known .*first_block"):
        drawn("nonsense")


def test_a_cache_of_both_sides_of_guidance(tiny: Tiny) -> None:
    """Of networks that return latents as they take them, with a batch that guidance has doubled."""

    def drawn(cache: Any) -> Tensor:
        pipe: Any = LattePipeline.from_pretrained(tiny("latte"), local_files_only=True)
        if cache:
            enable_cache(pipe, cache)
        call = PausedCall(pipe, {**FAMILIES["latte"].call, **arguments(prompt="a cat", generator=None)})
        x = torch.ones_like(call.start)
        for t in call.scheduler.stock.timesteps:
            pipe._current_timestep = t
            x = x - 0.1 * call.predict(x, t).output
        return x

    plain = drawn(None)
    never = {f"{part}_timestep_skip_range": [-1, 0] for part in ("spatial_attention", "unconditional_batch")}
    assert torch.equal(drawn({"name": "faster", **never}), plain)
    assert not torch.equal(drawn("faster"), plain)
