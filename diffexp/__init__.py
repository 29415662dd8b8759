"""diffexp: experiments with diffusion schedulers and pipelines."""

# Nothing is imported here: names are looked up on first use, so that the command answers at once and so that
# `python -m diffexp` can take the working folder off sys.path before any standard module is imported.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from diffexp.api import compile as compile
    from diffexp.catalog.register import grid as grid
    from diffexp.catalog.register import guidance as guidance
    from diffexp.catalog.register import loop as loop
    from diffexp.catalog.register import metric as metric
    from diffexp.catalog.register import model as model
    from diffexp.catalog.register import scheduler as scheduler
    from diffexp.catalog.register import tracker as tracker
    from diffexp.cli.launch import run as run
    from diffexp.plan.table import Plan as Plan

_HOMES = {
    **dict.fromkeys(
        ("model", "scheduler", "grid", "loop", "guidance", "metric", "tracker"), "diffexp.catalog.register"
    ),
    "compile": "diffexp.api",
    "Plan": "diffexp.plan.table",
    "run": "diffexp.cli.launch",
}

__all__ = ["Plan", "compile", "grid", "guidance", "loop", "metric", "model", "run", "scheduler", "tracker"]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffexp' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
