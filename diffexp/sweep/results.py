"""``results.csv``: one row per cell of a multirun."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diffexp.files import write_text

NAME = "results.csv"


@dataclass(frozen=True)
class Cell:
    """One run of a multirun, read back from its folder."""

    folder: Path
    overrides: tuple[str, ...]
    status: str
    error: str | None
    config: Mapping[str, Any]
    """Flat: ``{"scheduler.name": "ddim", ...}``."""
    metrics: Mapping[str, float]


def read_cells(sweep: Path) -> list[Cell]:
    """The cells below a sweep folder, in the order of their numbers; a cell that never started is ``missing``."""
    folders = [path.parent for path in sweep.glob("*/.hydra")]
    return [_read_cell(folder) for folder in sorted(folders, key=_number)]


def write_results(sweep: Path) -> Path | None:
    """Write the table; None where there is no cell yet.

    Columns: ``cell``, ``overrides``, every config key in which the cells differ, ``status``, ``error``, every metric,
    ``folder`` (relative to the sweep).
    """
    cells = read_cells(sweep)
    if not cells:
        return None
    keys = differing_keys([cell.config for cell in cells if cell.config])
    metrics = list(dict.fromkeys(name for cell in cells for name in cell.metrics))
    taken = {"cell", "overrides", "status", "error", "folder", *metrics}
    titles = {key: f"config.{key}" if key in taken else key for key in keys}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["cell", "overrides", *titles.values(), "status", "error", *metrics, "folder"])
    for cell in cells:
        writer.writerow(
            [
                _number(cell.folder)[0],
                " ".join(cell.overrides),
                *(_shown(cell.config.get(key)) for key in keys),
                cell.status,
                cell.error or "",
                *(_shown(cell.metrics.get(name)) for name in metrics),
                cell.folder.name,
            ]
        )
    write_text(sweep / NAME, text.getvalue())
    return sweep / NAME


def differing_keys(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of flat configs that do not have the same value everywhere."""
    keys = dict.fromkeys(key for config in configs for key in config)
    return [key for key in keys if any(config.get(key) != configs[0].get(key) for config in configs)]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted keys; lists stay as they are."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _read_cell(folder: Path) -> Cell:
    run = _read(folder / "run.json")
    metrics = _read(folder / "metrics.json")
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8")) or []
    return Cell(
        folder=folder,
        overrides=tuple(map(str, overrides)),
        status=run.get("status", "missing"),
        error=run.get("error"),
        config=flat(run.get("config") or {}),
        metrics=metrics,
    )


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _number(folder: Path) -> tuple[int, str]:
    head = folder.name.partition("_")[0]
    return (int(head) if head.isdigit() else 1 << 30, folder.name)


def _shown(value: Any) -> str:
    return "" if value is None else json.dumps(value) if isinstance(value, list | dict) else str(value)
