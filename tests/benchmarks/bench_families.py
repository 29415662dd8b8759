"""Seconds that the tiny checkpoint of each family takes: made, loaded, and two steps drawn by its own pipeline.

python -m tests.benchmarks.bench_families [family ...]
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from tests.families import DISTINCT, FAMILIES


def main(*names: str) -> None:
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
        library.set_verbosity(logging.CRITICAL)
    print(f"{'family':<20} {'saved':>6} {'loaded':>6} {'2 steps':>7}")
    with tempfile.TemporaryDirectory() as home:
        for name in names or DISTINCT:
            family = FAMILIES[name]
            times = [time.perf_counter()]
            folder = family.save(Path(home) / name)
            times.append(time.perf_counter())
            pipe = family.load(folder)
            times.append(time.perf_counter())
            family.draw(pipe)
            times.append(time.perf_counter())
            saved, loaded, drawn = (after - before for before, after in zip(times, times[1:], strict=False))
            print(f"{name:<20} {saved:6.2f} {loaded:6.2f} {drawn:7.2f}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
