"""The keys a command line may have; checked without Hydra, so that a typing mistake is answered at once."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffexp.catalog.diffusers import FAMILIES
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import as_typed
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.sources import conf_dir
from diffexp.catalog.types import OptionType
from diffexp.errors import InputError, hint, nearest

VALUES = {
    "steps": OptionType("int"),
    "max_nfe": OptionType("int", optional=True),
    "seed": OptionType("int"),
    "num_samples": OptionType("int", optional=True),
    "batch_size": OptionType("int"),
    "prompt": OptionType("any"),
    "negative_prompt": OptionType("any"),
    "label": OptionType("any"),
    "guidance_scale": OptionType("float", optional=True),
    "snapshot_every": OptionType("int", optional=True),
    "device": OptionType("str"),
    "dtype": OptionType("str"),
    "compile": OptionType("bool"),
    "resume": OptionType("str", optional=True),
    "objective": OptionType("str", optional=True),
    "name": OptionType("str", optional=True),
    "tags": OptionType("list", item=OptionType("str")),
    "notes": OptionType("str", optional=True),
}
AT_LEAST = {"steps": 1, "max_nfe": 1, "num_samples": 1, "batch_size": 1, "snapshot_every": 0}
DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")
TOP_LEVEL = (*KINDS, *VALUES)
SEVERAL = (*(kind.name for kind in KINDS.values() if kind.several), "experiment")
"""Groups that take a list of options."""


def config_file() -> Path:
    """The main config."""
    return conf_dir() / "config.yaml"


def check_word(key: str, word: str) -> None:
    """
    Raises:
        InputError: a word on the command line is no value of a top-level key.
    """
    if key in VALUES:
        _complain(key, word, VALUES[key].problem_in_word(word))
    if word != "null" and key in (*AT_LEAST, "dtype", "device"):
        check_value(key, int(word) if key in AT_LEAST else word)


def check_value(key: str, value: Any) -> None:
    """
    Raises:
        InputError: a value, of the right type, that no model, device or scheduler could take.
    """
    if key in AT_LEAST and value is not None and value < AT_LEAST[key]:
        raise InputError(f"{key}={value} must be at least {AT_LEAST[key]}")
    if key == "guidance_scale" and value is not None and not math.isfinite(value):
        raise InputError(f"guidance_scale={value} must be finite")
    if key == "dtype" and value not in DTYPES:
        raise InputError(f"dtype={value} is not known{hint(str(value), DTYPES)}")
    if key == "device" and not re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", str(value)):
        raise InputError(f"device={value} is not one of auto, cpu, cuda, cuda:<number>, mps, xpu")
    if key == "label":
        _check_items(key, value, int | str, "a class number or name, or a list of these")
    if key in ("prompt", "negative_prompt"):
        _check_items(key, value, str, "a text or a list of texts")


def _check_items(key: str, value: Any, types: Any, noun: str) -> None:
    items = value if isinstance(value, list) else [] if value is None else [value]
    if value == [] or any(isinstance(item, bool) or not isinstance(item, types) for item in items):
        raise InputError(f"{key}={as_typed(value)} is not {noun}")


def _complain(key: str, word: str, problem: str | None) -> None:
    if problem:
        raise InputError(f"{key}={word} {problem}")


@dataclass(frozen=True)
class Keys:
    """What there is to write."""

    catalog: Catalog
    groups: Mapping[str, Sequence[str]]
    """Every group with its options."""

    @classmethod
    def of(cls, catalog: Catalog) -> "Keys":
        """Those of a catalog alone, without folders that only Hydra would add."""
        groups: dict[str, list[str]] = {kind: catalog.names(kind) for kind in KINDS}
        for kind in FAMILIES:
            groups[kind].append("diffusers")
        for group, option, _ in catalog.configs:
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
            if re.fullmatch(r"[\w./-]*" if key in self.groups else r"[\w.-]*", value):
                self.check_choices(key, [value])
                check_word(key, value)
        if any("." in key for key, _ in pairs) and not any(key == "experiment" for key, _ in pairs):
            defaults = re.finditer(r"^  - (\w+): (\w+)$", config_file().read_text(encoding="utf-8"), re.MULTILINE)
            choices = {**{match[1]: match[2] for match in defaults}, **dict(pairs)}
            for key, value in pairs:
                self._check_option(key, value, choices)

    def _check_option(self, key: str, value: str, choices: Mapping[str, str]) -> None:
        kind, _, option = key.partition(".")
        name = choices.get(kind, "")
        if kind not in KINDS:
            return
        if KINDS[kind].several:  # their options carry the name: metric.fid.features
            name, _, option = option.partition(".")
        entry = self.catalog.find(kind, name)
        if option and entry and option.split(".")[0] not in KINDS[kind].reserved:
            entry.check_option(option.split(".")[0])
            types = {own.name: own.type for own in entry.options}
            if option in types and re.fullmatch(r"[\w.+-]+", value):
                _complain(key, value, types[option].problem_in_word(value))

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
                raise self.catalog.unknown(key, choice, self.groups[key])

    def suggest(self, key: str) -> str:
        """What may have been meant by an unknown key: a key of similar spelling, or the option of that name."""
        last = key.split("=")[0].split(".")[-1]
        owners = {e.kind for e in self.catalog.entries.values() if any(o.name == last for o in e.options)}
        near = nearest(re.split(r"[./]", key)[0], [*TOP_LEVEL, *self.groups])
        return near or (f"; did you mean '{min(owners)}.{last}'?" if owners else "; see --help")
