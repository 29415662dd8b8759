"""What the scripts of the page know of the cells, as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffexp.experiment.configs import differing_keys
from diffexp.experiment.media_files import media_files
from diffexp.experiment.sample_files import SAMPLES_DIR
from diffexp.experiment.tracking import IMAGES
from diffexp.report.axes import PHRASES, Axis
from diffexp.report.content import Report
from diffexp.report.quality import Answer
from diffexp.report.ranking import BEST, Ranking
from diffexp.report.thumbnails import Thumbnails
from diffexp.report.warnings import condition_names
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import COSTS, SHORT_COSTS, Value, cost_of, value_of

MAX_LISTED = 6
"""Up to so many cells that do not differ from the best are listed; of more, the number."""


def page_data(report: Report) -> Mapping[str, Any]:
    """The content of the page for its scripts; numbers have six significant digits."""
    thumbnails = report.thumbnails
    return {
        "axes": [_axis(axis) for axis in report.placement.axes],
        "cells": [_cell(report, i) for i in range(len(report.cells))],
        "ids": _ids(report),
        "keys": _numeric_keys(report),
        "metrics": report.metrics,
        "costs": COSTS,
        "short": SHORT_COSTS,
        "cost": report.cost,
        "common": report.common,
        "title": report.title,
        "conditions": condition_names(report.conditions),
        "samples": thumbnails.samples,
        "available": thumbnails.available,
        "files": thumbnails.files,
        "side": thumbnails.side,
        "shrunk": report.shrunk,
        "qualities": [{"name": quality.name, "higher": quality.higher} for quality in report.qualities],
        "marks": _marks(report),
        "answers": {
            f"{quality.name} {cost}": [_answer(answer) for answer in report.answers(quality, cost)]
            for quality in report.qualities
            for cost in COSTS
        },
        "pairs": {
            quality.name: [
                [
                    *(d.first, d.second),
                    *(float(f"{n:.4g}") for n in (d.difference, d.low, d.high, d.p, d.p_holm)),
                    d.needed_text,
                ]
                for d in found
            ]
            for quality, found in report.comparisons
        },
    }


def _cell(report: Report, number: int) -> dict[str, Any]:
    cell, thumbnails = report.cells[number], report.thumbnails
    folders = thumbnails.folders[number] if cell.members else ()
    return {
        "label": report.labels[number],
        "place": report.placement.places[number],
        "condition": report.conditions.of_cell[number],
        "status": cell.status,
        "error": cell.error,
        "link": report.links[number],
        "seeds": len(cell.members),
        "links": [report.link(folder) for folder in folders],
        "commands": {report.link(run.folder): run.record.get("command") or "" for run in cell.runs},
        "pictures": thumbnails.images[number] if thumbnails.images else [],
        "files": thumbnails.has_files[number],
        "films": _films(cell),
        "media": _media(thumbnails, number),
        "values": _values(report, cell),
    }


def _values(report: Report, cell: CellResult) -> dict[str, list[float]]:
    """The metrics of a cell, and those costs that its record knows without the metric ``cost``."""
    found = {name: _value(value) for name in report.metrics if (value := value_of(cell, name))}
    costs = {name: cost_of(cell, name) for name in COSTS if name not in found}
    return found | {name: _value(Value(cost)) for name, cost in costs.items() if cost is not None}


def _films(cell: CellResult) -> list[str]:
    """The pictures of the trajectory that a run has: a film strip and an animation."""
    names = (IMAGES["animation"], IMAGES["trajectory"])
    return [name for name in names if (cell.folder / name).is_file()]


def _media(thumbnails: Thumbnails, number: int) -> list[str | None]:
    """For each of the samples in the page the video or sound of a cell, relative to its run's folder."""
    found: list[str | None] = []
    for file, folder in zip(thumbnails.files, thumbnails.folders[number] if thumbnails.folders else ()):
        stem = Path(file).stem
        files = media_files(folder / SAMPLES_DIR, int(stem)) if stem.isdecimal() else ()
        found.append(f"{SAMPLES_DIR}/{files[0].name}" if files else None)
    return found if any(found) else []


def _axis(axis: Axis) -> dict[str, Any]:
    phrases = [axis.phrase(value) for value in range(len(axis.values))]
    return {"name": axis.name, "values": axis.values, "phrases": phrases, "limits": axis.name in PHRASES}


def _ids(report: Report) -> list[str]:
    """A name for each cell in the address of the page: its folder's, with that of the sweep where it is not unique."""
    names = [cell.folder.name for cell in report.cells]
    return [
        name if names.count(name) == 1 else f"{cell.folder.parent.name}/{name}"
        for name, cell in zip(names, report.cells)
    ]


def _numeric_keys(report: Report) -> dict[str, list[float | None]]:
    """Every config key in which the cells differ and that has numbers alone, with its value for each cell."""
    configs = [cell.config for cell in report.cells]
    found = {}
    for key in differing_keys([config for config in configs if config]):
        values = [config.get(key) for config in configs]
        known = [value for value in values if value is not None]
        if len({*map(str, known)}) > 1 and all(type(value) in (int, float) for value in known):
            found[key] = values
    return found


def _value(value: Value) -> list[float]:
    """A value, followed by its interval if it has one."""
    ends = [] if value.low is None or value.high is None else [value.low, value.high]
    return [float(f"{number:.6g}") for number in (value.value, *ends)]


def _marks(report: Report) -> dict[str, dict[int, str]]:
    """For each metric the best cell of each condition and those not significantly worse, where any were compared."""
    ranking, of_cell, found = Ranking(report), report.conditions.of_cell, {}
    for quality, differences in report.comparisons:
        compared = {of_cell[d.first] for d in differences if of_cell[d.first] == of_cell[d.second]}
        marks = ranking.marks(quality).items() if compared else ()
        found[quality.name] = {i: "best" if mark == BEST else "tie" for i, mark in marks if of_cell[i] in compared}
    return found


def _answer(answer: Answer) -> dict[str, Any]:
    listed = answer.ties if len(answer.ties) <= MAX_LISTED else ()
    return {
        "budget": answer.budget,
        "best": answer.best,
        "ties": listed,
        "others": len(answer.ties),
        "compared": answer.compared,
        "alone": answer.alone,
    }
