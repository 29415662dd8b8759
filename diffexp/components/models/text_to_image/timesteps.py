"""The timesteps of a scheduler, whose iterator waits for questions; see ``paused``."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffexp.components.models.text_to_image.paused import PausingScheduler

KEPT = {Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.float, Tensor.__getitem__}
"""Operations whose results stay ``Timesteps``."""


class Timesteps(Tensor):
    """The timesteps of a scheduler, whose iterator waits for questions."""

    scheduler: "PausingScheduler"

    @classmethod
    def of(cls, values: Tensor, scheduler: "PausingScheduler") -> "Timesteps":
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
