"""Files written atomically, hashes of files, and JSON without NaN."""

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

UMASK = os.umask(0)
"""Of this process. Read on import, because reading it means setting it, which is not safe once there are threads."""
os.umask(UMASK)


@contextmanager
def replace_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays, because image libraries choose the format by it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~UMASK)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replace_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, infinities and NaN as text."""
    write_text(path, json.dumps(plain(content), indent=2, default=str, allow_nan=False) + "\n")


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

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None
