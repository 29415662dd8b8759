"""The cells of a sweep as Hydra composes them: number, config, folder, and the files in ``.hydra/``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf._utils import get_omega_conf_dumper

from diffexp.experiment.configs import steps_of, usual_samples
from diffexp.files import write_text
from diffexp.sweeps.cell import Cell

try:
    from yaml import CDumper as Dumper
except ImportError:  # PyYAML without its C library
    from yaml import Dumper


@dataclass(frozen=True)
class ComposedCell(Cell):
    """A cell with Hydra's own settings, for its files and callbacks."""

    composed: DictConfig = field(kw_only=True)

    @property
    def alone(self) -> bool:
        """Whether it changes what belongs to the whole process: the working folder, environment variables."""
        return bool(self.composed.hydra.job.chdir or self.composed.hydra.job.env_set)


def compose_job(loader: ConfigLoader, master: DictConfig, number: int, overrides: Sequence[str]) -> ComposedCell:
    """The cell with these overrides, as ``hydra.core.utils.run_job`` would set it up.

    Raises:
        hydra.errors.HydraException: the overrides do not fit.
    """
    composed = loader.load_sweep_config(master, list(overrides))
    with open_dict(composed):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number
    with _current(composed):
        folder = Path(composed.hydra.sweep.dir, composed.hydra.sweep.subdir).absolute()
        with open_dict(composed):
            composed.hydra.runtime.output_dir = str(folder)
        words = tuple(OmegaConf.select(composed, "hydra.overrides.task", default=[]))
        return ComposedCell(number, task_config(composed), folder, words, composed=composed)


@contextmanager
def _current(composed: DictConfig) -> Iterator[None]:
    """What ``${hydra:...}`` stands for."""
    here = HydraConfig.instance()
    before, here.cfg = here.cfg, composed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        here.cfg = before


def task_config(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain containers, without Hydra's own settings, with the number of steps and of samples."""
    nodes = {str(key): config[key] for key in config if key != "hydra"}
    task: dict[str, Any] = {
        key: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in nodes.items()
    }
    task["steps"] = steps_of(task)
    if task["num_samples"] is None:
        task["num_samples"] = usual_samples(task["model"]["name"], task["prompt"])
    return task


def save_hydra_files(config: DictConfig, folder: Path) -> None:
    """The ``.hydra`` folder that Hydra writes for a run on the command line."""
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
