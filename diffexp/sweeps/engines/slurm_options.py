"""The options of SLURM jobs, under the names that submitit gives them."""

from collections.abc import Mapping
from typing import Any

from diffexp.errors import InputError, unknown_option

COMMON = {
    "name": str,
    "timeout_min": int,
    "mem_gb": float,
    "nodes": int,
    "cpus_per_task": int,
    "gpus_per_node": int,
    "tasks_per_node": int,
    "stderr_to_stdout": bool,
}
"""The parameters that all clusters of submitit's ``AutoExecutor`` have, and their types."""
OF_SLURM = (
    "account additional_parameters array_parallelism comment constraint cpus_per_gpu dependency exclude exclusive "
    "gpus_per_task gres mail_type mail_user max_num_timeout mem_per_cpu mem_per_gpu nodelist partition python qos "
    "setup signal_delay_s srun_args teardown use_srun wckey"
).split()
"""Those of SLURM, which ``AutoExecutor`` takes with ``slurm_`` before them and ``SlurmExecutor`` without."""
OPTIONS: dict[str, Any] = dict.fromkeys([*COMMON, *OF_SLURM, *(f"slurm_{name}" for name in OF_SLURM)])
"""All names with their defaults; None: submitit's default."""
OPTIONS |= {"name": "diffexp", "timeout_min": 60, "stderr_to_stdout": True}
WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def executor_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``AutoExecutor`` for options of either spelling.

    Raises:
        InputError: an option is not known, or has a value of another type.
    """
    for name, value in options.items():
        if name not in OPTIONS:
            raise InputError(unknown_option("hydra.launcher", name, [*COMMON, *OF_SLURM]))
        kind = COMMON.get(name, object)
        whole = kind is float and isinstance(value, int)
        if value is not None and not whole and not isinstance(value, kind):
            raise InputError(f"hydra.launcher.{name}={value} must be {WORDS[kind]}")
    given = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
    found = {name if name in COMMON else f"slurm_{name.removeprefix('slurm_')}": given[name] for name in given}
    if "cpus_per_task" in given:  # since SLURM 22.05 srun no longer takes them from sbatch
        found.setdefault("slurm_srun_args", [f"--cpus-per-task={given['cpus_per_task']}"])
    return found
