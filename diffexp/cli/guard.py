"""Answers plain mistakes on the command line before Hydra is imported, which takes longer than the answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.diffusers import FAMILIES
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry, as_typed
from diffexp.catalog.kinds import KINDS
from diffexp.cli.keys import BY_NAME, DEFAULT_CHOICES, TOP_LEVEL, check_value
from diffexp.cli.values import plain_value, problem_of
from diffexp.errors import InputError, nearest


@dataclass(frozen=True)
class CommandLineKeys:
    """Keys and group options accepted on the command line."""

    catalog: Catalog
    groups: Mapping[str, Sequence[str]]
    """Every group with its options."""

    @classmethod
    def of(cls, catalog: Catalog) -> "CommandLineKeys":
        """The keys of a catalog alone, without folders that only Hydra would add."""
        groups: dict[str, list[str]] = {kind: catalog.names(kind) for kind in KINDS}
        for kind in FAMILIES:
            groups[kind].append("diffusers")
        for group, option, _ in catalog.configs:
            groups.setdefault(group, []).append(option)
        return cls(catalog, {group: sorted(set(options)) for group, options in groups.items()})

    def check_plain(self, words: Sequence[str]) -> None:
        """Check the words whose meaning is plain without Hydra's grammar; the others are left to ``Preflight``.

        Raises:
            InputError: an unknown key or option, or a value of the wrong type or out of range.
        """
        matches = [re.fullmatch(r"(?:\+\+?)?(\w[\w./-]*)=(.*)", word) for word in words]
        pairs = [(match[1], match[2]) for match in matches if match]
        for key, value in pairs:
            self.check_key(key)
            if re.fullmatch(r"[\w./-]*" if key in self.groups else r"[\w.-]*", value):
                self.check_choices(key, [value])
                if key in BY_NAME:
                    check_value(key, plain_value(value))
        if not any(key == "experiment" for key, _ in pairs):  # it may choose other options
            choices = {**DEFAULT_CHOICES, **dict(pairs)}
            for key, value in pairs:
                self._check_option(key, value, choices)

    def _check_option(self, key: str, value: str, choices: Mapping[str, Any]) -> None:
        entry, option = self.entry_of(key, choices)
        if entry and option and option.split(".")[0] not in KINDS[entry.kind].reserved:
            entry.check_option(option.split(".")[0])
            types = {own.name: own.type for own in entry.options}
            if option in types and re.fullmatch(r"[\w.+-]+", value):
                number = plain_value(value)
                if problem := problem_of(types[option], number):
                    raise InputError(f"{key}={as_typed(number)} {problem}")

    def entry_of(self, key: str, names: Mapping[str, Any]) -> tuple[Entry | None, str]:
        """The entry that a dotted key belongs to, and the option in it.

        Args:
            names: the chosen option of each group.
        """
        kind, _, option = key.partition(".")
        name = names.get(kind, "")
        if kind not in KINDS:
            return None, option
        if KINDS[kind].several:  # their options carry the name: metric.fid.features
            name, _, option = option.partition(".")
        return self.catalog.find(kind, str(name)), option

    def check_key(self, key: str) -> None:
        """Check the first part of a key.

        Raises:
            InputError: no such key, or options of a key that has none.
        """
        head = re.split(r"[./]", key)[0]
        if head == "hydra":
            return
        if head not in TOP_LEVEL and head not in self.groups:
            raise InputError(f"unknown key '{key}'{self.suggest(key)}")
        if head != key and head not in self.groups:
            raise InputError(f"unknown key '{key}': {head} has no options, write {head}=...")

    def check_choices(self, key: str, choices: Sequence[str]) -> None:
        """Check the options that are chosen from a group; other keys pass.

        Raises:
            InputError: ``key`` is a group that has no such option.
        """
        for choice in choices:
            if key in self.groups and choice not in self.groups[key] and (key, choice) != ("experiment", "null"):
                raise self.catalog.unknown(key, choice, self.groups[key])

    def suggest(self, key: str) -> str:
        """Suggest what an unknown key may mean: a key of similar spelling, or the option of that name."""
        last = key.split("=")[0].split(".")[-1]
        owners = {e.kind for e in self.catalog.entries.values() if any(o.name == last for o in e.options)}
        near = nearest(re.split(r"[./]", key)[0], [*TOP_LEVEL, *self.groups])
        return near or (f"; did you mean '{min(owners)}.{last}'?" if owners else "; see --help")
