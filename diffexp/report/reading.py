"""Which runs a report is about."""

from collections.abc import Sequence
from pathlib import Path

from diffexp.errors import InputError
from diffexp.sweep.results import Cell, read_cell, read_cells


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
    return [cell for sweep in sweeps for cell in read_cells(sweep)]
