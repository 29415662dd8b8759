"""Prompts from the command line and from files; imports no torch, because the command line reads them too."""

from collections.abc import Sequence
from pathlib import Path

from diffexp.errors import InputError


def read_texts(key: str, value: str | Sequence[str] | None) -> str | list[str] | None:
    """``@file.txt`` becomes the lines of that file, empty ones skipped; ``@@name`` is the text "@name".

    Raises:
        InputError: no such file, or no text in it.
    """
    if not isinstance(value, str):
        return None if value is None else list(value)
    if value.startswith("@@") or not value.startswith("@"):
        return value.removeprefix("@") if value.startswith("@@") else value
    file = Path(value[1:]).expanduser()
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"{key}={value} cannot be read: {reason} (a text that begins with @ is written @@)") from None
    if not any(lines):
        raise InputError(f"{key}={value} is empty; write one text per line")
    return [line for line in lines if line]
