"""A config in plain containers, where the values of the command line are checked before OmegaConf merges them."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.kinds import KINDS
from diffexp.catalog.types import MISSING, OptionType
from diffexp.cli.guard import CommandLineKeys
from diffexp.cli.keys import BY_NAME, TOP_LEVEL, check_value
from diffexp.cli.values import stored
from diffexp.errors import InputError, hint

ANY = OptionType("any")


@dataclass(frozen=True)
class Draft:
    """The top-level keys and groups of a config, with interpolations as text."""

    values: dict[str, Any]
    keys: CommandLineKeys

    @classmethod
    def of(cls, tree: DictConfig, overrides: Iterable[Override], keys: CommandLineKeys) -> "Draft":
        """The content of a composed config after these overrides."""
        content = OmegaConf.to_container(tree)
        assert isinstance(content, dict)
        draft = cls({key: content.get(key, MISSING) for key in TOP_LEVEL}, keys)
        for override in overrides:
            draft._apply(override)
        return draft

    def check_change(self, override: Override) -> None:
        """Check this config after one more override, which does not change it.

        Raises:
            InputError: the first mistake in the key or group that is overridden.
        """
        key = override.key_or_group.partition(".")[0]
        if key in self.values:
            changed = Draft(self.values | {key: copy.deepcopy(self.values[key])}, self.keys)
            changed._apply(override)
            changed._check_key(key)

    def check(self) -> None:
        """Check all keys and groups, except those with interpolations, which are known after the merge.

        Raises:
            InputError: the first mistake.
        """
        for key in self.values:
            self._check_key(key)

    def interpolation(self, path: str) -> str:
        """The interpolation ``${...}`` at a dotted key, as text."""
        node: Any = self.values
        for part in path.split("."):
            node = node.get(part) if isinstance(node, Mapping) else node
        return str(node)

    @property
    def has_interpolations(self) -> bool:
        """Whether some values are known only after the merge."""
        return is_interpolated(self.values)

    def _apply(self, override: Override) -> None:
        path = override.key_or_group
        head, *_ = *parents, last = path.split(".")
        node: Any = self.values if head in self.values else None  # None: a key of Hydra itself
        for part in parents:
            if isinstance(node, dict) and (override.is_add() or override.is_force_add()):
                node.setdefault(part, {})
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            return
        if override.is_delete():
            node.pop(last, None)
            return
        value = stored(self._type_of(path), override.value())
        node[last] = _merged(node.get(last), value)

    def _type_of(self, path: str) -> OptionType:
        if path in BY_NAME:
            return BY_NAME[path].type
        names = {kind: node.get("name") for kind in KINDS if isinstance(node := self.values.get(kind), Mapping)}
        entry, option = self.keys.entry_of(path, names)
        options = (*KINDS[entry.kind].common, *entry.options) if entry else ()
        return next((own.type for own in options if own.name == option), ANY)

    def _check_key(self, key: str) -> None:
        value = self.values[key]
        if value == MISSING:
            raise InputError(f"{key} needs a choice{hint('', self.keys.groups[key])}")
        if key in BY_NAME:
            if not is_interpolated(value):
                check_value(key, value)
            return
        for name, node in (value or {}).items() if KINDS[key].several else [(key, value)]:
            if not is_interpolated(node):
                self.keys.catalog.check(key, node, KINDS[key].path(name))


def _merged(old: Any, new: Any) -> Any:
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def is_interpolated(value: Any) -> bool:
    """Whether a value, or one inside it, is an interpolation ``${...}``."""
    if isinstance(value, Mapping):
        return any(map(is_interpolated, value.values()))
    return any(map(is_interpolated, value)) if isinstance(value, list) else isinstance(value, str) and "${" in value
