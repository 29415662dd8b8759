"""The metrics of a run, read back and in one line."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from diffexp.catalog.discover import Catalog
from diffexp.components.metrics.traits import needed, needed_by
from diffexp.files import read_json

LOW, HIGH = "/low", "/high"
"""Suffixes of the ends of a metric's 95 % interval."""
NEEDED = "/needed"
"""Suffix of the number of samples that a metric takes, where a run has fewer."""
MOST_QUALITIES = 3
"""Metrics in a brief line."""


def read_metrics(folder: Path) -> dict[str, float | None]:
    """The metrics of the run in a folder; whatever is damaged is missing."""
    found = read_json(folder / "metrics.json").items()
    return {name: value for name, value in found if value is None or type(value) in (int, float)}


def lacking(names: Iterable[str], samples: int, catalog: Catalog | None = None) -> dict[str, float]:
    """``{"fid/mnist_cnn/needed": 64}`` for the metrics that take more samples than there are, to be ranked.

    Args:
        samples: of the run; 0 where the number is unknown.
        catalog: see ``needed``.
    """
    known = needed(catalog) if samples else {}
    return {f"{name}{NEEDED}": float(most) for name in names if (most := needed_by(name, known)) > samples}


def brief_line(metrics: Mapping[str, float | None]) -> str:
    """``metrics_line`` of the evaluations and of the first metrics of quality, which have features in their names."""
    names = [name for name in metrics if "/" in name and not name.endswith((LOW, HIGH, NEEDED))][:MOST_QUALITIES]
    shown = {"nfe", *names, *(f"{name}{end}" for name in names for end in (LOW, HIGH, NEEDED))}
    return metrics_line({name: value for name, value in metrics.items() if name in shown})


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """``nfe=10  fid/mnist_cnn=2.65 (2.41..2.9)``; missing values are skipped.

    Args:
        metrics: flat, as in ``metrics.json``, perhaps with those of ``lacking``.
    """
    shown = []
    for name, value in metrics.items():
        end = next((end for end in (LOW, HIGH, NEEDED) if name.endswith(end)), None)
        if value is None or (end and name.removesuffix(end) in metrics):
            continue
        low, high = metrics.get(f"{name}{LOW}"), metrics.get(f"{name}{HIGH}")
        interval = "" if low is None or high is None else f" ({low:.3g}..{high:.3g})"
        few = metrics.get(f"{name}{NEEDED}")
        shown.append(f"{name}={value:.4g}{interval}{'' if few is None else f' (few samples, it takes {few:.0f})'}")
    return "  ".join(shown)
