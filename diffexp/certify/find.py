"""From names, functions and classes to what is certified."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from diffexp.catalog.sources import VARIABLE
from diffexp.certify.subject import Subject
from diffexp.discovery import Catalog, discover
from diffexp.plan import Plan
from diffexp.registry import registration


def catalog() -> Catalog:
    """Everything there is, found once for the same plugins."""
    return _catalog(os.environ.get(VARIABLE), os.getcwd())


@cache
def _catalog(plugins: str | None, folder: str) -> Catalog:
    return discover()


def subject_of(scheduler: Any, name: str | None = None, options: Mapping[str, Any] | None = None) -> Subject:
    """
    Args:
        scheduler: the name of an option, a function, a diffusers-style class or object, or a plan.

    Raises:
        InputError: there is no such scheduler, or it has no such option.
    """
    options = dict(options or {})
    if isinstance(scheduler, str):
        return named(scheduler, options)
    found = registration(scheduler)
    own = found.name if found else getattr(scheduler, "name" if isinstance(scheduler, Plan) else "__name__", None)
    return Subject(name or own or type(scheduler).__name__, scheduler, options)


def named(name: str, options: Mapping[str, Any]) -> Subject:
    """
    Raises:
        InputError: there is no such scheduler, or it has no such option.
    """
    bound = catalog().build("scheduler", {"name": name, **options})
    return Subject(name, bound.func, dict(bound.keywords))
