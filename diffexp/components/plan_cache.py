"""Compiled plans, kept by what determines them: in this process, and on disk for the next one.

The key of a plan covers the numbers and options that its scheduler is bound to, all code of this package and of the
class of diffusers, the versions of the libraries and the processor. There is none where something cannot be hashed, as
the code of a plugin with everything that it calls: such plans are compiled anew.
"""

import functools
import hashlib
import inspect
import platform
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from diffexp.components.schedulers.foreign.diffusers_method import ClassMethod
from diffexp.errors import InputError
from diffexp.files import cache_folder, prune, write_text
from diffexp.plan.compile import Sampler, compile_or_direct
from diffexp.plan.method import FunctionMethod, Method
from diffexp.plan.table import Plan

PACKAGE = Path(__file__).resolve().parents[1]
CODE = ("plan", "components", "catalog")
"""Folders of the package whose code plans depend on."""
LIBRARIES = ("torch", "diffusers", "numpy", "scipy")
MOST_PLANS = 256
"""How many are kept in memory."""
MOST_BYTES = 64_000_000
"""Of all files together."""
WRITES_PER_PRUNING = 256
"""On average: to look at all files takes as long as hundreds of compilations."""

_known: dict[str, Plan] = {}


class NoKey(Exception):
    """Something cannot be hashed."""


def cached_or_compiled(method: Method) -> Sampler:
    """What ``compile_or_direct`` returns; from memory or the disk where an equal method was compiled before."""
    try:
        key = key_of(method)
    except NoKey:
        return compile_or_direct(method)
    if known := _known.get(key):
        return known
    folder = cache_folder("plans")
    file = folder / f"{key}.json" if folder else None
    sampler: Sampler | None = file and _read(file)
    if sampler:
        sampler = sampler.compiled_from(method)
    else:
        sampler = compile_or_direct(method)
        if file and isinstance(sampler, Plan):
            _write(file, sampler)
    if isinstance(sampler, Plan):
        if len(_known) >= MOST_PLANS:
            _known.clear()
        _known[key] = sampler
    return sampler


def _read(file: Path) -> Plan | None:
    """The plan in a file; None where there is none, or it is damaged."""
    try:
        plan = Plan.from_json(file.read_text(encoding="utf-8"))
        file.touch()  # the oldest are removed first
    except (OSError, ValueError, InputError):
        return None
    return plan


def _write(file: Path, plan: Plan) -> None:
    """Keep a plan that is the same when read back, unless the disk does not take it."""
    with suppress(OSError):
        write_text(file, plan.to_json())
        if _read(file) != plan:
            file.unlink(missing_ok=True)
        if int(file.stem[:8], 16) % WRITES_PER_PRUNING == 0:  # keys are hashes; needs no count that processes share
            prune(file.parent, MOST_BYTES)


def key_of(method: Method) -> str:
    """Hash of everything that the plan of a method depends on.

    Raises:
        NoKey: something cannot be hashed.
    """
    if type(method) not in (FunctionMethod, ClassMethod):
        raise NoKey
    digest = hashlib.sha256(_surroundings())
    digest.update(str(torch.get_default_dtype()).encode())
    _feed(digest, method)
    return digest.hexdigest()


class Digest(Protocol):
    """A hash of ``hashlib``."""

    def update(self, data: bytes, /) -> None: ...


def _feed(digest: Digest, value: Any) -> None:
    """Add a value with its type, so that different ones give different bytes.

    Raises:
        NoKey: it cannot be hashed.
    """
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device):
        _part(digest, type(value).__name__, repr(value).encode())
    elif isinstance(value, tuple) and set(map(type, value)) <= {float}:
        _part(digest, "floats", struct.pack(f"<{len(value)}d", *value))
    elif isinstance(value, list | tuple):
        _items(digest, type(value).__name__, value)
    elif isinstance(value, Mapping):
        _items(digest, "mapping", [part for item in value.items() for part in item])
    elif isinstance(value, Tensor | np.ndarray | np.generic):
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        if array.dtype.hasobject:
            raise NoKey
        _part(digest, f"array {array.dtype} {array.shape}", array.tobytes())
    elif isinstance(value, Enum):
        _part(digest, _name(type(value)), value.name.encode())
    elif isinstance(value, functools.partial):
        _items(digest, "partial", [value.func, value.args, value.keywords])
    elif isinstance(value, FunctionType | type):
        _part(digest, "code", _name(value).encode())
    elif is_dataclass(value):
        own = [getattr(value, field.name) for field in fields(value) if field.compare]
        _items(digest, _name(type(value)), own)
    elif type(value).__module__.startswith("diffusers."):
        _part(digest, _name(type(value)), _sources(type(value)))
        _feed(digest, vars(value))
    else:
        raise NoKey


def _part(digest: Digest, kind: str, content: bytes) -> None:
    digest.update(f"{kind} {len(content)}\0".encode() + content)


def _items(digest: Digest, kind: str, items: Any) -> None:
    _part(digest, kind, str(len(items)).encode())
    for item in items:
        _feed(digest, item)


def _name(code: Any) -> str:
    """The name by which a function or class is found in code that is hashed: this package, or diffusers.

    Raises:
        NoKey: it is found in other code, or not under its name.
    """
    module, name = code.__module__ or "", code.__qualname__
    ours = any(module.startswith(f"diffexp.{folder}.") for folder in CODE)
    found = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not code or not (ours or module.startswith("diffusers.")):
        raise NoKey
    return f"{module}:{name}"


@functools.lru_cache(maxsize=256)
def _sources(cls: type) -> bytes:
    """Hash of the files that define a class and those it inherits from."""
    digest = hashlib.sha256()
    for own in cls.__mro__[:-1]:
        with suppress(OSError, TypeError):
            digest.update(Path(inspect.getfile(own)).read_bytes())
    return digest.digest()


@functools.cache
def _surroundings() -> bytes:
    """Hash of the code of this package, the versions of libraries, and the processor, on which rounding depends."""
    digest = hashlib.sha256()
    for file in (file for folder in CODE for file in sorted((PACKAGE / folder).rglob("*.py"))):
        _part(digest, str(file.relative_to(PACKAGE)), file.read_bytes())
    facts = [platform.python_version(), *_processor(), *(version(name) for name in LIBRARIES)]
    _items(digest, "surroundings", facts)
    return digest.digest()


def _processor() -> Iterator[str]:
    yield from (platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability())
    with suppress(OSError):  # Linux alone has it
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        yield next((line for line in lines if line.startswith("model name")), "")
