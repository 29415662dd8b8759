"""Several processes against one: a sweep on SLURM, and a run by two local workers.

    python -m tests.benchmarks.bench_cluster [rounds]

First 24 cells of 4 images by two jobs on a SLURM of this host, against the larger half of them alone: two of the four
schedulers as one batched sweep in one process on one thread, as a job has it. Both are whole commands by the clock:
start-up, the loading of the model, the report. The SLURM is the tests' own (Debian's packages slurm-wlm and munge), two
nodes of one core each.

Then 2,000 samples by two local workers, one thread each, against one process with one thread.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.slurm_cluster import SlurmCluster

SCHEDULERS = ("ddpm", "ddim", "euler", "dpmpp_2m")
STEPS = "steps=10,20,30,40,50,100"
OURS = "num_samples=4 dtype=float32 tracker=none metric=cost snapshot_every=0".split()
SLURM = "hydra/launcher=slurm hydra.launcher.jobs=2 hydra.launcher.mem_gb=2 hydra.launcher.cpus_per_task=1".split()
RUN = "num_samples=2000 steps=10 batch_size=50 dtype=float32 tracker=none metric=fid snapshot_every=0".split()
TARGET = 1.3
TARGET_OF_WORKERS = 1.6


def seconds(schedulers: tuple[str, ...], environment: Mapping[str, str], *more: str) -> float:
    """By the clock, of a sweep as a whole command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", f"scheduler={','.join(schedulers)}", STEPS, *OURS, f"hydra.sweep.dir={folder}/sweep", *more]
        taken = command(words, environment)
        assert len([*Path(folder).glob("sweep/*/run.json")]) == 6 * len(schedulers)
        return taken


def run_seconds(workers: int) -> tuple[float, float]:
    """By the clock, of a run as a whole command; and its FID."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*RUN, *([f"workers={workers}"] if workers > 1 else []), f"hydra.run.dir={folder}/run"]
        taken = command(words, {**os.environ, "OMP_NUM_THREADS": "1"})
        return taken, json.loads(Path(folder, "run", "metrics.json").read_text())["fid/mnist_cnn"]


def command(words: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds by the clock."""
    began = time.perf_counter()
    to_nowhere = subprocess.DEVNULL
    everything = [sys.executable, "-m", "diffexp", *words]
    subprocess.run(everything, env=environment, check=True, stdout=to_nowhere, stderr=to_nowhere)
    return time.perf_counter() - began


def main(rounds: int = 3) -> None:
    cluster = SlurmCluster()
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        ratios: list[float] = []
        for _ in range(rounds):
            half = max(seconds(names, one_thread) for names in (SCHEDULERS[:2], SCHEDULERS[2:]))
            jobs = seconds(SCHEDULERS, cluster.environment, *SLURM)
            print(f"  the larger half alone {half:6.1f} s   two jobs of SLURM {jobs:6.1f} s", flush=True)
            ratios.append(jobs / half)
    finally:
        cluster.stop()
    print(f"two jobs take {statistics.median(ratios):.2f} x the larger half alone   target {TARGET} x")
    ratios = []
    for _ in range(rounds):
        (one, fid), (two, other) = run_seconds(1), run_seconds(2)
        print(
            f"  one process {one:6.1f} s   two workers {two:6.1f} s   difference of FID {abs(fid - other):.1e}",
            flush=True,
        )
        ratios.append(one / two)
    print(f"two workers are {statistics.median(ratios):.2f} x as fast as one   target {TARGET_OF_WORKERS} x")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
