"""The top-level keys of a config, each stated once: the checks and ``--help`` are derived from this table.

``conf/config.yaml`` repeats names, defaults and texts for its readers; a test holds it equal to the table.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.entry import as_typed
from diffexp.catalog.kinds import KINDS
from diffexp.catalog.types import OptionType, is_missing
from diffexp.errors import hint

_FILES = ("png", "safetensors", "tar")
PIPE = "pipe"
"""The key whose parts are the arguments of a pipeline's call."""
MAX_TAG = 64
"""Longest tag that W&B accepts; with a longer one it refuses the run."""


@dataclass(frozen=True)
class Key:
    """A top-level key that is not a group of configs."""

    name: str
    type: OptionType
    default: Any
    help: str
    """One line for ``--help``."""
    at_least: int | None = None
    choices: tuple[str, ...] = ()
    also: Callable[[Any], str | None] = lambda value: None
    """A further condition: what is wrong with a value other than null, or None."""
    swept: bool = True
    """Whether the cells of a sweep may have different values."""
    free_text: bool = False
    """Whether a string is free text, in which commas and brackets have no meaning."""
    condition: bool = False
    """Whether it states what is sampled, from which inputs or how often: only runs that agree in it are ranked."""

    @property
    def is_text(self) -> bool:
        """Whether commas and brackets have no meaning in a value."""
        return self.free_text or self.type.is_text

    def problem(self, value: Any) -> str | None:
        """Return what is wrong with ``value``, as in "is not an integer"; None if nothing is."""
        if value is None or is_missing(value):
            nullable = self.type.optional or self.type.base == "any"
            return None if nullable and value is None else f"must have a value, it cannot be {as_typed(value)}"
        if problem := self.also(value) or self.type.problem(value):
            return problem
        if self.at_least is not None and float(value) < self.at_least:
            return f"must be at least {self.at_least}"
        if self.choices and value not in self.choices:
            return f"is not known{hint(str(value), self.choices)}"
        return None


def _not_finite(value: Any) -> str | None:
    return "must be finite" if isinstance(value, float) and not math.isfinite(value) else None


def _no_device(value: Any) -> str | None:
    known = re.fullmatch(r"auto|cpu|mps|(cuda|xpu)(:\d+)?", str(value))
    return None if known else "is not one of auto, cpu, cuda, cuda:<number>, mps, xpu"


def _no_class(value: Any) -> str | None:
    items = value if isinstance(value, list | tuple) else [value]
    fits = items and all(isinstance(item, int | str) and not isinstance(item, bool) for item in items)
    return None if fits else "is not a class number or name, or a list of these"


def _no_arguments(value: Any) -> str | None:
    return None if isinstance(value, Mapping) else f"is not one of the arguments of a call; write {PIPE}.<name>=..."


def _count(value: Any) -> str | None:
    counts = isinstance(value, int) or str(value).isdecimal()
    return f"is no kind of files ({', '.join(_FILES)}); write num_samples={value}" if counts else None


def _bad_tag(value: Any) -> str | None:
    lengths = [len(str(tag)) for tag in value] if isinstance(value, list | tuple) else []
    wrong = next((length for length in lengths if not 1 <= length <= MAX_TAG), None)
    return None if wrong is None else f"has a tag of {wrong} characters; W&B takes 1 to {MAX_TAG}"


_INT, _TEXT, _ANY = OptionType("int"), OptionType("str"), OptionType("any")
_INT_OR_NULL, _TEXT_OR_NULL = OptionType("int", optional=True), OptionType("str", optional=True)
_NUMBER_OR_NULL, _TEXTS_OR_NULL = OptionType("float", optional=True), OptionType("text", optional=True)
_DTYPES = ("auto", "float32", "float16", "bfloat16", "float64")

KEYS = (
    Key("steps", _INT, 50, "number of steps, at most the number of training timesteps of the model", at_least=1),
    Key("max_nfe", _INT_OR_NULL, None, "budget of model evaluations; steps is reduced to fit", at_least=1),
    Key("max_forward_passes", _INT_OR_NULL, None, "the same, but each evaluation of guidance counts", at_least=1),
    Key("seed", _INT, 0, "sample i depends on the seed and i alone"),
    Key(
        "num_samples",
        _INT_OR_NULL,
        None,
        "null: 1 per prompt of a pipeline, 4 of a checkpoint, else 64",
        at_least=1,
        condition=True,
    ),
    Key("batch_size", _INT, 64, "samples per model call; fewer need less memory and are the same samples", at_least=1),
    Key("prompt", _TEXTS_OR_NULL, None, "text, or a list of texts that the samples cycle through", condition=True),
    Key("negative_prompt", _TEXTS_OR_NULL, None, "text that guidance leads away from", condition=True),
    Key(
        "label",
        _ANY,
        None,
        "class number or name, or a list that the samples cycle through",
        also=_no_class,
        condition=True,
    ),
    Key("guidance_scale", _NUMBER_OR_NULL, None, "1 is no guidance; null: the model's default", 0, also=_not_finite),
    Key(
        PIPE,
        _ANY,
        {},
        "further arguments of a pipeline's call: pipe.max_sequence_length=128",
        also=_no_arguments,
        condition=True,
    ),
    Key("snapshot_every", _INT_OR_NULL, None, "steps between snapshots, 0 for none; null: ten per run", at_least=0),
    Key("device", _TEXT, "auto", "auto, cpu, cuda, cuda:1, mps, xpu", also=_no_device),
    Key("dtype", _TEXT, "auto", f"precision of the network: {', '.join(_DTYPES)}", choices=_DTYPES),
    Key("compile", OptionType("bool"), False, "compile the network with torch.compile"),
    Key(
        "samples",
        _TEXT,
        "png",
        "files of images: png, or shards: tar, safetensors",
        choices=_FILES,
        also=_count,
    ),
    Key(
        "workers",
        _INT_OR_NULL,
        None,
        "worker processes; null: one, or as hydra/launcher says",
        at_least=1,
        swept=False,
    ),
    Key("resume", _TEXT_OR_NULL, None, "folder of an earlier run or sweep to finish"),
    Key("objective", _TEXT_OR_NULL, None, "metric that a search optimises (hydra/sweeper=optuna)"),
    Key(
        "stop",
        _TEXT_OR_NULL,
        None,
        "decided: cells of a sweep draw samples until it is clear how they compare",
        choices=("decided",),
        swept=False,
    ),
    Key("name", _TEXT_OR_NULL, None, "name of the run in the tracker; null: built from the overrides", free_text=True),
    Key("tags", OptionType("list", item=_TEXT), (), "labels in the tracker", also=_bad_tag),
    Key("notes", _TEXT_OR_NULL, None, "remark in the tracker", free_text=True),
)
BY_NAME: Mapping[str, Key] = {key.name: key for key in KEYS}
TOP_LEVEL = (*KINDS, *BY_NAME)

DEFAULT_CHOICES: Mapping[str, str | list[str]] = {
    "model": "mnist",
    "scheduler": "ddim",
    "grid": "auto",
    "loop": "denoise",
    "guidance": "cfg",
    "metric": ["cost", "fid", "kid", "wasserstein"],
    "tracker": "wandb",
}
"""The option of each group in ``conf/config.yaml``."""
MULTI_CHOICE_GROUPS = (*(kind.name for kind in KINDS.values() if kind.several), "experiment")
"""Groups that accept a list of options."""
