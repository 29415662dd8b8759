"""The command's sampling against DDPMPipeline with DDIMScheduler, side by side in one process.

    python -m tests.benchmarks.bench_pipeline [steps] [size] [rounds]

The network is that of google/ddpm-church-256 in full (114 million random weights), saved into a cache that looks like
the hub's and loaded from there as ``model=ddpm_church``. ``size`` is the side of its pictures; 256 is the original,
smaller ones take less time. A round draws one picture each way; the ratio is the median over rounds.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from huggingface_hub import constants

from diffexp.assembly import assemble
from diffexp.config import hydra_session
from diffexp.discovery import discover
from diffexp.drawing import draw_samples
from diffexp.launch import task_config
from diffexp.meters import Meters
from diffexp.outputs import RunFolder
from diffexp.preflight import Preflight
from tests.checkpoints import put_in_cache, save_pipeline

ID = "google/ddpm-church-256"


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


def ours(steps: int, dtype: str) -> Any:
    """Draws one picture as the command does, in a folder that is left for the next; returns the seconds."""
    catalog = discover()
    words = ["model=ddpm_church", f"steps={steps}", "num_samples=1", "batch_size=1", "tracker=none", f"dtype={dtype}"]
    with hydra_session(catalog) as hydra:
        config = task_config(Preflight(hydra, catalog).check(words, multirun=False).config)
    parts = assemble(config, catalog)

    def draw() -> float:
        with tempfile.TemporaryDirectory() as folder:
            output = RunFolder(Path(folder))
            output.begin(config)
            began = time.perf_counter()
            draw_samples(parts, config, output, Meters({}, parts.model))
            return time.perf_counter() - began

    return draw


def theirs(folder: Path, steps: int) -> Any:
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)

    def draw() -> float:
        began = time.perf_counter()
        pipeline(batch_size=1, num_inference_steps=steps)
        return time.perf_counter() - began

    return draw


def main(steps: int = 50, size: int = 256, rounds: int = 3) -> None:
    with tempfile.TemporaryDirectory() as home:
        constants.HF_HUB_CACHE = str(Path(home) / "hub")
        torch.manual_seed(0)
        saved = save_pipeline(Path(home) / "made", church(size), DDPMScheduler())
        folder = put_in_cache(Path(constants.HF_HUB_CACHE), ID, saved)
        reference, drawings = theirs(folder, steps), {dtype: ours(steps, dtype) for dtype in ("float32", "auto")}
        for draw in (reference, *drawings.values()):
            draw()
        seconds = [(reference(), *(draw() for draw in drawings.values())) for _ in range(rounds)]
    print(f"{ID} at {size} x {size}, {steps} steps, one picture, {torch.get_num_threads()} threads, {rounds} rounds")
    print(f"DDPMPipeline with DDIMScheduler: {statistics.median(row[0] for row in seconds):.2f} s")
    for column, dtype in enumerate(drawings, start=1):
        ratios = [row[column] / row[0] for row in seconds]
        print(
            f"diffexp, dtype={dtype}: {statistics.median(row[column] for row in seconds):.2f} s, "
            f"ratio {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
