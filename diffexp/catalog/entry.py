"""What can be chosen on the command line: one entry per registered object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffexp.catalog.kinds import KINDS
from diffexp.catalog.scan import relative
from diffexp.catalog.sources import Source
from diffexp.catalog.types import MISSING, Option, is_missing
from diffexp.errors import InputError


@dataclass(frozen=True)
class Entry:
    """One registered object."""

    kind: str
    name: str
    file: Path
    line: int
    qualname: str
    options: tuple[Option, ...]
    doc: str
    traits: Mapping[str, Any]
    style: str
    """How it is called: see ``diffexp.catalog.signatures.Form.style``."""
    open: bool
    """Whether it takes options beyond ``options``."""
    source: Source
    plain: bool = False
    """Whether it is a k-diffusion sampler that no decorator registers."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Options that it could take and must not, each with the reason."""

    @property
    def built_in(self) -> bool:
        return self.source.module.startswith("diffexp.")

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{relative(self.file)}:{self.line}"

    @property
    def sha256(self) -> str:
        """Of the file's text."""
        return sha256(self.file.read_bytes()).hexdigest()

    @property
    def path(self) -> str:
        """Where its options stand in the config."""
        return KINDS[self.kind].path(self.name)

    def load(self) -> Any:
        """Import the file and return the object.

        Raises:
            InputError: a plugin that cannot be imported.
        """
        thing: Any = self.source.load()
        for part in self.qualname.split("."):
            thing = getattr(thing, part)
        return thing

    @property
    def owner(self) -> str:
        """The choice of this entry on the command line, for messages."""
        return f"{self.kind}={self.name}"

    def check(self, given: Mapping[str, Any], path: str | None = None) -> None:
        """Check the options of a config node of this entry: the names, and the values.

        Args:
            path: where they stand in the config, if not at ``self.path``.

        Raises:
            InputError: see ``check_options``.
        """
        options = (*KINDS[self.kind].common, *self.options)
        check_options(given, options, path or self.path, self.owner, self.open, self.refused)

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of checked options: tuples as tuples, without a null that means "not given"."""
        options = {option.name: option for option in self.options}
        arguments = dict(given)
        for name in given.keys() & options.keys():
            if given[name] is None and options[name].effective_default is not MISSING:
                del arguments[name]
            elif given[name] and options[name].type.base == "tuple":
                arguments[name] = tuple(given[name])
        return arguments

    def check_option(self, option: str) -> None:
        """Check the name of an option.

        Raises:
            InputError: see ``check_name``.
        """
        check_name(option, [own.name for own in self.options], self.path, self.owner, self.open, self.refused)


def check_options(
    given: Mapping[str, Any],
    options: Sequence[Option],
    path: str,
    owner: str,
    accepts_any_option: bool = False,
    refused: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check options, as plain containers, against what there is to set.

    Args:
        path: where the options stand in the config, for messages.
        owner: what has the options, for messages: ``scheduler=ddim``.
        accepts_any_option: whether there are options beyond ``options``.
        refused: options that must not be given, each with the reason.

    Raises:
        InputError: an unknown or refused option, one without a default that is not given, or a value of the wrong
            type; with the nearest spelling.
    """
    known = [option.name for option in options]
    for name in given:
        check_name(name, known, path, owner, accepts_any_option, refused)
    for name, value in ({option.name: option.default for option in options} | dict(given)).items():
        if is_missing(value):
            raise InputError(f"{owner} needs {path}.{name}=...")
    for option in (option for option in options if option.name in given):
        if problem := option.problem(given[option.name]):
            raise InputError(f"{path}.{option.name}={as_typed(given[option.name])} {problem}")


def check_name(
    name: str,
    known: Sequence[str],
    path: str,
    owner: str,
    accepts_any_option: bool = False,
    refused: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Check the name of an option; arguments as those of ``check_options``.

    Raises:
        InputError: it is unknown, with the nearest spelling, or refused, with the reason.
    """
    if name in refused:
        raise InputError(f"{path}.{name} {refused[name]}")
    if name in known or accepts_any_option:
        return
    near = get_close_matches(name, known, n=1)
    more = f"; did you mean '{path}.{near[0]}'?" if near else f" (available: {', '.join(known) or 'none'})"
    raise InputError(f"unknown option '{path}.{name}' of {owner}{more}")


def as_typed(value: Any) -> str:
    """A value as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
