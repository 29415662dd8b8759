"""Runs a checked command: one run, or the cells of a sweep, in this process or wherever Hydra's launcher puts them."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffexp.config import CONFIG_NAME, hydra_session
from diffexp.discovery import Catalog, discover
from diffexp.errors import InputError
from diffexp.files import write_json
from diffexp.preflight import Checked, Preflight
from diffexp.sources import VARIABLE
from diffexp.sweep.results import write_results

if TYPE_CHECKING:
    from diffexp.experiment import RunResult

FAILURE = ".hydra/failure.json"
TRACEBACKS = logging.getLogger("errors")
"""Not below "diffexp", whose messages go to the terminal: a traceback belongs in diffexp.log."""


@dataclass(frozen=True)
class Failure:
    """How a cell failed, in a form that crosses processes as a file."""

    folder: str
    message: str
    input_error: bool


FAILED_HERE: list[Failure] = []
"""Those of this process; where a cell's folder cannot even take a file, this is what is left."""


def run(overrides: list[str]) -> "RunResult":
    """Run one experiment from Python: ``diffexp.run(["scheduler=euler", "steps=20"])``.

    Writes the same folder as the command does.

    Raises:
        InputError: as on the command line, where it is one line and exit code 2.
    """
    catalog = discover()
    with hydra_session(catalog) as hydra:
        checked = Preflight(hydra, catalog).check(list(overrides), multirun=False)
        if checked.multirun:
            raise InputError("a sweep is started from the command line: python -m diffexp -m ...")
        HydraConfig.instance().set_config(checked.config)
        folder = Path(checked.config.hydra.run.dir).absolute()
        claim(folder)
        _save_hydra_files(checked.config, folder)
        from diffexp.experiment import run_experiment

        with _log_file(folder / "diffexp.log"):
            return run_experiment(task_config(checked.config), folder, catalog)


def launch(hydra: Hydra, checked: Checked, overrides: list[str], catalog: Catalog) -> tuple[Path, list[Failure]]:
    """Let Hydra run a checked command line; of a sweep, the table of its results is written too.

    Returns:
        The run's or the sweep's folder, and what failed.

    Raises:
        InputError: the output folder cannot be written.
        KeyboardInterrupt: with the folder, after the table of results has been written.
    """
    FAILED_HERE.clear()
    _catalog.cache_clear()
    # Workers find the same plugins, wherever they are started.
    with env_override({VARIABLE: os.pathsep.join(map(str, catalog.plugin_paths))}):
        return _launch(hydra, checked, overrides)


def _launch(hydra: Hydra, checked: Checked, overrides: list[str]) -> tuple[Path, list[Failure]]:
    HydraConfig.instance().set_config(checked.config)
    if not checked.multirun:
        folder = Path(checked.config.hydra.run.dir).absolute()
        claim(folder)
        try:
            hydra.run(CONFIG_NAME, job, [*overrides, _override("hydra.run.dir", folder)])
        except KeyboardInterrupt:
            raise KeyboardInterrupt(str(folder)) from None
        return folder, list(FAILED_HERE)
    folder = Path(checked.config.hydra.sweep.dir).absolute()
    if not any(text.startswith("hydra.sweep.dir=") for text in overrides):
        folder = _unused(folder)
    claim(folder)
    try:
        hydra.multirun(CONFIG_NAME, job, [*overrides, "hydra.mode=MULTIRUN", _override("hydra.sweep.dir", folder)])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(str(folder)) from None
    finally:
        write_results(folder)
    return folder, _read_failures(folder)


def job(config: DictConfig) -> None:
    """What Hydra calls for each run; also in worker processes, so it finds everything anew."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    (folder / FAILURE).unlink(missing_ok=True)
    from diffexp.experiment import SweepInfo, run_experiment

    sweep = None
    if settings.mode == RunMode.MULTIRUN:
        sweep = SweepInfo(Path(settings.sweep.dir).absolute(), int(settings.job.num))
    try:
        run_experiment(task_config(config), folder, _catalog(), sweep)
    except Exception as error:  # the other cells of a sweep go on
        TRACEBACKS.error("the run failed", exc_info=error)
        known = isinstance(error, InputError)
        text = " ".join(str(error).split()) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
        _record(Failure(str(folder), text, known))


def claim(folder: Path) -> None:
    """Make a folder and see that it takes files.

    Raises:
        InputError: it does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        advice = "choose another with hydra.run.dir=... or hydra.sweep.dir=..."
        raise InputError(f"the output folder {folder} cannot be written: {error.strerror}; {advice}") from error


@cache
def _catalog() -> Catalog:
    return discover()


def _record(failure: Failure) -> None:
    FAILED_HERE.append(failure)
    try:
        write_json(Path(failure.folder) / FAILURE, asdict(failure))
        run_file = Path(failure.folder) / "run.json"
        if not run_file.exists():  # it failed before the experiment began
            write_json(run_file, {"status": "failed", "error": failure.message})
    except OSError as error:
        TRACEBACKS.error("the failure could not be recorded", exc_info=error)


def _read_failures(sweep: Path) -> list[Failure]:
    found = {failure.folder: failure for failure in FAILED_HERE}
    for file in sweep.glob(f"*/{FAILURE}"):
        failure = Failure(**json.loads(file.read_text(encoding="utf-8")))
        found[failure.folder] = failure
    return [found[folder] for folder in sorted(found)]


def _unused(folder: Path) -> Path:
    """Two sweeps may start in the same second; the later one takes another name."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def _override(key: str, folder: Path) -> str:
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{text}'"


def task_config(config: DictConfig) -> dict[str, Any]:
    content = {key: value for key, value in config.items_ex(resolve=False) if key != "hydra"}
    resolved = OmegaConf.to_container(OmegaConf.create(content), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _save_hydra_files(config: DictConfig, folder: Path) -> None:
    """The ``.hydra`` folder that Hydra writes for a run on the command line."""
    (folder / ".hydra").mkdir(exist_ok=True)
    OmegaConf.save(OmegaConf.create(task_config(config)), folder / ".hydra" / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": config.hydra}), folder / ".hydra" / "hydra.yaml")
    OmegaConf.save(config.hydra.overrides.task, folder / ".hydra" / "overrides.yaml")


@contextmanager
def _log_file(file: Path) -> Iterator[None]:
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"))
    logger = logging.getLogger("diffexp")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
