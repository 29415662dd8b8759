"""The command against DDPMPipeline with DDIMScheduler: its sampling side by side in one process, and from start to end.

    python -m tests.benchmarks.bench_pipeline [steps] [size] [rounds]

The network is that of google/ddpm-church-256 in full (114 million random weights), saved into a cache that looks like
the hub's and loaded from there as ``model=ddpm_church``. ``size`` is the side of its pictures; 256 is the original,
smaller ones take less time. A round draws one picture each way; ratios are medians over rounds. From start to end
counts the import of Python's packages, loading, and every file that either of them writes.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import constants

from diffexp.catalog.discover import discover
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.experiment.build import assemble
from diffexp.experiment.device import read_device
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.sampling import generate
from tests.checkpoints import put_in_cache, save_pipeline

ID = "google/ddpm-church-256"
DTYPES = ("float32", "auto")
SCRIPT = """
import sys, torch
from diffusers import DDIMScheduler, DDPMPipeline
pipeline = DDPMPipeline.from_pretrained(sys.argv[1], local_files_only=True).to(sys.argv[2])
pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
pipeline(num_inference_steps=int(sys.argv[3])).images[0].save("picture.png")
"""

Draw = Callable[[], object]


def church(size: int) -> UNet2DModel:
    """The network of Ho et al. 2020 for LSUN at 256 x 256, as its config on the hub describes it."""
    down, up = ["DownBlock2D"] * 6, ["UpBlock2D"] * 6
    down[4], up[1] = "AttnDownBlock2D", "AttnUpBlock2D"
    return UNet2DModel(
        sample_size=size,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        layers_per_block=2,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,  # pyright: ignore[reportArgumentType]
        norm_eps=1e-6,
    )


def words(steps: int, dtype: str) -> list[str]:
    """The command's."""
    return ["model=ddpm_church", "scheduler=ddim", f"steps={steps}", "num_samples=1", "batch_size=1", f"dtype={dtype}"]


def our_sampling(steps: int, dtype: str) -> Draw:
    """Draws one picture as the command does, with all files that belong to drawing."""
    catalog = discover()
    with hydra_session(catalog) as hydra:
        checked = Preflight(hydra, catalog).check([*words(steps, dtype), "tracker=none"], multirun=False)
        config = task_config(checked.config)
    parts = assemble(config, catalog)

    def draw() -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = RunFolder(Path(folder))
            output.begin(config)
            generate(parts, config, output, MetricSuite({}, parts.model))

    return draw


def their_sampling(folder: Path, steps: int, device: torch.device) -> Draw:
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True).to(device)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(batch_size=1, num_inference_steps=steps)


def started(*arguments: str, cache: Path) -> Draw:
    """A Python of its own, in a folder of its own."""
    root = str(Path(__file__).parents[2])
    there = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root, "WANDB_MODE": "offline"}

    def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, *arguments]
            subprocess.run(command, cwd=folder, env=os.environ | there, check=True, capture_output=True)

    return run


def compare(title: str, theirs: Draw, ours: Mapping[str, Draw], rounds: int) -> None:
    """Prints the median seconds of ``theirs`` and the ratio of each of ``ours``, drawn in turns."""
    ways = (theirs, *ours.values())
    seconds = [[seconds_of(draw) for draw in ways] for _ in range(rounds)]
    print(f"{title}: DDPMPipeline with DDIMScheduler {statistics.median(row[0] for row in seconds):.2f} s")
    for column, dtype in enumerate(ours, start=1):
        ratios = [row[column] / row[0] for row in seconds]
        median = statistics.median(row[column] for row in seconds)
        spread = f"min {min(ratios):.3f}, max {max(ratios):.3f}"
        print(f"  diffexp, dtype={dtype}: {median:.2f} s, ratio {statistics.median(ratios):.3f} ({spread})", flush=True)


def seconds_of(draw: Draw) -> float:
    began = time.perf_counter()
    draw()
    return time.perf_counter() - began


def main(steps: int = 50, size: int = 256, rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as place:
        cache, device = Path(place, "hub"), read_device("auto")
        constants.HF_HUB_CACHE = str(cache)
        torch.manual_seed(0)
        folder = put_in_cache(cache, ID, save_pipeline(Path(place, "made"), church(size), DDPMScheduler()))
        threads = torch.get_num_threads()
        print(f"{ID} at {size} x {size}, {steps} steps, one picture, {device}, {threads} threads, {rounds} rounds")
        sampling = {dtype: our_sampling(steps, dtype) for dtype in DTYPES}
        reference = their_sampling(folder, steps, device)
        for warm_up in (reference, *sampling.values()):
            warm_up()
        compare("sampling", reference, sampling, rounds)
        script = started("-c", SCRIPT, str(folder), str(device), str(steps), cache=cache)
        commands = {dtype: started("-m", "diffexp", *words(steps, dtype), cache=cache) for dtype in DTYPES}
        compare("from start to end", script, commands, rounds)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
