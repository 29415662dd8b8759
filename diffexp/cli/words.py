"""The words ``key=value`` of every command."""

from collections.abc import Callable, Iterable

from diffexp.errors import InputError, nearest


def split_word(word: str, known: Iterable[str], suggest: Callable[[str], str] | None = None) -> tuple[str, str]:
    """Split ``key=value`` at the first equals sign.

    Args:
        known: the keys, for the message.
        suggest: what may be meant by a key that is not known, to follow the message.

    Raises:
        InputError: no equals sign.
    """
    key, equals, value = word.partition("=")
    if not equals:
        more = f": write {key}=..." if key in known else suggest(key) if suggest else "; see --help"
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
    values = dict(split_word(word, keys) for word in words)
    for key in values:
        if key not in keys and not key.startswith(prefixes or ("=",)):
            raise InputError(f"unknown key '{key}'{nearest(key, keys) or '; see --help'}")
    return values
