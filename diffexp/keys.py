"""The keys a command line may have; checked without Hydra, so that a typing mistake is answered at once."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from diffexp.discovery import TARGET, Catalog, Entry, hint, nearest, yaml_options
from diffexp.errors import InputError
from diffexp.paths import conf_dir
from diffexp.registry import KINDS
from diffexp.signatures import RESERVED

VALUES = (
    "steps", "seed", "num_samples", "batch_size", "prompt", "negative_prompt", "label", "guidance_scale",
    "snapshot_every", "device", "dtype", "compile", "resume", "name", "tags", "notes",
)  # fmt: skip
TOP_LEVEL = (*KINDS, *VALUES)
SEVERAL = ("metric", "experiment")
"""Groups that take a list of options."""


def config_file() -> Path:
    """The main config."""
    return conf_dir() / "config.yaml"


def check_option(entry: Entry, option: str) -> None:
    """
    Raises:
        InputError: the entry has no such option.
    """
    known = [own.name for own in entry.options]
    if option not in known:
        path = f"metric.{entry.name}" if entry.kind == "metric" else entry.kind
        near = get_close_matches(option, known, n=1)
        more = f"; did you mean '{path}.{near[0]}'?" if near else f" (available: {', '.join(known) or 'none'})"
        raise InputError(f"unknown option '{path}.{option}' of {entry.kind}={entry.name}{more}")


@dataclass(frozen=True)
class Keys:
    """What there is to write."""

    catalog: Catalog
    groups: Mapping[str, Sequence[str]]
    """Every group with its options."""

    @classmethod
    def of(cls, catalog: Catalog) -> "Keys":
        """Those of a catalog alone, without folders that only Hydra would add."""
        groups: dict[str, list[str]] = {kind: list(catalog.of_kind(kind)) for kind in KINDS}
        groups["scheduler"].append("diffusers")
        for folder in catalog.conf_dirs:
            for group, option, _ in yaml_options(folder):
                groups.setdefault(group, []).append(option)
        return cls(catalog, {group: sorted(set(options)) for group, options in groups.items()})

    def check_plain(self, overrides: Sequence[str]) -> None:
        """Check the words whose meaning is plain without Hydra's grammar.

        Raises:
            InputError: an unknown key or option.
        """
        matches = [re.match(r"(?:\+\+?)?(\w[\w./-]*)=(.*)", text) for text in overrides]
        pairs = [(match[1], match[2]) for match in matches if match]
        for key, value in pairs:
            self.check_key(key)
            if re.fullmatch(r"[\w.-]*", value):
                self.check_choices(key, [value])
        if any("." in key for key, _ in pairs) and not any(key == "experiment" for key, _ in pairs):
            defaults = re.finditer(r"^  - (\w+): (\w+)$", config_file().read_text(encoding="utf-8"), re.MULTILINE)
            choices = {**{match[1]: match[2] for match in defaults}, **dict(pairs)}
            for key, _ in pairs:
                self._check_option(key, choices)

    def _check_option(self, key: str, choices: Mapping[str, str]) -> None:
        kind, _, option = key.partition(".")
        entry = self.catalog.entries.get((kind, choices.get(kind, "")))
        taken = (*RESERVED.get(kind, ("name",)), TARGET)
        if option and entry and not entry.open and option.split(".")[0] not in taken:
            check_option(entry, option.split(".")[0])

    def check_key(self, key: str) -> None:
        """
        Raises:
            InputError: there is no such key; only its first part is looked at.
        """
        head = re.split(r"[./]", key)[0]
        if head == "hydra":
            return
        if head not in TOP_LEVEL and head not in self.groups:
            raise InputError(f"unknown key '{key}'{self.suggest(key)}")
        if head != key and head not in self.groups:
            raise InputError(f"unknown key '{key}': {head} has no options, write {head}=...")

    def check_choices(self, key: str, choices: Sequence[str]) -> None:
        """
        Raises:
            InputError: ``key`` is a group that has no such option.
        """
        for choice in choices:
            if key in self.groups and choice not in self.groups[key] and (key, choice) != ("experiment", "null"):
                raise InputError(f"{key}={choice} is not known{hint(choice, self.groups[key])}{self._silent()}")

    def suggest(self, key: str) -> str:
        """What may have been meant by an unknown key: a key of similar spelling, or the option of that name."""
        last = key.split("=")[0].split(".")[-1]
        owners = {e.kind for e in self.catalog.entries.values() if any(o.name == last for o in e.options)}
        near = nearest(re.split(r"[./]", key)[0], [*TOP_LEVEL, *self.groups])
        return near or (f"; did you mean '{min(owners)}.{last}'?" if owners else "; see --help")

    def _silent(self) -> str:
        files = [file.name for file in self.catalog.silent if file.stem != "__init__"]
        return f"; in plugins, {', '.join(files)} registers nothing" if files else ""
