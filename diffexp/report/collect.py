"""Collection of the runs that a report compares."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from diffexp.errors import InputError
from diffexp.experiment.configs import differing_keys
from diffexp.report.axes import GROUPS, option_of
from diffexp.sweeps.results import CellResult, is_run, read_cell, read_cells


def collect(folders: Sequence[Path]) -> list[CellResult]:
    """Read the runs in these folders, each once: folders of runs, of sweeps, or folders that contain such folders.

    Raises:
        InputError: a folder contains no runs.
    """
    found: dict[Path, CellResult] = {}
    for folder in folders:
        cells = _in_folder(folder)
        if not cells:
            raise InputError(
                f"{folder} contains no runs; give the folders of runs or sweeps, as in outputs/multirun/..."
            )
        found |= {cell.folder.resolve(): cell for cell in cells}
    return list(found.values())


def _in_folder(folder: Path) -> list[CellResult]:
    if (folder / "run.json").is_file() or is_run(folder):
        return [read_cell(folder)]
    runs = {path.parent for name in (".hydra", "run.json") for path in folder.rglob(name)}
    sweeps = sorted({run.parent for run in runs if is_run(run)})
    return [cell for sweep in sweeps for cell in _of_sweep(sweep)]


def _of_sweep(sweep: Path) -> list[CellResult]:
    cells = read_cells(sweep)
    begun = [cell.config for cell in cells if cell.config]
    return [cell if cell.config else replace(cell, config=_expected_config(cell.overrides, begun)) for cell in cells]


def _expected_config(overrides: Sequence[str], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The config of a cell that never began, as far as its overrides and the other cells determine it."""
    if not others:
        return {}
    differing = set(differing_keys(others))
    config = {key: value for key, value in others[0].items() if key not in differing}
    for word in overrides:
        key, _, text = word.lstrip("+").partition("=")
        value = _value(text)
        if key in GROUPS:
            alike = next((other for other in others if option_of(other, key) == str(value)), {f"{key}.name": value})
            config |= {own: value for own, value in alike.items() if own.startswith(f"{key}.")}
        elif key != "experiment":
            config[key] = value
    return config


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
