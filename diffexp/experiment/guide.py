"""The guidance of a run around a model, and rehearsals of it that evaluate no network."""

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffexp.catalog.signatures import injected_parameters
from diffexp.components.guidance.base import Predict
from diffexp.components.guidance.diffusers_guiders import guided_by, guider_of, is_guider, try_out
from diffexp.components.models.base import Condition, CountsPasses, Model, Request, state_dtype
from diffexp.components.models.passes import PassCounter, with_predict
from diffexp.plan.compile import Sampler


@dataclass(frozen=True)
class Guide:
    """A guidance with its options and the scale of a run."""

    guidance: functools.partial[Any]
    scale: float

    def __call__(self, model: Model, sampler: Sampler) -> Predict:
        """The predictions of ``model`` under the guidance, for the levels of ``sampler``.

        Raises:
            InputError: the guidance refuses its options, the scale or the model.
        """
        guidance, scale = self.guidance, self.scale
        if is_guider(guidance.func):
            guider = guider_of(guidance.func, guidance.keywords, scale)
            timesteps = [level.timestep for level in sampler.levels]
            try_out(guider, model.shape, len({*timesteps}))
            return guided_by(guider, model.predict, timesteps) if scale > 1 else model.predict
        known = {"model": model, "levels": sampler.levels}
        return guidance(model.predict, scale, *(known[name] for name in injected_parameters("guidance", guidance)))

    def without(self, option: str) -> "Guide":
        """The same with the default of an option."""
        options = {name: value for name, value in self.guidance.keywords.items() if name != option}
        return replace(self, guidance=functools.partial(self.guidance.func, **options))

    def is_stepwise(self, traits: Mapping[str, Any]) -> bool:
        """Whether it depends on the steps of the run, not on the noise level alone."""
        guidance = self.guidance
        if is_guider(guidance.func) or "levels" in injected_parameters("guidance", guidance):
            return True
        return bool(traits.get("stepwise"))


@dataclass(frozen=True)
class Rehearsal:
    """What a guidance does at every level of a sampler, with a stand-in for the network."""

    passes: int
    """Forward passes per sample."""
    plain: bool
    """Whether all predictions are those of the network itself."""
    sha256: str
    """Hash of all predictions."""


def rehearse(guide: Guide, model: Model, sampler: Sampler, request: Request, samples: int = 1) -> Rehearsal:
    """Evaluate the guidance where a run will, with random outputs that depend on timestep and condition alone.

    Raises:
        InputError: see ``Guide``.
    """
    condition = model.conditions(request, range(samples))
    counter = PassCounter()
    stand_in = counter.counting(with_predict(model, _outputs))
    predict, digest, plain = guide(stand_in, sampler), hashlib.sha256(), True
    u = torch.zeros(samples, *model.shape, device=model.device, dtype=state_dtype(model))
    with torch.inference_mode():
        for level in sampler.levels[: sampler.nfe]:
            t = torch.full((samples,), level.timestep, device=u.device, dtype=u.dtype)
            output = predict(u, t, condition)
            digest.update(output.cpu().contiguous().numpy().tobytes())
            plain = plain and (predict is stand_in.predict or torch.equal(output, _outputs(u, t, condition)))
    of_one = model.passes(request) if isinstance(model, CountsPasses) else 1
    return Rehearsal(counter.rows // samples * of_one, plain, digest.hexdigest())


def _outputs(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
    sides = [value for _, value in sorted(condition.positive.items())]
    rows = []
    for row, timestep in zip(range(len(u)), t.tolist()):
        known = [str(timestep).encode(), *(side[row].float().cpu().numpy().tobytes() for side in sides)]
        seed = int.from_bytes(hashlib.blake2b(b"".join(known), digest_size=7).digest(), "little")
        rows.append(torch.randn(u.shape[1:], generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows).to(u.device, u.dtype)
