"""Python values as words of the command line: ``steps=10, prompt="a, b"`` as ``steps=10`` and ``prompt='a, b'``."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.catalog.keys import BY_NAME, MULTI_CHOICE_GROUPS, PIPE
from diffexp.catalog.kinds import KINDS
from diffexp.cli.words import PLAIN, plain_value, quote
from diffexp.errors import InputError

KEY = re.compile(r"[+~]*\w[\w./@:-]*")
CHOICE = re.compile(r"[\w./-]+")
"""Names of options, which need no quotes."""
LISTS = ("list", "tuple")


class Keywords:
    """Keyword arguments as words.

    Args:
        catalog: everything that can be chosen; it has the options whose values are lists.
        swept: whether a list names the values of a sweep; else it is one value.
        name_of: returns the name of an object that is given for a group, such as a model; None of other values.
    """

    def __init__(
        self, catalog: Catalog, *, swept: bool, name_of: Callable[[str, Any], str | None] = lambda key, value: None
    ) -> None:
        self.catalog = catalog
        self.swept = swept
        self.name_of = name_of

    def words(self, given: Mapping[str, Any]) -> list[str]:
        """The words, a group before its options.

        Raises:
            InputError: a key that is none, or a value that no config can hold.
        """
        return [f"{key}={text}" for key, value in given.items() for key, text in self._pairs(key, value)]

    def _pairs(self, key: str, value: Any) -> Iterator[tuple[str, str]]:
        if not KEY.fullmatch(key):
            raise InputError(f"'{key}' is not a key: write scheduler=..., or **{{'scheduler.eta': ...}} for an option")
        several = key in KINDS and KINDS[key].several
        if key in KINDS and isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
            if self.swept and not several:
                yield from self._choices(key, value)
                return
            nodes = [dict(one) if isinstance(one, Mapping) else {"name": one} for one in value]
            value = {str(node.pop("name", None)): node for node in nodes} if several else value
        if not isinstance(value, Mapping) or not _has_parts(key):
            yield key, self._text(key, value)
            return
        own = {str(name): item for name, item in value.items()}
        if several and "name" in own:  # one of several, with its options
            own = {str(own.pop("name")): own}
        if several:
            yield key, f"[{','.join(own)}]"
        elif "name" in own:
            yield key, self._text(key, own.pop("name"))
        elif key in KINDS and "_target_" in own:
            yield key, "diffusers"
        for name, item in own.items():
            yield from self._pairs(f"{key}.{name}", {} if item is None and several else item)

    def _choices(self, key: str, choices: Sequence[Any]) -> Iterator[tuple[str, str]]:
        """The words of a list of choices, some of which are dicts with options that the others do not have.

        Raises:
            InputError: an option would be one of another choice too.
        """
        nodes = [dict(one) if isinstance(one, Mapping) else {"name": one} for one in choices]
        names = [self._value(key, node.pop("name", None)) for node in nodes]
        yield key, ",".join(names)
        for name, node in zip(names, nodes):
            for option, value in node.items():
                others = [other for other in {*names} - {name} if self._has(key, other, option)]
                if others or names.count(name) > 1:
                    shared = others[0] if others else f"another {name}"
                    raise InputError(f"{key}.{option} of {name} would be that of {shared} too: sweep over them apart")
                yield from self._pairs(f"{key}.{option}", value)

    def _has(self, kind: str, name: str, option: str) -> bool:
        entry = self.catalog.find(kind, name)
        return entry is None or entry.accepts_any_option or any(own.name == option for own in entry.options)

    def _text(self, key: str, value: Any) -> str:
        items = _items(value)
        if items is None or not self.swept or key.startswith("hydra"):
            return self._value(key, value)
        if self._is_list(key) and not any(_items(item) is not None for item in items):
            return self._value(key, items)
        if not items:
            raise InputError(f"{key}=[] names no value of the sweep")
        return ",".join(self._value(key, item, several=True) for item in items)

    def _is_list(self, key: str) -> bool:
        """Whether the values of a key are lists."""
        if key in BY_NAME:
            return BY_NAME[key].type.base in LISTS
        kind, _, option = key.partition(".")
        if not option or kind not in KINDS:
            return key in MULTI_CHOICE_GROUPS
        options = (*KINDS[kind].common, *(own for e in self.catalog.of_kind(kind).values() for own in e.options))
        return any(own.type.base in LISTS for own in options if own.name == option.rpartition(".")[2])

    def _value(self, key: str, value: Any, *, several: bool = False) -> str:
        """One value; ``several``: among others, where a text without quotes may be read together with them."""
        if name := self.name_of(key, value):
            return name
        if isinstance(value, Mapping):
            if key in KINDS:
                raise InputError(f"{key}: a run has one of them, a name or a dict, and no list of dicts")
            return "{" + ",".join(f"{quote(str(name))}:{self._value('', one)}" for name, one in value.items()) + "}"
        items = _items(value)
        if items is not None:
            return f"[{','.join(self._value(key, item, several=True) for item in items)}]"
        value = _scalar(value)
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, int | float):
            return repr(value)
        if isinstance(value, str):
            choice = key in KINDS or "/" in key or key in MULTI_CHOICE_GROUPS
            if choice and CHOICE.fullmatch(value):
                return value
            bare = not several or (key in BY_NAME and not BY_NAME[key].is_text)
            return value if value and bare and PLAIN.fullmatch(value) and plain_value(value) == value else quote(value)
        raise InputError(f"{key}={_shown(value)} is no value of a config: give a number, text, None, a list or a dict")


def _has_parts(key: str) -> bool:
    """Whether a mapping under a key sets keys below it; an option may be a mapping itself."""
    depth = 1 + (key.partition(".")[0] in KINDS and KINDS[key.partition(".")[0]].several)
    return (
        key == PIPE or key.partition(".")[0] == "hydra" or (key.partition(".")[0] in KINDS and key.count(".") < depth)
    )


def _items(value: Any) -> list[Any] | None:
    """The items of a list, a range, an array, a tensor or another ordered collection; None of a single value."""
    if isinstance(value, str | bytes | Mapping | PathLike) or not hasattr(type(value), "__iter__"):
        return None
    if hasattr(value, "ndim") and hasattr(value, "tolist"):
        found = value.tolist()  # of 0-dimensional arrays and tensors a number
        return found if isinstance(found, list) else None
    if isinstance(value, set | frozenset):
        raise InputError(f"{_shown(value)} has no order; give a list")
    return list(value) if isinstance(value, Iterable) and not hasattr(value, "parameters") else None


def _scalar(value: Any) -> Any:
    """The number or text in a scalar of NumPy or torch, a path, a dtype or a device."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if isinstance(value, bool | None):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # of a member of an enumeration its value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        return float(value)
    if isinstance(value, PathLike):
        return fspath(value)
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return value


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"<{type(value).__module__}.{type(value).__qualname__}>"
