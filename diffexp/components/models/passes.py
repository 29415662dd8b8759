"""Forward passes of a network: counted as they happen, guidance and all."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from diffexp.components.models.base import Condition, Model


@dataclass(eq=False)
class PassCounter:
    """Counts the samples that a network is evaluated for; classifier-free guidance evaluates it twice per sample."""

    rows: int = 0

    def counting(self, model: Model) -> Model:
        """A copy of the model whose ``predict`` is counted."""

        def predict(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
            self.rows += len(u)
            return model.predict(u, t, condition)

        def watched(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
            with self.watching(getattr(model, "networks")):  # noqa: B009
                return model.predict(u, t, condition)

        return with_predict(model, watched if getattr(model, "guides", False) else predict)

    @contextmanager
    def watching(self, networks: Iterable[nn.Module]) -> Iterator[None]:
        """Count the calls of these networks, whose first argument has an entry per sample, until the block ends."""

        def count(network: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            self.rows += len(next(iter((*args, *options.values()))))

        with ExitStack() as stack:
            for network in networks:
                stack.callback(network.register_forward_pre_hook(count, with_kwargs=True).remove)
            yield


def with_predict(model: Model, predict: Callable[[Tensor, Tensor, Condition], Tensor]) -> Model:
    """A copy of a model with another ``predict``; everything else is shared with the original."""
    other = copy.copy(model)
    # Past a frozen dataclass's guard. An attribute of the object comes before a method of its class.
    object.__setattr__(other, "predict", predict)
    return other
