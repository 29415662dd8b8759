"""The keys and options that can be typed, checked without Hydra, whose import takes longer than the answer."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffexp.catalog.diffusers import FAMILIES, why_excluded
from diffexp.catalog.discover import Catalog
from diffexp.catalog.keys import BY_NAME, DEFAULT_CHOICES, KEYS, PIPE, TOP_LEVEL
from diffexp.catalog.kinds import KINDS
from diffexp.cli.config import check_config, with_value
from diffexp.cli.spellings import meant_choice, meant_key
from diffexp.cli.words import PLAIN, plain_value
from diffexp.errors import InputError, hint, nearest, nearest_name

UNREAD = "${}"
"""Stands for a value that only Hydra can read, as an interpolation does."""


@dataclass(frozen=True)
class KnownNames:
    """Keys and group options accepted on the command line."""

    catalog: Catalog
    groups: Mapping[str, Sequence[str]]
    """Every group with its options."""

    @classmethod
    def of(cls, catalog: Catalog) -> "KnownNames":
        """The keys of a catalog alone, without folders that only Hydra would add."""
        groups: dict[str, list[str]] = {kind: catalog.names(kind) for kind in KINDS}
        for kind in FAMILIES:
            groups[kind].append("diffusers")
        for group, option, _ in catalog.configs:
            groups.setdefault(group, []).append(option)
        return cls(catalog, {group: sorted(set(options)) for group, options in groups.items()})

    def check_words(self, words: Sequence[str]) -> None:
        """Check the words whose meaning is plain without Hydra's grammar; the others are left to ``Preflight``.

        Raises:
            InputError: an unknown key or option, or a value of the wrong type or out of range.
        """
        matches = [re.fullmatch(r"(?:\+\+?)?(\w[\w./-]*)=(.*)", word, re.DOTALL) for word in words]
        pairs = [(match[1], match[2]) for match in matches if match]
        for key, value in pairs:
            self.check_key(key)
            if re.fullmatch(r"[\w./-]*", value):
                self.check_choices(key, [value])
        check_config(self._plain_config(pairs), self.catalog)

    def _plain_config(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The config that these words make, as far as it is known without Hydra."""
        choices = {**DEFAULT_CHOICES, **dict(pairs)}
        elsewhere = bool({"experiment", "resume"} & choices.keys())  # they may choose other options
        config: dict[str, Any] = {kind: UNREAD if elsewhere else self._node(kind, choices[kind]) for kind in KINDS}
        config |= {key.name: key.default for key in KEYS}
        for key, value in pairs:
            head = key.partition(".")[0]
            if key not in self.groups and config.get(head, UNREAD) != UNREAD:
                config = with_value(config, key, plain_value(value) if PLAIN.fullmatch(value) else UNREAD)
        return config

    def _node(self, kind: str, choice: str | list[str]) -> Any:
        names = [choice] if isinstance(choice, str) else choice
        from_yaml = [option for group, option, file in self.catalog.configs if group == kind and file.suffix]
        if any(name in from_yaml or self.catalog.find(kind, name) is None for name in names):
            return UNREAD
        return {name: {"name": name} for name in names} if KINDS[kind].several else {"name": choice}

    def check_key(self, key: str) -> None:
        """Check the first part of a key.

        Raises:
            InputError: no such key, or options of a key that has none.
        """
        head = re.split(r"[./]", key)[0]
        if head == "hydra":
            return
        if not self.is_known(key) or (head in KINDS and "/" in key):
            raise InputError(f"unknown key '{key}'{self.suggest(key)}")
        if head not in (key, PIPE) and head not in self.groups:
            raise InputError(f"unknown key '{key}': {head} has no options, write {head}=...")

    def check_choices(self, key: str, choices: Sequence[str]) -> None:
        """Check the options that are chosen from a group; other keys pass.

        Raises:
            InputError: ``key`` is a group that has no such option.
        """
        for choice in choices:
            if key not in self.groups or choice in self.groups[key] or (key, choice) == ("experiment", "null"):
                continue
            meant = None if why_excluded(key, choice) else meant_choice(key, choice, self.groups)
            if meant is None:
                raise self.catalog.unknown(key, choice, self.groups[key])
            name = meant.removeprefix(f"{key}=")
            more = hint(name, self.groups[key]) if name in self.groups[key] else f"; did you mean '{meant}'?"
            raise InputError(f"{key}={choice} is not known{more}")

    def check_flags(self, arguments: Sequence[str], known: Collection[str]) -> None:
        """Check that arguments with dashes in front are flags.

        Raises:
            InputError: one is none, with the key that is meant.
        """
        for index, word in enumerate(arguments):
            match = re.fullmatch(r"(--?)([A-Za-z_][\w./-]*)(?:=(.*))?", word, re.DOTALL)
            flag = word.partition("=")[0]
            if match is None or flag in known or any(match[1] == "--" and one.startswith(flag) for one in known):
                continue
            after = arguments[index + 1 : index + 2]
            value = match[3] or (after[0] if after and re.fullmatch(r"[^=-][^=]*", after[0]) else "...")
            key = match[2].replace("-", "_")
            meant = key if self.is_known(key) else self.meant(key)
            written = f": write {meant}={value} (see --help)" if meant else nearest(flag, known) or "; see --help"
            raise InputError(f"{word} is not a flag{written}")

    def is_known(self, key: str) -> bool:
        """Whether the first part of a key is known."""
        return re.split(r"[./@]", key)[0] in ("hydra", *TOP_LEVEL, *self.groups)

    def suggest(self, key: str) -> str:
        """Suggest what an unknown key may mean, as the end of a message."""
        meant = self.meant(key.partition("=")[0])
        return f"; did you mean '{meant}'?" if meant else "; see --help"

    def meant(self, key: str) -> str:
        """What an unknown key may mean: its name elsewhere, the option of that name, a similar spelling; else empty."""
        head, _, rest = key.partition(".")
        if elsewhere := meant_key(key) or meant_key(head):
            return elsewhere if meant_key(key) else f"{elsewhere}.{rest}"
        last = key.rpartition(".")[2]
        owners = [e.path for e in self.catalog.entries.values() if any(o.name == last for o in e.options)]
        if owners:
            return f"{min(owners)}.{last}"
        return nearest_name(re.split(r"[./]", key)[0], [*TOP_LEVEL, *self.groups])

    def is_text(self, key: str) -> bool:
        """Whether the values of a key are text, in which commas and brackets have no meaning."""
        return key in self._texts

    @cached_property
    def _texts(self) -> frozenset[str]:
        options = {f"{e.path}.{o.name}" for e in self.catalog.entries.values() for o in e.options if o.type.is_text}
        return frozenset(options | {key.name for key in BY_NAME.values() if key.is_text})
