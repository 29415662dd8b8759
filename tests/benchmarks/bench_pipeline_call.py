"""What it costs that a pipeline's call answers from a thread of its own.

    python -m tests.benchmarks.bench_pipeline_call [steps] [rounds]

First whole calls of 20 steps with the shipped emoji model: diffusers' own against loop=pipeline, from the prompt to the
pixels. Then a step of the own loop of a tiny SD 3 and one of ours, with the pipeline's own method written by hand; and
the same with a network that costs nothing, so that what is left is the exchange between the threads. Both take turns;
the fastest of the rounds counts: other processes only slow it down.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from diffexp import emoji_folder
from diffexp.components.loops.pipeline import pipeline
from diffexp.components.models.base import Request, decode
from diffexp.components.models.given import model_of
from diffexp.components.models.text_to_image.paused_call import PausedCall
from diffexp.components.sampler import Recipe
from diffexp.components.schedulers.ddim import ddim
from diffexp.experiment.batches import make_batch
from diffexp.experiment.monitor import Evaluator
from tests.families import FAMILIES


def arguments(steps: int) -> dict[str, Any]:
    stream = [torch.Generator().manual_seed(0)]
    size = {"height": 32, "width": 32, "output_type": "latent"}
    return {"prompt": "a cat", "num_inference_steps": steps, "generator": stream, "guidance_scale": 1.0} | size


def ours(pipe: Any, steps: int) -> None:
    """The loop of ``FlowMatchEulerDiscreteScheduler``."""
    call = PausedCall(pipe, arguments(steps))
    x, sigmas = call.start, call.scheduler.stock.sigmas
    with torch.inference_mode():
        for here, there, t in zip(sigmas, sigmas[1:], call.scheduler.stock.timesteps):
            x = x + (there - here) * call.predict(x, t).output
        call.finish(x)


def seconds_of(draw: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    draw()
    return clock() - began


def compare(title: str, pipe: Any, steps: int, rounds: int) -> None:
    """Prints a step each way; of two lengths of runs, so that what happens once is left out."""
    ways = {"pipeline": lambda n: pipe(**arguments(n)), "diffexp": lambda n: ours(pipe, n)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, draw in ways.items():
            long, short = (seconds_of(lambda n=n, draw=draw: draw(n)) for n in (steps, 2))
            found[name].append((long - short) / (steps - 2) * 1e6)
    fastest = {name: min(values) for name, values in found.items()}
    shown = ", ".join(f"{name} {value:.0f} µs" for name, value in fastest.items())
    print(f"{title}: {shown}, difference {fastest['diffexp'] - fastest['pipeline']:.0f} µs a step", flush=True)


def whole_calls(rounds: int) -> None:
    """Prints the fastest of calls of 20 steps each way."""
    pipe: Any = StableDiffusionPipeline.from_pretrained(emoji_folder(), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    model = model_of(pipe)()
    recipe = Recipe(ddim, 20, model.training)
    request = Request("red heart", steps=20, levels=recipe.sampler.levels, guidance={"guidance_scale": 3.0})
    run: Any = SimpleNamespace(
        model=model, sampler=recipe.sampler, predict=model.predict, recipe=recipe, request=request
    )

    def theirs() -> object:
        streams = [torch.Generator().manual_seed(0)]
        return pipe("red heart", num_inference_steps=20, guidance_scale=3.0, generator=streams, output_type="np")

    def ours() -> object:
        with torch.inference_mode():
            batch = make_batch(run, 0, [0], Evaluator(model))
            return decode(model, pipeline(batch), batch.condition)

    for name, clock in (("processor time", time.process_time), ("by the clock", time.perf_counter)):
        found: tuple[list[float], list[float]] = [], []
        for _ in range(rounds):
            for values, draw in zip(found, (theirs, ours)):
                values.append(seconds_of(draw, clock))
        own, ourselves = map(min, found)
        more = 100 * (ourselves / own - 1)
        print(f"emoji, 20 steps, {name}: pipeline {own:.3f} s, diffexp {ourselves:.3f} s, {more:+.1f} %", flush=True)


def main(steps: int = 200, rounds: int = 9) -> None:
    whole_calls(rounds)
    with tempfile.TemporaryDirectory() as place:
        family = FAMILIES["sd3"]
        pipe: Any = family.load(family.save(Path(place) / "sd3"))
        compare("tiny SD 3", pipe, steps, rounds)
        pipe.transformer.forward = lambda hidden_states, **_: (hidden_states * 0.5,)
        compare("a network that costs nothing", pipe, steps, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
