"""Class numbers from names and numbers as people type them ("seven", 7, "a 7")."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import torch

from diffexp.components.models.base import Condition, Request
from diffexp.errors import InputError

_FILLERS = frozenset("a an the digit number numeral figure handwritten image picture photo of".split())


@dataclass(frozen=True)
class ClassLabels:
    """The classes of a class-conditional network."""

    model: str
    """Name of the model, for messages."""
    count: int
    """Classes are numbered 0 .. count - 1."""
    words: dict[str, int] = field(default_factory=dict)
    """Names of classes, lower case; without any, prompts are refused."""
    null: int | None = None
    """The class that stands for "no label", if the network was trained with one."""

    def condition(self, request: Request, indices: Sequence[int], device: torch.device) -> Condition:
        """Class numbers for the samples with these indices; without a request, sample i gets class i modulo count.

        Raises:
            InputError: both a prompt and a label are given, or one of them names no class, or there is nothing to guide
                away from.
        """
        asked = self.choose(request)
        labels = [asked[i % len(asked)] for i in indices]
        negative = None
        if self.null is None and request.negative_prompt is not None:
            raise InputError(f"negative_prompt={request.negative_prompt}: model={self.model} takes none; leave it out")
        if self.null is not None:
            against = self._read("negative_prompt", request.negative_prompt) or [self.null]
            negative = {"class_labels": torch.tensor([against[i % len(against)] for i in indices], device=device)}
        positive = {"class_labels": torch.tensor(labels, device=device)}
        return Condition(positive, negative, [self.caption(label) for label in labels])

    def choose(self, request: Request) -> list[int]:
        """The classes asked for, to be cycled over the samples."""
        if request.prompt is not None and request.label is not None:
            raise InputError(f"prompt={request.prompt} and label={request.label} are both given; give one of them")
        asked = self._read("prompt", request.prompt) or self._read("label", request.label)
        return asked or list(range(self.count))

    def asked(self, request: Request, indices: Sequence[int]) -> list[int | None] | None:
        """The requested class of each of these samples; None for "no label", and without a request."""
        if request.prompt is None and request.label is None:
            return None
        classes = self.choose(request)
        return [None if (label := classes[i % len(classes)]) == self.null else label for i in indices]

    def caption(self, label: int) -> str:
        return "no label" if label == self.null else str(label)

    def _read(self, key: str, value: Any) -> list[int]:
        if value is None:
            return []
        values = [value] if isinstance(value, str | int) else list(value)
        if not values:
            raise InputError(f"{key}=[] is empty; give at least one class, or leave it out")
        return [self._read_number(key, v) if isinstance(v, int) else self._read_text(key, str(v)) for v in values]

    def _read_number(self, key: str, number: int) -> int:
        last = self.count if self.null == self.count else self.count - 1
        if isinstance(number, bool) or not 0 <= number <= last:
            extra = f", or {self.null} for no label" if self.null is not None else ""
            raise InputError(f"{key}={number} is not a class of model={self.model}; give 0 to {self.count - 1}{extra}")
        return number

    def _read_text(self, key: str, text: str) -> int:
        words = [word for word in re.findall(r"[\w-]+", text.lower()) if word not in _FILLERS]
        if len(words) == 1 and re.fullmatch(r"-?\d+", words[0]):
            return self._read_number(key, int(words[0]))
        if not self.words:
            raise InputError(
                f"{key}={text!r}: model={self.model} knows its classes by number; give 0 to {self.count - 1}"
            )
        if len(words) == 1 and words[0] in self.words:
            return self.words[words[0]]
        near = [match for word in words for match in get_close_matches(word, self.words, n=1)]
        if len(words) > 1 and all(word in self.words or word.isdigit() for word in words):
            hint = f"for several, give a list: {key}=[{','.join(words)}]"
        elif near:
            hint = f"did you mean {near[0]}?"
        else:
            hint = f"it knows {', '.join(self.words)}"
        raise InputError(f"{key}={text!r} is not a class of model={self.model}; {hint}")


def unconditional(model: str, request: Request, count: int) -> Condition:
    """The condition of ``count`` samples of a model that takes none.

    Raises:
        InputError: a prompt or label is given to an unconditional model.
    """
    for key in ("prompt", "label", "negative_prompt"):
        value = getattr(request, key)
        if value is not None:
            raise InputError(f"{key}={value}: model={model} is unconditional; leave {key} out")
    return Condition(positive={}, negative=None, captions=["unconditional"] * count)
