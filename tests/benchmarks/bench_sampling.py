"""Sampling as a whole against its bare model calls, side by side in one process.

    python -m tests.benchmarks.bench_sampling [steps] [batch]

One round times the bare calls (the network alone, the same number of times on the same batch) and then a whole draw as
the command does it: loop, scheduler, per-sample noise, snapshots, progress. The ratio is the median over rounds.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from diffexp.catalog.discover import discover
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.launch import task_config
from diffexp.experiment.build import assemble
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.sampling import generate

ROUNDS = 5


def main(steps: int = 50, batch: int = 64) -> None:
    catalog = discover()
    for scheduler in ("ddim", "ddpm", "euler"):
        overrides = [
            f"scheduler={scheduler}",
            f"steps={steps}",
            f"num_samples={batch}",
            f"batch_size={batch}",
            "tracker=none",
        ]
        with hydra_session(catalog) as hydra:
            config = task_config(Preflight(hydra, catalog).check(overrides, multirun=False).config)
        parts = assemble(config, catalog)
        model = parts.model
        condition = model.conditions(parts.request, range(batch))
        x, t = torch.randn(batch, *model.shape), torch.full((batch,), 500.0)
        ratios, millis = [], []
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            output = RunFolder(Path(folder))
            parts.predict(x, t, condition)
            for _ in range(ROUNDS):
                began = time.perf_counter()
                for _ in range(steps):
                    parts.predict(x, t, condition)
                bare = time.perf_counter() - began
                output.begin(config)
                ratios.append(generate(parts, config, output, MetricSuite({}, model)).tally.seconds / bare)
                millis.append(bare / steps / batch * 1e3)
        print(
            f"{scheduler:<6} {steps} steps, batch {batch}: whole / bare = {statistics.median(ratios):.4f} "
            f"(min {min(ratios):.4f}, max {max(ratios):.4f}); network {statistics.median(millis):.2f} ms an image"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
