"""A sweep of 24 cells on the embedded model against two ways of running them one after another.

    python -m tests.benchmarks.bench_sweep [images a cell] [rounds] [steps,steps,...]

Against a plain script: diffusers' own classes and settings, a loop over the cells, one PNG a sample. And against our
own cells with Hydra's basic launcher. All three run in this process, after their imports, from the loading of the model
to the last file, in float32; ours compose the configs, keep records, measure their cost and write a report besides. A
ratio is the median over rounds; in brackets that of processor time, which says more where other jobs share the machine.
Then, what a further cell of one image and two steps costs beyond its model calls. At the end, how far the samples of
batched cells are from those of cells alone, before they are rounded to 8 bits.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    UNet2DModel,
)
from PIL import Image
from torch import Tensor

from diffexp.cli import run_command
from diffexp.components.models.mnist import WEIGHTS
from diffexp.experiment.folder import RunFolder
from diffexp.sweeps.batching import Rendezvous

CLASSES = {
    "ddpm": DDPMScheduler,
    "ddim": DDIMScheduler,
    "euler": EulerDiscreteScheduler,
    "dpmpp_2m": DPMSolverMultistepScheduler,
}
STEPS = (10, 20, 30, 40, 50, 100)
OURS = "tracker=none metric=cost snapshot_every=0"
TARGETS = {1: (2.8, 1.0), 4: (1.5, 1.0)}
"""By the clock: against the plain script, against our own cells one by one."""
FAITHFUL = {"float32": 80, "bfloat16": 45}
"""PSNR in dB, at least, of batched cells against cells alone."""

Way = Callable[[Path, int, Sequence[int]], None]
"""Draws so many images a cell at these step counts into a folder."""


def plain(folder: Path, images: int, step_counts: Sequence[int]) -> None:
    """What one would write by hand."""
    net = UNet2DModel.from_pretrained(WEIGHTS)
    labels = torch.arange(images) % 10
    for name, cls in CLASSES.items():
        for steps in step_counts:
            scheduler = cls.from_pretrained(WEIGHTS)
            scheduler.set_timesteps(steps)
            x = torch.randn(images, 1, 32, 32, generator=torch.manual_seed(0)) * scheduler.init_noise_sigma
            with torch.no_grad():
                for t in scheduler.timesteps:
                    noise = net(scheduler.scale_model_input(x, t), t, class_labels=labels).sample
                    x = scheduler.step(noise, t, x).prev_sample
            pixels = ((x / 2 + 0.5).clamp(0, 1) * 255).round().byte()
            (folder / f"{name}_{steps}").mkdir(parents=True)
            for index, picture in enumerate(pixels):
                Image.fromarray(picture[0].numpy()).save(folder / f"{name}_{steps}" / f"{index}.png")


def ours(launcher: str, *more: str) -> Way:
    def sweep(folder: Path, images: int, step_counts: Sequence[int]) -> None:
        swept = [f"scheduler={','.join(CLASSES)}", f"steps={','.join(map(str, step_counts))}", f"num_samples={images}"]
        words = ["-m", *swept, *OURS.split(), f"hydra.sweep.dir={folder}", f"hydra/launcher={launcher}", *more]
        with Path(f"{folder}.txt").open("w") as told, redirect_stdout(told), redirect_stderr(told):
            assert run_command(words) == 0

    return sweep


def seconds(run: Way, images: int, step_counts: Sequence[int]) -> tuple[float, float]:
    """Of the clock, and of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter(), time.process_time()
        run(Path(folder) / "sweep", images, step_counts)
        return time.perf_counter() - began[0], time.process_time() - began[1]


def main(images: int, rounds: int = 3, step_counts: Sequence[int] = STEPS) -> None:
    single = "dtype=float32"  # whatever the processor is fastest in
    ways = {
        "plain diffusers": plain,
        "our cells, one by one": ours("basic", single),
        "our cells, batched": ours("batched", single),
    }
    for run in ways.values():
        seconds(run, images, step_counts[:1])  # imports, and what libraries prepare
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():  # in turns, so that a busy minute is everyone's
            taken[name].append(seconds(run, images, step_counts))
    cells = len(CLASSES) * len(step_counts)
    print(f"{cells} cells, {images} images each, {torch.get_num_threads()} threads")
    *others, batched = taken.items()
    for name, times in taken.items():
        wall, processor = (statistics.median(column) for column in zip(*times))
        print(f"  {name:<24} {wall:8.2f} s   ({processor:.2f} s)")
    for (name, times), target in zip(others, TARGETS.get(images, ("?", "?"))):
        ratios = [[theirs / mine for theirs, mine in zip(*pair)] for pair in zip(times, batched[1])]
        wall, processor = (statistics.median(column) for column in zip(*ratios))
        print(f"  faster than {name:<24} {wall:5.2f} x   ({processor:.2f} x)   target {target} x")
    sys.stdout.flush()


def further_cell(few: int = 40, many: int = 160) -> float:
    """Milliseconds of processor time, without model calls, that a cell of one image and two steps adds to a sweep.

    In one thread: the time of the others of a call is no thread's that could be asked for it.
    """

    def cells(count: int) -> float:
        spent, timed = 0.0, Rendezvous._timed

        def timed_too(self: Rendezvous, *arguments: Any) -> Tensor:
            nonlocal spent
            began = time.thread_time()
            try:
                return timed(self, *arguments)
            finally:
                spent += time.thread_time() - began

        with patch.object(Rendezvous, "_timed", timed_too):
            more = ("dtype=float32", f"seed=range({count // len(CLASSES)})")
            return seconds(ours("batched", *more), 1, [2])[1] - spent

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cells(few)
        return 1e3 * (cells(many) - cells(few)) / (many - few)
    finally:
        torch.set_num_threads(threads)


@contextmanager
def noted() -> Iterator[dict[tuple[str, int], Tensor]]:
    """All samples that are saved until the block ends, by the name of the cell and index."""
    found: dict[tuple[str, int], Tensor] = {}
    save = RunFolder.save_samples

    def save_too(self: RunFolder, indices: Sequence[int], samples: Tensor) -> None:
        found.update({(self.folder.name, index): sample for index, sample in zip(indices, samples.double())})
        save(self, indices, samples)

    RunFolder.save_samples = save_too
    try:
        yield found
    finally:
        RunFolder.save_samples = save


def faithfulness(dtype: str, images: int, step_counts: Sequence[int]) -> float:
    """The lowest PSNR, in dB, of a sample drawn in a batch of cells against the same drawn alone."""
    with noted() as together:
        seconds(ours("batched", f"dtype={dtype}"), images, step_counts)
    with noted() as alone:
        seconds(ours("basic", f"dtype={dtype}"), images, step_counts)
    assert together.keys() == alone.keys()
    errors = torch.stack([(together[key] - alone[key]).square().mean() for key in alone])
    return -10 * torch.log10(errors.max().clamp_min(1e-30)).item()


if __name__ == "__main__":
    counts = [int(word) for word in sys.argv[1:2]] or list(TARGETS)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    step_counts = [int(word) for word in sys.argv[3].split(",")] if len(sys.argv) > 3 else STEPS
    for count in counts:
        main(count, rounds, step_counts)
    print(
        f"a further cell of one image and two steps: {further_cell():.0f} ms besides its calls   target 30 ms",
        flush=True,
    )
    for dtype, target in FAITHFUL.items():
        lowest = faithfulness(dtype, 4, step_counts[:2])
        print(f"batched and alone in {dtype}: {lowest:.0f} dB or more   target {target} dB", flush=True)
