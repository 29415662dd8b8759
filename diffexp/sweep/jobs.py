"""A cell of a sweep before it runs: its number, its config and its folder, as Hydra makes them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf._utils import get_omega_conf_dumper

from diffexp.errors import InputError
from diffexp.files import write_text
from diffexp.levels import listed_steps
from diffexp.prompts import read_texts

try:
    from yaml import CDumper as Dumper
except ImportError:  # PyYAML without its C library
    from yaml import Dumper


IN_THE_NAME = ("model", "scheduler", "steps", "max_nfe")
SAMPLES, SAMPLES_OF_A_CHECKPOINT = 64, 4
"""How many are drawn where nobody says; a checkpoint may be large."""


@dataclass(frozen=True)
class Job:
    """One cell."""

    number: int
    config: dict[str, Any]
    """What ``run_experiment`` takes."""
    folder: Path
    composed: DictConfig
    """The same with Hydra's own settings, for its files and callbacks."""

    @property
    def overrides(self) -> list[str]:
        return list(OmegaConf.select(self.composed, "hydra.overrides.task", default=[]))

    @property
    def alone(self) -> bool:
        """Whether it changes what belongs to the whole process: the working folder, environment variables."""
        return bool(self.composed.hydra.job.chdir or self.composed.hydra.job.env_set)


def swept_words(jobs: Sequence[Job]) -> dict[int, str]:
    """By number of the cell, what tells it from the others and is not in the name of its folder."""
    words = {job.number: [w for w in job.overrides if w.partition("=")[0] not in IN_THE_NAME] for job in jobs}
    common = set.intersection(*map(set, words.values())) if words else set()
    return {number: " ".join(word for word in some if word not in common) for number, some in words.items()}


def compose_job(loader: ConfigLoader, master: DictConfig, number: int, overrides: Sequence[str]) -> Job:
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
        return Job(number, task_config(composed), folder, composed)


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
        task["num_samples"] = _usual_samples(task["model"]["name"], task["prompt"])
    return task


def steps_of(config: Mapping[str, Any] | DictConfig) -> int:
    """``steps``, unless the grid is a list."""
    listed = listed_steps(config["grid"].get("timesteps"), config["grid"].get("sigmas"))
    return config["steps"] if listed is None else listed


def _usual_samples(model: str, prompt: str | list[str] | None) -> int:
    """So many that the first pictures are soon there."""
    if model == "hub":
        return SAMPLES_OF_A_CHECKPOINT
    if model != "pipeline":
        return SAMPLES
    try:
        texts = read_texts("prompt", prompt)
    except InputError:  # the run says it
        return 1
    return len(texts) if isinstance(texts, list) else 1


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
