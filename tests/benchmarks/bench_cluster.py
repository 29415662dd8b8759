"""24 cells of 4 images by two jobs on a SLURM of this host, against the larger half of them alone.

    python -m tests.benchmarks.bench_cluster [rounds]

The half is the twelve cells of the slower two schedulers as one batched sweep in one process on one thread, as a job
has it. Both are whole commands by the clock: start-up, the loading of the model, the report. The SLURM is the tests'
own (Debian's packages slurm-wlm and munge), two nodes of one core each.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.slurm_cluster import SlurmCluster

SCHEDULERS = ("ddpm", "ddim", "euler", "dpmpp_2m")
STEPS = "steps=10,20,30,40,50,100"
OURS = "num_samples=4 dtype=float32 tracker=none metric=cost snapshot_every=0".split()
SLURM = "hydra/launcher=slurm hydra.launcher.jobs=2 hydra.launcher.mem_gb=2 hydra.launcher.cpus_per_task=1".split()
TARGET = 1.3


def seconds(schedulers: tuple[str, ...], environment: Mapping[str, str], *more: str) -> float:
    """By the clock, of a sweep as a whole command."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["-m", f"scheduler={','.join(schedulers)}", STEPS, *OURS, f"hydra.sweep.dir={folder}/sweep", *more]
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "diffexp", *words],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        taken = time.perf_counter() - began
        assert len([*Path(folder).glob("sweep/*/run.json")]) == 6 * len(schedulers)
        return taken


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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
