"""Engines: where the worker processes of a sweep or of a large run are started.

Each is a module with a class such as ``LocalEngine``, an ``Engine`` as ``base`` describes it.
"""

from importlib import import_module
from typing import Any

ENGINES = ("local", "slurm", "ray")
"""``hydra/launcher=<name>``."""


def engine_class(name: str) -> Any:
    """The class of an engine; the package that it needs is imported when it is called."""
    return getattr(import_module(f"{__name__}.{name}"), f"{name.capitalize()}Engine")
