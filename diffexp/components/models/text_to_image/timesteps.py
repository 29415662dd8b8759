"""The timesteps of a scheduler, whose iterator waits for questions; see ``paused``."""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

KEPT = {Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.float, Tensor.__getitem__}
"""Operations whose results stay ``Timesteps``."""


class Questions(Protocol):
    """What is asked for while the timesteps of a scheduler are walked through."""

    @property
    def visits(self) -> Sequence[Any]:
        """Timesteps of the questions so far, as an index finds them."""
        ...

    def questions(self, known: int) -> Iterator[Tensor]:
        """The timestep of every question, each when it is put; ``known`` timesteps are known beforehand."""
        ...

    def length(self, known: int) -> int:
        """How many timesteps a pipeline sees where ``known`` are known beforehand."""
        ...


class Timesteps(Tensor):
    """The timesteps of a scheduler, whose iterator waits for questions."""

    scheduler: Questions

    @classmethod
    def of(cls, values: Tensor, scheduler: Questions) -> "Timesteps":
        """The same values [steps], for a scheduler that waits."""
        made = values.detach().as_subclass(cls)
        made.scheduler = scheduler
        return made

    def __iter__(self) -> Iterator[Tensor]:
        return self.scheduler.questions(self.shape[0])

    def __len__(self) -> int:
        return self.scheduler.length(self.shape[0])

    def __getitem__(self, index: Any) -> Tensor:
        asked = self.scheduler.visits if isinstance(index, int) else ()
        return asked[index] if asked and 0 <= index < len(asked) else super().__getitem__(index)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **(kwargs or {}))
        if func in KEPT and isinstance(found, Tensor) and found.ndim == 1:
            return cls.of(found, args[0].scheduler)
        return found
