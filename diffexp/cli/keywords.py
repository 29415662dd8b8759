"""Python values as words of the command line: ``steps=10, prompt="a, b"`` as ``steps=10`` and ``prompt='a, b'``."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.cli.keys import BY_NAME, MULTI_CHOICE_GROUPS
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
        if not isinstance(value, Mapping) or not _has_parts(key):
            yield key, self._text(key, value)
            return
        several = key in KINDS and KINDS[key].several
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
                raise InputError(f"{key}: a sweep takes names in a list; write options as **{{'{key}.option': [...]}}")
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
    return key.partition(".")[0] == "hydra" or (key.partition(".")[0] in KINDS and key.count(".") < depth)


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
    if isinstance(value, bool | int | float | str | None):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, PathLike):
        return fspath(value)
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return str(value).removeprefix("torch.")
    return value


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"<{type(value).__module__}.{type(value).__qualname__}>"
