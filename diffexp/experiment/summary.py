"""The metrics of a run in one line."""

from collections.abc import Mapping

LOW, HIGH = "/low", "/high"
"""Suffixes of the ends of a metric's 95 % interval."""


def metrics_line(metrics: Mapping[str, float | None]) -> str:
    """``nfe=10  fid/mnist_cnn=2.65 (2.41..2.9)``; missing values are skipped.

    Args:
        metrics: flat, as in ``metrics.json``.
    """
    shown = []
    for name, value in metrics.items():
        end = next((end for end in (LOW, HIGH) if name.endswith(end)), None)
        if value is None or (end and name.removesuffix(end) in metrics):
            continue
        low, high = metrics.get(f"{name}{LOW}"), metrics.get(f"{name}{HIGH}")
        interval = "" if low is None or high is None else f" ({low:.3g}..{high:.3g})"
        shown.append(f"{name}={value:.4g}{interval}")
    return "  ".join(shown)
