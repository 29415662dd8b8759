"""What can be chosen on the command line: one entry per registered object."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any

from diffexp.catalog.scan import relative
from diffexp.catalog.sources import Source
from diffexp.catalog.types import Option
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
        return f"metric.{self.name}" if self.kind == "metric" else self.kind

    def load(self) -> Any:
        """Import the file and return the object.

        Raises:
            InputError: a plugin that cannot be imported.
        """
        thing: Any = self.source.load()
        for part in self.qualname.split("."):
            thing = getattr(thing, part)
        return thing

    def check_option(self, option: str) -> None:
        """
        Raises:
            InputError: there is no such option; with the nearest spelling, or why it is refused.
        """
        known = [own.name for own in self.options]
        if option in known or (self.open and option not in self.refused):
            return
        if option in self.refused:
            raise InputError(f"{self.path}.{option} {self.refused[option]}")
        near = get_close_matches(option, known, n=1)
        more = f"; did you mean '{self.path}.{near[0]}'?" if near else f" (available: {', '.join(known) or 'none'})"
        raise InputError(f"unknown option '{self.path}.{option}' of {self.kind}={self.name}{more}")
