"""Files written atomically, hashes of files, and JSON without NaN."""

import hashlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error."""
    # The suffix stays, because image libraries choose the format by it.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        _create(temporary)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _create(temporary)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _create(path: Path) -> None:
    """Create an empty file, which must not be there."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


def cache_folder(name: str) -> Path | None:
    """The folder of a cache: in ``$DIFFEXP_CACHE``, by default ``diffexp`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.

    Returns:
        None where ``DIFFEXP_CACHE=off`` disables all caches on disk.
    """
    given = os.environ.get("DIFFEXP_CACHE")
    if given == "off":
        return None
    with suppress(RuntimeError):  # there may be no home
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffexp"
        return (Path(given).expanduser() if given else base) / name
    return None


def prune(folder: Path, most_bytes: int) -> None:
    """Remove the oldest files of a folder where all are more than ``most_bytes`` together, down to nine tenths."""
    files: list[tuple[float, int, Path]] = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may remove them too
            state = path.stat()
            files.append((state.st_mtime, state.st_size, path))
    total = sum(size for _, size, _ in files)
    if total <= most_bytes:
        return
    for _, size, path in sorted(files):
        if total <= 0.9 * most_bytes:
            break
        with suppress(OSError):
            path.unlink()
            total -= size


JSON_LEVELS = 2
"""Levels of a JSON file whose keys have lines of their own."""


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replace_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, infinities and NaN as text."""
    write_text(path, _json_text(content) + "\n")


def as_read(content: Any) -> Any:
    """What ``read_json`` returns of what ``write_json`` writes: tuples are lists; infinities and NaN, text."""
    return json.loads(_json_text(content))


def _json_text(value: Any, level: int = 0) -> str:
    """JSON with a line for each key of the first two levels; the ``indent`` of ``json`` takes ten times as long."""
    if level == JSON_LEVELS or not value or not isinstance(value, Mapping):
        try:
            return _ENCODER.encode(value)
        except (TypeError, ValueError):  # infinities and NaN, or keys that JSON does not have
            return json.dumps(plain(value), default=str, allow_nan=False)
    pad = "  " * (level + 1)
    items = (f"{pad}{json.dumps(str(key))}: {_json_text(item, level + 1)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + "\n" + "  " * level + "}"


def _encodable(value: Any) -> Any:
    """What JSON has in place of a value that it does not have."""
    return dict(value) if isinstance(value, Mapping) else str(value)


_ENCODER = json.JSONEncoder(default=_encodable, allow_nan=False)


def sha256_of_file(path: Path) -> str:
    """Hex digest of the content of a file; cached for as long as its size and time of modification are the same."""
    state = path.stat()
    return _sha256(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _sha256(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """The value as nested containers that JSON can hold: infinities and NaN become text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def read_json(path: Path) -> dict[str, Any]:
    """Read the mapping in a JSON file; empty if the file is missing or damaged."""
    return read_json_or_none(path) or {}


def read_json_or_none(path: Path) -> dict[str, Any] | None:
    """Read the mapping in a JSON file; None if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file; None if the file is missing or damaged."""
    import yaml  # here, because a start of the command does without

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML may be without its C library
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
