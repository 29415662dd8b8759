"""Messages for the person at the keyboard: the one error type, spelling hints, exit codes."""

from collections.abc import Iterable
from difflib import get_close_matches

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes of every command."""


class InputError(ValueError):
    """Bad input: the message is one line that says what, where, and the nearest valid spelling or next step.

    The command line prints it and exits with code 2.
    """


def one_line(error: BaseException) -> str:
    """What went wrong: the message, after the kind of error where it is no ``InputError``, and the notes on it."""
    text = " ".join(str(error).split())
    told = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".rstrip(": ")
    return told + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def nearest(word: str, known: Iterable[str]) -> str:
    """The nearest spelling, to be put behind a complaint; empty where none is near."""
    lowered = {name.lower(): name for name in known}
    near = [lowered[match] for match in get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)]
    return f"; did you mean '{near[0]}'?" if near else ""


def hint(word: str, known: Iterable[str]) -> str:
    """The nearest spelling and all there are, to be put behind a complaint; of another family only its name."""
    names = sorted(known)
    family = word.rpartition("/")[0]
    shown = (name if home in ("", family) else f"{home}/..." for name in names for home in [name.rpartition("/")[0]])
    return f"{nearest(word, names)} (available: {', '.join(dict.fromkeys(shown)) or 'none'})"
