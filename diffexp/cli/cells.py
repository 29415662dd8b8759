"""One run or one cell of a sweep as Hydra composes it: number, config, folder, the files in ``.hydra/``, its start."""

import re
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.types import MISSING
from diffexp.cli.config import check_config
from diffexp.cli.hydra_internals import current_config, get_omega_conf_dumper
from diffexp.errors import InputError
from diffexp.experiment.configs import steps_of, usual_samples
from diffexp.experiment.lock import lock_unless_held
from diffexp.files import write_text
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.failures import Failure, clear_failure, record_failure
from diffexp.sweeps.objective import objective_value
from diffexp.sweeps.record import read_sweep

try:
    from yaml import CDumper as Dumper
except ImportError:  # PyYAML without its C library
    from yaml import Dumper

if TYPE_CHECKING:
    from diffexp.experiment.run import SweepInfo


def cell_name(*, _root_: DictConfig) -> str:
    """``<model>_<scheduler>_<steps>`` of a composed config, fit for a file name; under a budget ``nfe<max_nfe>``,
    ``passes<max_forward_passes>``.

    A scheduler that a ``_target_`` names is shown by its class.
    """
    choices = _root_.hydra.runtime.choices
    scheduler = str(choices.get("scheduler"))
    target = OmegaConf.select(_root_, f"scheduler.{TARGET}")
    budgets = {"nfe": _root_.max_nfe, "passes": _root_.max_forward_passes}
    limits = [f"{name}{most}" for name, most in budgets.items() if most is not None]
    cost = "_".join(limits or [str(steps_of(_root_))])
    parts = [str(choices.get("model")), str(target).rpartition(".")[2] if target else scheduler, cost]
    return "_".join(re.sub(r"[^\w.=+-]+", "-", part) for part in parts)


# On import, because a worker process composes the name of a cell's folder itself, and imports this to run the cell.
OmegaConf.register_new_resolver("diffexp.cell", cell_name, replace=True)
OmegaConf.register_new_resolver("diffexp.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)


@dataclass(frozen=True)
class ComposedCell(Cell):
    """A cell with its composed config, which has Hydra's own settings, for files and callbacks."""

    composed: DictConfig = field(kw_only=True)

    @property
    def alone(self) -> bool:
        """Whether the cell changes the working folder or environment variables, which all cells of a process share."""
        return bool(self.composed.hydra.job.chdir or self.composed.hydra.job.env_set)


def compose_job(loader: ConfigLoader, master: DictConfig, number: int, overrides: Sequence[str]) -> ComposedCell:
    """Compose the cell with these overrides, and set it up as ``hydra.core.utils.run_job`` does.

    Raises:
        hydra.errors.HydraException: the overrides do not fit.
    """
    composed = loader.load_sweep_config(master, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number
    with current_config(composed):
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        with open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder)
        words = tuple(OmegaConf.select(composed, "hydra.overrides.task", default=[]))
        return ComposedCell(number, task_config(composed), folder, words, composed=composed)


def task_config(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain containers, checked, without Hydra's own settings; with numbers of steps and samples.

    Raises:
        InputError: a wrong value, or an interpolation that cannot be resolved.
    """
    task = check_config({str(key): _resolved(config, str(key)) for key in config if key != "hydra"}, discover())
    task["steps"] = steps_of(task)
    if task["num_samples"] is None:
        task["num_samples"] = usual_samples(task["model"]["name"], task["prompt"])
    return task


def _resolved(config: DictConfig, key: str) -> Any:
    """The value of a top-level key in plain containers."""
    if OmegaConf.is_missing(config, key):
        return MISSING
    try:
        node = config[key]
        return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
    except InterpolationKeyError as error:
        siblings: Any = OmegaConf.to_container(error.parent_node or config)
        text, path = str(siblings[error.key]).strip("${}"), error.full_key
        raise InputError(f"{path} is that of {text}, which is not there; give {path}=...") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{key}: {str(error).partition(chr(10))[0]}") from error


def save_hydra_files(config: DictConfig, folder: Path) -> None:
    """Write the ``.hydra`` folder that Hydra writes for a run on the command line."""
    own = OmegaConf.to_container(config, enum_to_str=True)
    assert isinstance(own, dict)
    hydra = own.pop("hydra")
    files = {"config": own, "hydra": {"hydra": hydra}, "overrides": hydra["overrides"]["task"]}
    for name, content in files.items():
        text = yaml.dump(content, Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)
        write_text(folder / ".hydra" / f"{name}.yaml", text)


class _Dumper(Dumper):  # pyright: ignore[reportGeneralTypeIssues]
    """Writes what ``OmegaConf.to_yaml`` writes, ten times as fast where PyYAML has its C library."""


_Dumper.add_representer(str, get_omega_conf_dumper().str_representer)


@dataclass
class Task:
    """The task function of Hydra: runs one composed config, in this process or in a worker."""

    catalog: Catalog
    """Found before the first cell, so that a plugin may be edited while a sweep runs."""
    failures: list[Failure] = field(default_factory=list)
    """Failures of the runs in this process; those in workers are read from their folders."""
    ending: ExitStack = field(default_factory=ExitStack)
    """What a launcher does after the last cell; Hydra does not tell it."""

    def __call__(self, config: DictConfig) -> float | None:
        """Run the config; returns the value of its ``objective``, for a sweeper that searches."""
        from diffexp.experiment.finished import finished_run

        settings = HydraConfig.get()
        folder, task = Path(settings.runtime.output_dir), task_config(config)
        sweep = None
        if settings.mode == RunMode.MULTIRUN:
            sweep = sweep_info(Path(settings.sweep.dir).absolute(), int(settings.job.num))
        try:
            with lock_unless_held(folder):
                if not (sweep and sweep.resumed and finished_run(folder)):
                    clear_failure(folder)
                    from diffexp.experiment.run import run_experiment

                    run_experiment(task, folder, self.catalog, sweep)
                clear_failure(folder)  # perhaps of another process, which found the folder in use
        except Exception as error:  # the other cells of a sweep continue
            self.failures.append(record_failure(folder, error))
        return objective_value(task, folder)


def sweep_info(sweep: Path, number: int) -> "SweepInfo":
    """The facts about its sweep that a cell's run needs."""
    from diffexp.experiment.run import SweepInfo

    record = read_sweep(sweep)
    if record is None:
        return SweepInfo(sweep, number)
    return SweepInfo(sweep, number, resumed=record.attempts > 1, swept=record.swept)
