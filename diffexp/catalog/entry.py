"""Entries of the catalog: one for each object that can be chosen on the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from diffexp.catalog.kinds import KINDS
from diffexp.catalog.scan import relative
from diffexp.catalog.sources import Source
from diffexp.catalog.types import MISSING, Option, is_missing
from diffexp.errors import InputError, unknown_option


@dataclass(frozen=True)
class OptionSet:
    """The options of a function or class, to check config values against."""

    options: Sequence[Option]
    path: str
    """Where they stand in the config, for messages."""
    owner: str
    """What has them, for messages: ``scheduler=ddim``."""
    accepts_any_option: bool = False
    """Whether others than ``options`` are valid too."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Options that must not be given, each with the reason."""

    def check(self, given: Mapping[str, Any]) -> None:
        """Check names and values.

        Args:
            given: values as plain containers (see ``to_containers``), by name.

        Raises:
            InputError: see ``check_name``; an option without a default that is not given; a value of the wrong type.
        """
        for name in given:
            self.check_name(name)
        for name, value in ({option.name: option.default for option in self.options} | dict(given)).items():
            if is_missing(value):
                raise InputError(f"{self.owner} needs {self.path}.{name}=...")
        for option in (option for option in self.options if option.name in given):
            if problem := option.problem(given[option.name]):
                raise InputError(f"{self.path}.{option.name}={as_typed(given[option.name])} {problem}")

    def check_name(self, name: str) -> None:
        """Check the name of an option.

        Raises:
            InputError: it is unknown, with the nearest spelling, or refused, with the reason.
        """
        if name in self.refused:
            raise InputError(f"{self.path}.{name} {self.refused[name]}")
        known = [option.name for option in self.options]
        if name in known or self.accepts_any_option:
            return
        raise InputError(unknown_option(self.path, name, known, self.owner))


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
    """How it is called; see ``diffexp.catalog.signatures.Form``."""
    accepts_any_option: bool
    """Whether it accepts options beyond ``options``."""
    source: Source
    is_bare_k_diffusion: bool = False
    """Whether it is a k-diffusion sampler that no decorator registers."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Options of the object that must not be given, each with the reason."""

    @property
    def built_in(self) -> bool:
        """Whether it is part of diffexp."""
        return self.source.module.startswith("diffexp.")

    @property
    def where(self) -> str:
        """File and line of the definition, for messages."""
        return f"{relative(self.file)}:{self.line}"

    @property
    def sha256(self) -> str:
        """SHA-256 of the plugin's files as they were loaded; of a single file its own."""
        return self.source.sha256

    @property
    def is_plugin(self) -> bool:
        """Whether it is code of a user, neither of diffexp nor a class of diffusers."""
        return not self.built_in and not self.source.module.startswith("diffusers.")

    @property
    def path(self) -> str:
        """Key of its options in the config."""
        return KINDS[self.kind].path(self.name)

    def check_packages(self) -> None:
        """Check that the packages in the trait ``requires`` are installed, without importing them.

        Raises:
            InputError: one is missing.
        """
        missing = [name for name in self.traits.get("requires", ()) if find_spec(name) is None]
        if missing:
            needed = " ".join(missing)
            raise InputError(f"{self.kind}={self.name} needs {needed}, which is not installed: pip install {needed}")

    def load(self) -> Any:
        """Import the file and return the object.

        Raises:
            InputError: a plugin that cannot be imported.
        """
        thing: Any = self.source.load()
        for part in self.qualname.split("."):
            thing = getattr(thing, part)
        return thing

    def option_set(self, path: str | None = None) -> OptionSet:
        """The options of a config node of this entry, those common to its kind included.

        Args:
            path: where they stand in the config, if not at ``self.path``.
        """
        options = (*KINDS[self.kind].common, *self.options)
        owner = f"{self.kind}={self.name}"
        return OptionSet(options, path or self.path, owner, self.accepts_any_option, self.refused)

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


def as_typed(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_typed(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(as_typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
