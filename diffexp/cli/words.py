"""The words ``key=value`` of every command: split, and read without Hydra where their meaning is plain."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from diffexp.errors import InputError, nearest

PLAIN = re.compile(r"[\w.+-]*", re.ASCII)
"""Values that mean the same with and without Hydra's grammar: no quotes, brackets, commas, spaces, interpolations."""
_DIGITS = r"(0|[1-9](_?\d)*)"
_INT = re.compile(rf"[+-]?{_DIGITS}")
_FLOAT = re.compile(rf"[+-]?({_DIGITS}\.|{_DIGITS}?\.\d(_?\d)*|({_DIGITS}|{_DIGITS}?\.\d*)e[+-]?\d+|inf|nan)", re.I)
_NAMED = {"null": None, "true": True, "false": False}

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_BARE = r"[^\[\](){}'\",:|]+"
_ITEM = rf"\s*(?:{_QUOTED}|{_BARE})\s*"
_LIST = rf"\[\s*\]|\[{_ITEM}(?:,{_ITEM})+\]|\[\s*(?:{_QUOTED})\s*\]"
_ONE = rf"\s*(?:{_QUOTED}|{_LIST})\s*"
_NOT_TEXT = re.compile(rf"{_ONE}(,{_ONE})*|\s*(choice|shuffle)\(.*\)\s*|\$\{{[^{{}}]*\}}|", re.DOTALL)
_SAFE_TEXT = re.compile(r"[\w./%+*?|@-]+( [\w./%+*?|@-]+)*", re.ASCII)


def split_word(word: str, known: Callable[[str], bool], suggest: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Split ``key=value`` at the first equals sign.

    Args:
        known: whether there is such a key, for the message.
        suggest: what may be meant by a key that is not known, to follow the message.

    Raises:
        InputError: no equals sign.
    """
    key, equals, value = word.partition("=")
    if not equals:
        more = f": write {key}=..." if known(key) else suggest(key) if suggest else "; see --help"
        raise InputError(f"'{word}' is not key=value{more}")
    return key, value


def split_words(words: Iterable[str], keys: Iterable[str], prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The values of a command line by key; of a key that is given twice, the last.

    Args:
        keys: the keys there are.
        prefixes: what further keys may begin with.

    Raises:
        InputError: a word that is not ``key=value``, or an unknown key.
    """
    keys = tuple(keys)
    values = dict(split_word(word, keys.__contains__) for word in words)
    for key in values:
        if key not in keys and not key.startswith(prefixes or ("=",)):
            raise InputError(f"unknown key '{key}'{nearest(key, keys) or '; see --help'}")
    return values


def plain_value(word: str) -> Any:
    """The value that Hydra's grammar reads from a word that is ``PLAIN``."""
    if word.lower() in _NAMED:
        return _NAMED[word.lower()]
    try:
        return int(word) if _INT.fullmatch(word) else float(word) if _FLOAT.fullmatch(word) else word
    except ValueError:  # Python reads at most 4300 digits
        return word


def read_value(key: str, word: str) -> Any:
    """The value of any word on the command line.

    Raises:
        InputError: Hydra's grammar does not accept the word.
    """
    if PLAIN.fullmatch(word):
        return plain_value(word)
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"{key}={word}").value()
    except (HydraException, ValueError) as error:
        raise InputError(f"{key}={word} cannot be read: {str(error).splitlines()[0]}") from error


def quoted_text(key: str, value: str) -> str:
    """Quote what stands for a text, such as a prompt, so that Hydra's grammar takes it whole.

    Unchanged are what is quoted already, lists of at least two texts or of quoted ones, several of these separated by
    commas (the values of a sweep), ``choice(...)``, ``${...}``, and words that Hydra reads as they are.

    Raises:
        InputError: text in brackets that could be a list as well.
    """
    if _NOT_TEXT.fullmatch(value) or _SAFE_TEXT.fullmatch(value):
        return value
    if value.startswith("[") and value.endswith("]"):
        inner = value[1:-1].replace('"', '\\"')
        raise InputError(
            f"""{key}={value} may be a list or a text: write '{key}=["{inner}"]' for a list, """
            f"""'{key}="[{inner}]"' to keep the brackets"""
        )
    return quote(value)


def quote(text: str) -> str:
    """A text in quotes, which Hydra's grammar reads as it is; complete interpolations ``${...}`` remain some."""
    return in_quotes(re.sub(r"\$\{(?![^{}]*\})", r"\\${", text))


def in_quotes(text: str) -> str:
    """A text in quotes for Hydra's grammar; interpolations ``${...}`` in it are kept."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def folder_word(key: str, folder: Path) -> str:
    """``key=<folder>`` as a word for Hydra, quoted."""
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"{key}='{text}'"


def choices_of(override: str) -> list[str]:
    """The options of a group that a word such as ``metric=[cost,fid]`` chooses."""
    value = override.partition("=")[2].strip()
    items = value[1:-1].split(",") if value.startswith("[") else [value]
    return [item.strip().strip("'\"") for item in items if item.strip()]
