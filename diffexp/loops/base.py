"""What a loop works with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from diffexp.models.base import Condition, Model
from diffexp.plan import Sampler
from diffexp.plan.execute import Network


@dataclass(frozen=True)
class Batch:
    """Some samples of a run, ready to be drawn.

    A loop plugin is a function ``(batch, *, options…) -> x`` marked ``@diffexp.loop``; x has shape
    [len(batch.indices), *model.shape].
    """

    indices: Sequence[int]
    """Which samples of the run."""
    model: Model
    condition: Condition
    sampler: Sampler
    network: Network
    """The guided, conditioned model: ``(u, level) -> raw output``. Whatever goes through it is watched."""
    noise: Callable[[], Tensor]
    """The next standard normal draw of every sample, [len(indices), *shape]; the first is the start noise."""
