"""What it costs that a pipeline's call answers from a thread of its own.

    python -m tests.benchmarks.bench_pipeline_call [steps] [rounds]

First whole calls of 20 steps with the shipped emoji model: diffusers' own against loop=pipeline, from the prompt to the
pixels. Then a step of the own loop of a tiny SD 3 and one of ours, with the pipeline's own method written by hand; and
the same with a network that costs nothing, so that what is left is the exchange between the threads. Processor time of
all threads, both ways by turns, the median of the rounds' ratios or differences: other processes hardly disturb it.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
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


def seconds_of(draw: Callable[[], object]) -> float:
    """Processor time of all threads."""
    began = time.process_time()
    draw()
    return time.process_time() - began


def side_by_side(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of two ways takes, in turns; the one that begins changes."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in list(ways.items())[:: 1 if number % 2 else -1]:
            found[name].append(measure())
    return found


def compare(title: str, pipe: Any, steps: int, rounds: int) -> None:
    """Prints a step each way; of two lengths of runs, so that what happens once is left out."""

    def step(draw: Callable[[int], object]) -> float:
        long, short = (seconds_of(partial(draw, n)) for n in (steps, 2))
        return (long - short) / (steps - 2) * 1e6

    ways = {"pipeline": partial(step, lambda n: pipe(**arguments(n))), "diffexp": partial(step, partial(ours, pipe))}
    found = side_by_side(ways, rounds)
    shown = ", ".join(f"{name} {median(values):.0f} µs" for name, values in found.items())
    more = median(own - theirs for theirs, own in zip(found["pipeline"], found["diffexp"]))
    print(f"{title}: {shown}, difference {more:.0f} µs a step", flush=True)


def whole_calls(rounds: int) -> None:
    """Prints the median ratio of calls of 20 steps, each way."""
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

    for draw in (theirs, ours):  # what happens once
        draw()
    found = side_by_side({"pipeline": partial(seconds_of, theirs), "diffexp": partial(seconds_of, ours)}, rounds)
    ratios = sorted(own / other for other, own in zip(found["pipeline"], found["diffexp"]))
    times = ", ".join(f"{name} {median(values):.3f} s" for name, values in found.items())
    more, low, high = (100 * (ratio - 1) for ratio in (median(ratios), ratios[0], ratios[-1]))
    print(f"emoji, 20 steps, {times}: {more:+.1f} % ({low:+.1f} to {high:+.1f})", flush=True)


def main(steps: int = 60, rounds: int = 7) -> None:
    whole_calls(rounds)
    with tempfile.TemporaryDirectory() as place:
        family = FAMILIES["sd3"]
        pipe: Any = family.load(family.save(Path(place) / "sd3"))
        compare("tiny SD 3", pipe, steps, rounds)
        pipe.transformer.forward = lambda hidden_states, **_: (hidden_states * 0.5,)
        compare("a network that costs nothing", pipe, steps, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
