"""Collection of the runs that a report compares."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from diffexp.errors import InputError
from diffexp.experiment.configs import differing_keys
from diffexp.report.axes import GROUPS, option_of
from diffexp.sweeps.results import CellResult, is_run, read_cell, read_cells

Read = Callable[[Path], CellResult]
"""Reads a run from its folder."""


def collect(folders: Sequence[Path]) -> list[CellResult]:
    """Read the runs in these folders, each once: folders of runs, of sweeps, or folders that contain such folders.

    Raises:
        InputError: a folder contains no runs.
    """
    found: dict[Path, CellResult] = {}
    for folder in folders:
        cells = runs_in(folder)
        if not cells:
            raise InputError(
                f"{folder} contains no runs; give the folders of runs or sweeps, as in outputs/multirun/..."
            )
        found |= {cell.folder.resolve(): cell for cell in cells}
    return list(found.values())


def runs_in(folder: Path, read: Read = read_cell) -> list[CellResult]:
    """The run in a folder, or those below it, of a sweep in the order of their numbers; links are not followed.

    Args:
        read: called for every run that has begun.
    """
    if (folder / "run.json").is_file() or is_run(folder):
        return [read(folder)]
    sweeps = sorted({run.parent for run in _folders_of_runs(folder) if is_run(run)})
    return [cell for sweep in sweeps for cell in cells_of_sweep(sweep, read)]


def cells_of_sweep(sweep: Path, read: Read = read_cell) -> list[CellResult]:
    """The cells of a sweep; one that never began has the config that its overrides and the other cells determine."""
    cells = read_cells(sweep, read)
    begun = [cell.config for cell in cells if cell.config]
    if not begun or len(begun) == len(cells):
        return cells
    common = _common_config(begun)
    chosen = {group: {option_of(config, group): config for config in reversed(begun)} for group in GROUPS}
    return [
        cell if cell.config else replace(cell, config=_expected_config(cell.overrides, common, chosen))
        for cell in cells
    ]


def _folders_of_runs(folder: Path) -> Iterator[Path]:
    """The folders below one that have files of a run; what is in the subfolders of such a folder may be many files."""
    for place, names, files in os.walk(folder):
        if "run.json" in files or ".hydra" in names:
            yield Path(place)
            names[:] = [name for name in names if name not in ("samples", "wandb") and not name.startswith(".")]


def _common_config(configs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys in which all configs agree."""
    differing = set(differing_keys(configs))
    return {key: value for key, value in configs[0].items() if key not in differing}


def _expected_config(
    overrides: Sequence[str], common: Mapping[str, Any], chosen: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """The config of a cell that never began, as far as its overrides and the other cells determine it.

    Args:
        chosen: by group and option the config of a cell that has begun with it.
    """
    config = dict(common)
    for word in overrides:
        key, _, text = word.lstrip("+").partition("=")
        value = _value(text)
        if key in GROUPS:
            alike = chosen[key].get(str(value), {f"{key}.name": value})
            config |= {own: value for own, value in alike.items() if own.startswith(f"{key}.")}
        elif key != "experiment":
            config[key] = value
    return config


@lru_cache(maxsize=4096)
def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text
