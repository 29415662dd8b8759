"""Which runs a report is about."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from diffexp.errors import InputError
from diffexp.experiment.configs import differing_keys
from diffexp.report.axes import GROUPS, option_of
from diffexp.sweeps.results import Cell, read_cell, read_cells


def collect(folders: Sequence[Path]) -> list[Cell]:
    """The runs in these folders, each once: of runs, of sweeps, or of anything that has such below it.

    Raises:
        InputError: a folder has none.
    """
    found: dict[Path, Cell] = {}
    for folder in folders:
        cells = _in_folder(folder)
        if not cells:
            raise InputError(f"{folder} holds no runs; give the folders of runs or sweeps, as in outputs/multirun/...")
        found |= {cell.folder.resolve(): cell for cell in cells}
    return list(found.values())


def _in_folder(folder: Path) -> list[Cell]:
    if (folder / "run.json").is_file() or (folder / ".hydra").is_dir():
        return [read_cell(folder)]
    sweeps = sorted({hidden.parent.parent for hidden in folder.rglob(".hydra")})
    return [cell for sweep in sweeps for cell in _of_sweep(sweep)]


def _of_sweep(sweep: Path) -> list[Cell]:
    cells = read_cells(sweep)
    begun = [cell.config for cell in cells if cell.config]
    return [cell if cell.config else replace(cell, config=_asked(cell.overrides, begun)) for cell in cells]


def _asked(overrides: Sequence[str], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The config of a cell that never began, as far as its command line and the other cells tell."""
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
