"""What it costs that a pipeline's call answers from a thread of its own.

    python -m tests.benchmarks.bench_pipeline_call [steps] [rounds]

The pipeline is a tiny SD 3. A step of its own loop and one of ours, with the pipeline's own method written by hand,
take turns; then the same with a network that costs nothing, so that what is left is the exchange between the threads.
The fastest of the rounds, in microseconds a step: other processes only slow it down.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from diffexp.components.models.text_to_image.paused_call import PausedCall
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
    began = time.perf_counter()
    draw()
    return time.perf_counter() - began


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


def main(steps: int = 200, rounds: int = 9) -> None:
    with tempfile.TemporaryDirectory() as place:
        family = FAMILIES["sd3"]
        pipe: Any = family.load(family.save(Path(place) / "sd3"))
        compare("tiny SD 3", pipe, steps, rounds)
        pipe.transformer.forward = lambda hidden_states, **_: (hidden_states * 0.5,)
        compare("a network that costs nothing", pipe, steps, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
