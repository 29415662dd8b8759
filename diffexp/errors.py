"""Errors for the user: the exception, spelling hints, exit codes."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit codes of every command."""


class InputError(ValueError):
    """Invalid input: the message is one line with the key, the value and the nearest valid spelling or next step.

    The command line prints it and exits with code 2.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it: the line alone, as the command line does."""
        return [f"{type(self).__name__}: {one_line(self)}"]


def one_line(error: BaseException) -> str:
    """The error as one line: its type unless it is an ``InputError``, its message and its notes."""
    text = " ".join(str(error).split())
    message = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}".rstrip(": ")
    return message + "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def nearest_name(word: str, known: Iterable[str]) -> str:
    """The known name with the nearest spelling, or one that begins with the word; empty if there is none."""
    lowered = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    near += [name for name in sorted(lowered) if len(word) > 2 and name.startswith(word.lower())]
    return lowered[near[0]] if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """The nearest known spelling as the end of a message; empty if none is near."""
    near = nearest_name(word, known)
    return f"; did you mean '{near}'?" if near else ""


def unknown_option(group: str, name: str, known: Sequence[str], owner: str = "") -> str:
    """The message about an option that does not exist: the nearest one, or all that ``owner`` has."""
    near = get_close_matches(name.partition(".")[0], known, n=1)
    more = f"; did you mean '{group}.{near[0]}'?" if near else f" (available: {', '.join(known) or 'none'})"
    return f"unknown option '{group}.{name}'{f' of {owner}' if owner else ''}{more}"


def hint(word: str, known: Iterable[str]) -> str:
    """The nearest spelling and all known names as the end of a message; other families (``diffusers/``) in short."""
    names = sorted(known)
    family = word.rpartition("/")[0]
    groups = ((name, name.rpartition("/")[0]) for name in names)
    shown = (name if group in ("", family) else f"{group}/..." for name, group in groups)
    return f"{nearest(word, names)} (available: {', '.join(dict.fromkeys(shown)) or 'none'})"
