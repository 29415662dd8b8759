"""Decorators that register a plugin: scheduler, grid, loop, guidance, model, metric, tracker.

    from diffexp import scheduler

    @scheduler
    def euler(denoise, x, levels, noise, *, churn: float = 0.0): ...

A decorator sets one attribute, so a registered function remains an ordinary function. Registrations are normally read
without importing the file (see ``diffexp.catalog.discover``).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from diffexp.catalog.kinds import KINDS

Registered = TypeVar("Registered", bound=Callable[..., Any])

ATTRIBUTE = "__diffexp__"


@dataclass(frozen=True)
class Registration:
    """The mark of a decorator on an object, ``object.__diffexp__``."""

    kind: str
    """One of ``diffexp.catalog.kinds.KINDS``."""
    name: str
    """Name on the command line."""
    traits: dict[str, Any] = field(default_factory=dict)
    """Further keywords of the decorator, with a meaning for the kind."""


def default_name(identifier: str, is_class: bool) -> str:
    """The name of an object without one in its decorator: its own, of a class in snake_case (``MyFID``: my_fid)."""
    if not is_class:
        return identifier
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", identifier)
    return words.lower()


def registration(thing: Any) -> Registration | None:
    """The registration of an object itself, not of a base class."""
    found = getattr(thing, "__dict__", {}).get(ATTRIBUTE)
    return found if isinstance(found, Registration) else None


class Decorator:
    """Registers objects under one kind; used bare (``@metric``) or called (``@metric(name="fid", discrete=True)``)."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    @overload
    def __call__(self, thing: Registered, /) -> Registered: ...

    @overload
    def __call__(self, /, *, name: str | None = None, **traits: Any) -> Callable[[Registered], Registered]: ...

    def __call__(self, thing: Any = None, /, *, name: str | None = None, **traits: Any) -> Any:
        if thing is None:
            return lambda later: self._register(later, name, traits)
        if name is not None or traits or not callable(thing):
            raise TypeError(f"@{self.kind} takes keywords only, as in @{self.kind}(name='mine')")
        return self._register(thing, None, {})

    def _register(self, thing: Registered, name: str | None, traits: dict[str, Any]) -> Registered:
        own = name or default_name(thing.__name__, isinstance(thing, type))
        setattr(thing, ATTRIBUTE, Registration(self.kind, own, traits))
        return thing

    def __repr__(self) -> str:
        return f"diffexp.{self.kind}"


model, scheduler, grid, loop, guidance, metric, tracker = map(Decorator, KINDS)
