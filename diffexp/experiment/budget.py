"""Forward passes that a sampler will take, found without evaluating the network."""

from collections.abc import Callable

import torch

from diffexp.components.guidance.base import Predict
from diffexp.components.models.base import Model, Request, state_dtype
from diffexp.components.models.passes import PassCounter, with_predict
from diffexp.plan.compile import Sampler

Guide = Callable[[Model, Sampler], Predict]
"""The predictions of a model under a run's guidance."""


def forward_passes(sampler: Sampler, guide: Guide, model: Model, request: Request) -> int:
    """Forward passes per sample: the guidance is called at every level, on a stand-in for the network."""
    counter = PassCounter()
    predict = guide(counter.counting(with_predict(model, lambda u, t, condition: torch.zeros_like(u))), sampler)
    condition = model.conditions(request, range(1))
    u = torch.zeros(1, *model.shape, device=model.device, dtype=state_dtype(model))
    with torch.inference_mode():
        for level in sampler.levels[: sampler.nfe]:
            predict(u, torch.full((1,), level.timestep, device=u.device, dtype=u.dtype), condition)
    return counter.rows
