"""Forward passes of a network: counted as they happen, guidance and all."""

import copy
import threading
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
            call = getattr(condition, "call", None)  # of a pipeline, which evaluates its networks as it likes
            before = call.passes.rows if call else 0
            output = model.predict(u, t, condition)
            self.rows += call.passes.rows - before if call else len(u)
            return output

        return with_predict(model, predict)

    @contextmanager
    def watching(self, networks: Iterable[nn.Module]) -> Iterator[None]:
        """Count the calls of these networks by this thread until the block ends.

        Their first argument has an entry per sample.
        """
        thread = threading.get_ident()

        def count(network: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
            if threading.get_ident() == thread:
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
