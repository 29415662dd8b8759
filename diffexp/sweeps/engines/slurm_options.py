"""The options of SLURM jobs, under the names that submitit gives them."""

from collections.abc import Mapping
from typing import Any

from diffexp.sweeps.engines.options import Rule, check_options

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
_KINDS: dict[str, type] = {
    **dict.fromkeys(OF_SLURM, str),
    **dict.fromkeys(("array_parallelism", "cpus_per_gpu", "gpus_per_task", "max_num_timeout", "signal_delay_s"), int),
    **dict.fromkeys(("setup", "srun_args", "teardown"), list),
    "additional_parameters": dict,
    "use_srun": bool,
    **COMMON,
}
_LEAST = {
    **dict.fromkeys(
        ("timeout_min", "nodes", "cpus_per_task", "tasks_per_node", "cpus_per_gpu", "array_parallelism"), 1
    ),
    **dict.fromkeys(("gpus_per_node", "gpus_per_task", "max_num_timeout", "signal_delay_s"), 0),
}
_RULES = {name: Rule(kind, _LEAST.get(name), 0 if name == "mem_gb" else None) for name, kind in _KINDS.items()}
RULES = {name: _RULES[name.removeprefix("slurm_")] for name in OPTIONS}
"""What the options may be."""


def executor_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of ``AutoExecutor`` for options of either spelling.

    Raises:
        InputError: an option is not known, or has a value of another type.
    """
    check_options(RULES, options, _KINDS)
    given = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
    found = {name if name in COMMON else f"slurm_{name.removeprefix('slurm_')}": given[name] for name in given}
    if "cpus_per_task" in given:  # since SLURM 22.05 srun no longer takes them from sbatch
        found.setdefault("slurm_srun_args", [f"--cpus-per-task={given['cpus_per_task']}"])
    return found
