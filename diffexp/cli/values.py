"""Values as the command line gives them, as the config stores them, and what is wrong with one."""

import re
from typing import Any

from diffexp.catalog.types import OptionType
from diffexp.errors import InputError

_DIGITS = r"(0|[1-9](_?\d)*)"
_INT = re.compile(rf"[+-]?{_DIGITS}")
_FLOAT = re.compile(rf"[+-]?({_DIGITS}\.|{_DIGITS}?\.\d(_?\d)*|({_DIGITS}|{_DIGITS}?\.\d*)e[+-]?\d+|inf|nan)", re.I)
_NAMED = {"null": None, "true": True, "false": False}
_SWITCHES: dict[str, Any] = dict.fromkeys(("yes", "y", "on", "true"), True)
_SWITCHES.update((word, False) for word in ("no", "n", "off", "false"))


def plain_value(word: str) -> Any:
    """The value that Hydra's grammar reads from a word without quotes, brackets, commas and interpolations."""
    if word.lower() in _NAMED:
        return _NAMED[word.lower()]
    if _INT.fullmatch(word):
        return int(word)
    return float(word) if _FLOAT.fullmatch(word) else word


def read_value(key: str, word: str) -> Any:
    """The value of any word on the command line.

    Raises:
        InputError: Hydra's grammar does not accept the word.
    """
    if re.fullmatch(r"[\w.+-]+", word):
        return plain_value(word)
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"{key}={word}").value()
    except HydraException as error:
        raise InputError(f"{key}={word} cannot be read: {str(error).splitlines()[0]}") from error


def stored(kind: OptionType, value: Any) -> Any:
    """The value as OmegaConf stores it under this type, such as 5 for "5"; unchanged where it does not fit."""
    if isinstance(value, list | tuple) and kind.item:
        return [stored(kind.item, item) for item in value]
    if value is None or isinstance(value, list | tuple | dict):
        return value
    try:
        if kind.base == "int" and type(value) in (int, str):
            return int(value)
        if kind.base == "float" and type(value) in (int, float, str):
            return float(value)
        if kind.base == "bool" and isinstance(value, int | str):
            return {0: False, 1: True}.get(int(value), value)
    except (ValueError, OverflowError):  # 10**400 is no float
        return _SWITCHES.get(str(value).lower(), value) if kind.base == "bool" else value
    return str(value) if kind.base == "str" else value


def problem_of(kind: OptionType, value: Any) -> str | None:
    """Return why ``value`` is not of this type, as in "is not an integer"; None if it is."""
    return kind.problem(stored(kind, value))
