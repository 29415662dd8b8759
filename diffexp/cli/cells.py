"""One run or one cell of a sweep as Hydra composes it: number, config, folder, its start."""

import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.types import MISSING
from diffexp.cli.config import check_config
from diffexp.cli.hydra_internals import current_config
from diffexp.errors import InputError
from diffexp.experiment.configs import steps_of, usual_samples
from diffexp.experiment.lock import lock_unless_held
from diffexp.sweeps.cell import IN_THE_NAME, MOST_OF_A_NAME, Cell, name_part, short_keys
from diffexp.sweeps.failures import Failure, clear_failure, record_failure
from diffexp.sweeps.objective import objective_value
from diffexp.sweeps.record import read_sweep

if TYPE_CHECKING:
    from diffexp.experiment.context import RunContext
    from diffexp.experiment.run import SweepInfo


OWN_SUBDIR = "${hydra.job.num}_${diffexp.cell:}"
"""``hydra.sweep.subdir`` of ``conf/config.yaml``, in place of which a sweep has ``cell_subdir``."""
_SAFE_KEY = re.compile(r"\w[\w./-]*", re.ASCII)
_OWN_NAME = re.compile(r'\$\{diffexp\.number:(?P<width>\d+)\}_\$\{diffexp\.cell:(?P<keys>["\w./,-]*)\}', re.ASCII)


def cell_subdir(cells: int | None, swept: Collection[str]) -> str:
    """``hydra.sweep.subdir`` for a sweep: numbers that sort as text, and the values of all swept keys.

    Args:
        cells: how many there are, where that is known.
        swept: the keys whose values differ between cells.
    """
    width = 3 if cells is None else len(str(max(0, cells - 1)))
    keys = ",".join(sorted(f'"{key}"' for key in swept if _SAFE_KEY.fullmatch(key)))
    return f"${{diffexp.number:{width}}}_${{diffexp.cell:{keys}}}"


def own_folder_name(subdir: str, number: int, content: Mapping[str, Any]) -> str | None:
    """What a ``cell_subdir`` is for a cell, without its interpolations being parsed; None for any other ``subdir``.

    Args:
        content: the config of the cell, in plain containers without interpolations.
    """
    own = _OWN_NAME.fullmatch(subdir)
    if own is None:
        return None
    swept = [key.strip('"') for key in own["keys"].split(",") if key]
    return f"{number:0{own['width']}d}_{cell_name(*swept, _root_=content)}"


def cell_name(*swept: str, _root_: Mapping[Any, Any]) -> str:
    """``<model>_<scheduler>_<steps>`` of a composed config, fit for a file name; under a budget ``nfe<max_nfe>``,
    ``passes<max_forward_passes>``. Other keys follow as ``seed1`` or ``grid-karras``.

    A scheduler that a ``_target_`` names is shown by its class.

    Args:
        swept: keys whose values are to be in the name.
        _root_: the config, which may be plain containers where it has no interpolations.
    """
    choices = _root_["hydra"]["runtime"]["choices"]
    scheduler = str(choices.get("scheduler"))
    target = _value(_root_, f"scheduler.{TARGET}")
    budgets = {"nfe": _root_["max_nfe"], "passes": _root_["max_forward_passes"]}
    limits = [f"{name}{most}" for name, most in budgets.items() if most is not None]
    cost = "_".join(limits or [str(steps_of(_root_))])
    parts = [str(choices.get("model")), str(target).rpartition(".")[2] if target else scheduler, cost]
    shown = {*IN_THE_NAME, f"scheduler.{TARGET}"} - ({"steps"} if limits else set())
    names = short_keys([key for key in swept if key not in shown])
    more = [name_part(name, value) for key, name in names.items() if (value := _value(_root_, key)) is not None]
    name = "_".join(re.sub(r"[^\w.=+-]+", "-", part) for part in (*parts, *more))
    return name.encode()[:MOST_OF_A_NAME].decode(errors="ignore").rstrip(".-_")


def _value(config: Mapping[Any, Any], key: str) -> Any:
    """The value of a key in plain containers, of a group its choice; None where it has none."""
    chosen = config["hydra"]["runtime"]["choices"].get(key)
    if chosen is not None:
        return str(chosen)
    if not isinstance(config, DictConfig):
        found = value_at(config, key)
        return None if found == MISSING else found
    found = OmegaConf.select(config, key)
    return OmegaConf.to_container(found, resolve=True) if OmegaConf.is_config(found) else found


def value_at(content: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none."""
    for part in path.split("."):
        if isinstance(content, list) and part.isdecimal() and int(part) < len(content):
            content = content[int(part)]
        elif isinstance(content, Mapping) and part in content:
            content = content[part]
        else:
            return None
    return content


def cell_number(width: int, *, _root_: DictConfig) -> str:
    """The number of a cell with so many digits that the names of all cells sort."""
    return f"{_root_.hydra.job.num:0{width}d}"


# On import, because a worker process composes the name of a cell's folder itself, and imports this to run the cell.
OmegaConf.register_new_resolver("diffexp.cell", cell_name, replace=True)
OmegaConf.register_new_resolver("diffexp.number", cell_number, replace=True)
OmegaConf.register_new_resolver("diffexp.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)


@dataclass(frozen=True)
class Place:
    """Where a cell runs."""

    folder: Path
    sweep: Path
    """``hydra.sweep.dir``."""
    alone: bool
    """Whether the cell changes the working folder or environment variables, which all cells of a process share."""

    def of(self, name: str) -> "Place":
        """That of another cell, whose folder has this name."""
        return replace(self, folder=(self.sweep / name).absolute())


@dataclass(frozen=True)
class ComposedCell(Cell):
    """A cell with its composed config, which has Hydra's own settings, for files and callbacks."""

    place: Place = field(kw_only=True)
    make: Callable[[], DictConfig] = field(kw_only=True, repr=False, compare=False)
    unresolved: Callable[[], dict[str, Any]] = field(kw_only=True, repr=False, compare=False)

    @cached_property
    def composed(self) -> DictConfig:
        """The composed config, made where it is wanted: the containers of ``content`` are much faster."""
        return self.make()

    @property
    def content(self) -> dict[str, Any]:
        """The composed config in containers, with its interpolations as they were written."""
        changeable = "composed" in vars(self)  # by callbacks
        return as_containers(self.composed) if changeable else self.unresolved()


def compose_job(
    loader: ConfigLoader, master: DictConfig, number: int, overrides: Sequence[str], catalog: Catalog
) -> ComposedCell:
    """Compose the cell with these overrides by Hydra, and set it up as ``hydra.core.utils.run_job`` does.

    Raises:
        hydra.errors.HydraException: the overrides do not fit.
        InputError: a wrong value, or an interpolation that cannot be resolved.
    """
    composed = loader.load_sweep_config(master, list(overrides))
    with set_up(composed, number) as place:
        return ComposedCell(
            number,
            task_config(composed, catalog),
            place.folder,
            tuple(composed.hydra.overrides.task),
            place=place,
            make=lambda: composed,
            unresolved=lambda: as_containers(composed),
        )


@contextmanager
def set_up(composed: DictConfig, number: int) -> Iterator[Place]:
    """Set what depends on the number and the folder of a composed cell, Hydra's config until the block ends."""
    hydra = composed.hydra
    with open_dict(composed):
        hydra.job.id, hydra.job.num, hydra.runtime.output_dir = str(number), number, MISSING
    with current_config(composed):
        sweep = Path(hydra.sweep.dir)
        folder = Path(sweep, hydra.sweep.subdir).absolute()
        with open_dict(composed):
            hydra.runtime.output_dir = str(folder)
        yield Place(folder, sweep.absolute(), alone=bool(hydra.job.chdir or hydra.job.env_set))


def as_containers(config: DictConfig) -> dict[str, Any]:
    """A config in plain containers, with its interpolations as they were written."""
    found = OmegaConf.to_container(config, enum_to_str=True)
    assert isinstance(found, dict)
    return cast("dict[str, Any]", found)


def task_config(config: DictConfig, catalog: Catalog | None = None) -> dict[str, Any]:
    """A composed config as plain containers, checked, without Hydra's own settings; with numbers of steps and samples.

    Args:
        catalog: everything that can be chosen; None: as it is now.

    Raises:
        InputError: a wrong value, or an interpolation that cannot be resolved.
    """
    catalog = catalog or discover()
    return with_counts(check_config(resolved_task(config), catalog), catalog)


def with_counts(task: Mapping[str, Any], catalog: Catalog) -> dict[str, Any]:
    """A checked config with numbers of steps and samples."""
    samples = task["num_samples"]
    if samples is None:
        samples = usual_samples(task["model"]["name"], task["prompt"], catalog)
    return {**task, "steps": steps_of(task), "num_samples": samples}


def resolved_task(config: DictConfig) -> dict[str, Any]:
    """The values of the top-level keys, but for Hydra's own, in plain containers.

    Raises:
        InputError: an interpolation cannot be resolved.
    """
    return {str(key): resolved(config, str(key)) for key in config if key != "hydra"}


def resolved(config: DictConfig, key: str) -> Any:
    """The value of a top-level key in plain containers.

    Raises:
        InputError: an interpolation cannot be resolved.
    """
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


@dataclass
class Task:
    """The task function of Hydra: runs one composed config, in this process or in a worker."""

    catalog: Catalog
    """Found before the first cell, so that a plugin may be edited while a sweep runs."""
    failures: list[Failure] = field(default_factory=list)
    """Failures of the runs in this process; those in workers are read from their folders."""
    context: "RunContext | None" = None
    """See ``run_experiment``."""
    ending: ExitStack = field(default_factory=ExitStack)
    """What a launcher does after the last cell; Hydra does not tell it."""

    def __call__(self, config: DictConfig) -> float | None:
        """Run the config; returns the value of its ``objective``, for a sweeper that searches."""
        from diffexp.experiment.finished import finished_run

        settings = HydraConfig.get()
        folder, task = Path(settings.runtime.output_dir), task_config(config, self.catalog)
        sweep = None
        if settings.mode == RunMode.MULTIRUN:
            sweep = sweep_info(Path(settings.sweep.dir).absolute(), int(settings.job.num))
        try:
            with lock_unless_held(folder):
                if not (sweep and sweep.resumed and finished_run(folder)):
                    clear_failure(folder)
                    from diffexp.experiment.run import run_experiment

                    run_experiment(task, folder, self.catalog, sweep, self.context)
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
