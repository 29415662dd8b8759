"""What SLURM says of jobs, with stand-ins for its commands."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from diffexp.errors import InputError
from diffexp.sweeps.engines.base import exit_reason
from diffexp.sweeps.engines.slurm import SlurmEngine
from diffexp.sweeps.engines.slurm_job import task_environment
from diffexp.sweeps.engines.slurm_options import COMMON, OF_SLURM, OPTIONS, executor_options
from diffexp.sweeps.engines.slurm_queue import REASONS, as_outside_of_jobs, reason, states


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is searched for commands first."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f'#!/bin/sh\necho "$@" > {folder}/{name}.asked\n{script}\n')
    (folder / name).chmod(0o755)


def result(folder: Path, job: str, outcome: str, value: str | None) -> None:
    (folder / f"{job}_0_result.pkl").write_bytes(pickle.dumps((outcome, value)))


def test_the_queue_knows_jobs_and_the_accounting_those_that_it_has_forgotten(commands: Path):
    put(commands, "squeue", "echo '12_0|RUNNING|n1'; echo '12_1|PENDING|'")
    put(commands, "sacct", "echo '7|CANCELLED by 1000|n2'; echo '8_3|OUT_OF_MEMORY|n[1-2]'")
    assert states(["12_0", "12_1", "7", "8_3", "9"]) == {
        "12_0": ("RUNNING", "n1"),
        "12_1": ("PENDING", ""),
        "7": ("CANCELLED", "n2"),
        "8_3": ("OUT_OF_MEMORY", "n[1-2]"),
        "9": ("UNKNOWN", ""),
    }
    assert "--jobs=7,8_3,9 " in (commands / "sacct.asked").read_text()


def test_without_accounting_forgotten_jobs_are_unknown(commands: Path):
    put(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    put(commands, "sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert states(["12"]) == {"12": ("UNKNOWN", "")}


def test_a_controller_that_does_not_answer_says_nothing_of_jobs(commands: Path):
    put(commands, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert states(["12"]) is None


@pytest.mark.parametrize("state", REASONS)
def test_a_job_that_wrote_nothing_ended_as_its_state_says(state: str, tmp_path: Path):
    assert reason(tmp_path, "12_1", state) == REASONS[state]


def test_what_a_task_raised_is_the_reason_unless_slurm_ended_the_job(tmp_path: Path):
    trace = "Traceback (most recent call last):\n  File ...\n"
    result(tmp_path, "1_0", "success", None)
    result(tmp_path, "1_1", "error", f"{trace}diffexp.sweeps.engines.slurm_job.WorkerFailed: killed by signal 9\n")
    late = "Job not requeued because: timed-out too many times."
    result(tmp_path, "1_2", "error", f"{trace}submitit.core.utils.UncompletedJobError: {late}\n")
    assert reason(tmp_path, "1_0", "COMPLETED") is None
    assert reason(tmp_path, "1_1", "FAILED") == "killed by signal 9"
    assert reason(tmp_path, "1_1", "UNKNOWN") == "killed by signal 9"
    assert reason(tmp_path, "1_1", "CANCELLED") == "cancelled"
    assert reason(tmp_path, "1_2", "FAILED") == REASONS["TIMEOUT"]


def test_reasons_of_exit_codes():
    codes = {0: None, 130: "interrupted", 2: "ended with exit code 2", -9: "killed by signal 9 (out of memory?)"}
    assert {code: exit_reason(code) for code in (*codes, -15)} == codes | {-15: "killed by signal 15"}


def test_the_options_are_those_of_submitit():
    submitit = pytest.importorskip("submitit")
    common = submitit.AutoExecutor._typed_parameters()
    replaced = {submitit.SlurmExecutor._equivalence_dict().get(name, name) for name in common}
    own = submitit.SlurmExecutor._valid_parameters() - replaced - {"num_gpus"}  # by its new name
    assert common == COMMON
    assert {*OF_SLURM} == own | {"max_num_timeout", "python"}
    assert OPTIONS.keys() == {*COMMON, *OF_SLURM, *(f"slurm_{name}" for name in OF_SLURM)}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mem_gb": "much"}, "hydra.launcher.mem_gb=much must be a number"),
        ({"nodes": 1.5}, "hydra.launcher.nodes=1.5 must be a whole number"),
        ({"partiton": "gpu"}, "unknown option 'hydra.launcher.partiton'; did you mean 'hydra.launcher.partition'?"),
    ],
)
def test_a_wrong_option_is_one_line(options: dict[str, Any], told: str):
    with pytest.raises(InputError) as raised:
        executor_options(options)
    assert str(raised.value) == told


def test_an_option_of_slurm_has_two_spellings():
    one = executor_options({"partition": "gpu", "mem_gb": 2, "cpus_per_task": 4})
    assert one == executor_options({"slurm_partition": "gpu", "mem_gb": 2, "cpus_per_task": 4})
    assert one == {
        "name": "diffexp",
        "timeout_min": 60,
        "stderr_to_stdout": True,
        "mem_gb": 2,
        "cpus_per_task": 4,
        "slurm_partition": "gpu",
        "slurm_srun_args": ["--cpus-per-task=4"],
    }


def test_a_machine_without_slurm_is_one_line(commands: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(InputError, match='hydra/launcher=slurm: Could not detect "srun"'):
        SlurmEngine()


def test_jobs_that_slurm_refuses_are_one_line(commands: Path, tmp_path: Path):
    pytest.importorskip("submitit")
    put(commands, "srun", "")
    put(commands, "sbatch", "echo 'sbatch: error: invalid partition specified: fast' >&2; exit 1")
    with pytest.raises(InputError) as raised:
        SlurmEngine(partition="fast").start(tmp_path, 2)
    assert str(raised.value) == "SLURM refused the jobs: sbatch: error: invalid partition specified: fast"


def test_a_job_that_submits_jobs_hides_what_is_its_own(monkeypatch: pytest.MonkeyPatch):
    job = {"SLURM_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "8"}
    for name, value in {**job, "SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "gpu"}.items():
        monkeypatch.setenv(name, value)
    with as_outside_of_jobs():
        assert not job.keys() & os.environ.keys()
        assert {"SLURM_CONF", "SBATCH_PARTITION"} <= os.environ.keys()
    assert job.items() <= os.environ.items()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SLURM_CPUS_PER_TASK": "3", "SLURM_CPUS_ON_NODE": "8"}, ("3", None)),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_NTASKS_PER_NODE": "4"}, ("2", None)),
        ({"CUDA_VISIBLE_DEVICES": "4,5,6,7", "SLURM_LOCALID": "2"}, ("1", "6")),
        ({"CUDA_VISIBLE_DEVICES": "5", "SLURM_LOCALID": "2"}, ("1", "5")),
    ],
)
def test_a_worker_has_the_share_of_its_task(
    variables: dict[str, str], expected: tuple[str, str | None], monkeypatch: pytest.MonkeyPatch
):
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_NTASKS_PER_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = task_environment()
    assert (found["SLURM_CPUS_PER_TASK"], found.get("CUDA_VISIBLE_DEVICES")) == expected


def test_no_jobs_are_refused():
    with pytest.raises(InputError, match=r"hydra.launcher.jobs=0 must be at least 1"):
        SlurmEngine(None, jobs=0)
