"""Running a table through the network so that gradients flow to its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffexp.components.guidance.base import Predict
from diffexp.components.models.base import Condition
from diffexp.learn.coordinates import Facts
from diffexp.learn.table import Table

KEPT_BYTES = 2_000_000_000
"""Activations that a rollout keeps for its gradient; where there are more, each evaluation is computed twice."""

STEP = 5e-4
"""Of differences in the timestep, as a share of the training's range."""

Estimate = Callable[[int, Tensor], Tensor]
"""(number of the evaluation, z) to the x0 estimate."""


@dataclass(frozen=True)
class Network:
    """A guided model under the conditions of some samples."""

    predict: Predict
    condition: Condition
    difference: float = 0.0
    """Half the width of differences that stand for the derivative in the timestep, where the network has none."""

    def __call__(self, u: Tensor, timestep: Tensor) -> Tensor:
        """The raw output for ``u`` [B, *shape] at one timestep, in the shape and dtype of ``u``."""
        output = self._output(u, timestep)
        if not (self.difference and timestep.requires_grad):
            return output
        with torch.no_grad():
            after, before = (self._output(u, timestep + step) for step in (self.difference, -self.difference))
            slope = (after - before) / (2 * self.difference)
        return output + slope * (timestep - timestep.detach()).to(u.device)

    def _output(self, u: Tensor, timestep: Tensor) -> Tensor:
        t = timestep.to(u.device, u.dtype).expand(len(u))
        return self.predict(u, t, self.condition).to(u.dtype)

    def differentiable(self, u: Tensor, timestep_range: tuple[float, float]) -> "Network":
        """The same with a derivative in the timestep: that of the network, or differences where it has none."""
        low, high = timestep_range
        t = torch.tensor((low + high) / 2, requires_grad=True)
        has_one = replace(self, difference=0.0)(u, t).requires_grad
        return replace(self, difference=0.0 if has_one else STEP * (high - low))

    def of(self, rows: Sequence[int]) -> "Network":
        """The same for some of the samples."""
        known = self.condition
        negative = None if known.negative is None else _rows(known.negative, rows)
        captions = [known.captions[row] for row in rows]
        return replace(self, condition=Condition(_rows(known.positive, rows), negative, captions))


def rollout(
    table: Table,
    network: Network,
    start: Tensor,
    noise: Callable[[], Tensor],
    *,
    recompute: bool = False,
    estimates: list[Tensor] | None = None,
) -> Tensor:
    """The samples [B, *shape] that a table makes of standard normal ``start``, differentiable in its numbers.

    Args:
        noise: fresh standard normal noise in the shape of ``start``, for tables that draw it.
        recompute: keep no activations of the network, and evaluate it again for the gradient.
        estimates: x0 estimates before clipping of the first evaluations where they are known; the others are appended.
    """
    found, timesteps = table.evaluations(table.places())

    def estimate(k: int, z: Tensor) -> Tensor:
        if recompute:
            x0 = checkpoint(estimate_x0, table, network, z, found[k], timesteps[k], use_reentrant=False)
            assert isinstance(x0, Tensor)
            return x0
        return estimate_x0(table, network, z, found[k], timesteps[k])

    z = start * (table.start_std / found[0].scale.detach().item())
    return unroll(table, estimate, z, noise, estimates, clip=table.clip)


def unroll(
    table: Table,
    estimate: Estimate,
    z: Tensor,
    noise: Callable[[], Tensor],
    estimates: list[Tensor] | None = None,
    *,
    clip: float | None = None,
) -> Tensor:
    """The output of a table whose x0 estimates before clipping are ``estimate``, from its first ``z``.

    Args:
        estimates: those of the first evaluations where they are known; the others are appended.
        clip: bound of the estimates; None leaves them as they are.
    """
    kappa, c, g = table.steps(table.places())
    mixing = table.mixing()
    estimates = [] if estimates is None else estimates
    clipped = [clamped(x0, clip) for x0 in estimates]
    for k in range(table.nfe):
        if k == len(estimates):
            estimates.append(estimate(k, z))
            clipped.append(clamped(estimates[k], clip))
        own, parts = c[k] * mixing[k, : k + 1], clipped[: k + 1]
        if clip is not None:
            beyond = c[k] * table.remainders[k, : k + 1]
            own, parts = torch.cat([own - beyond, beyond]), [*parts, *estimates[: k + 1]]
        z = combined(kappa[k], z, own, parts)
        if not table.deterministic and k < table.nfe - 1:
            z = z + g[k].to(z.device) * noise()
    return z


def estimate_x0(table: Table, network: Network, z: Tensor, one: Facts, timestep: Tensor) -> Tensor:
    """The x0 estimate [B, *shape] of an evaluation, before it is clipped."""
    u = one.scale.to(z.device) * z
    return one.p.to(z.device) * u + one.q.to(z.device) * network(u, timestep)


def clamped(x0: Tensor, clip: float | None) -> Tensor:
    """Estimates within a bound, where there is one."""
    return x0 if clip is None else x0.clamp(-clip, clip)


def combined(kappa: Tensor, z: Tensor, weights: Tensor, estimates: Sequence[Tensor]) -> Tensor:
    """kappa * z + sum of weights * estimates."""
    total = kappa.to(z.device) * z
    for weight, x0 in zip(weights.to(z.device), estimates):
        total = total + weight * x0
    return total


def bytes_kept(table: Table, network: Network, start: Tensor) -> int:
    """Bytes of activations that one evaluation keeps for its gradient, measured."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    found, timesteps = table.evaluations(table.places())
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        estimate_x0(table, network, start.detach().clone().requires_grad_(), found[0], timesteps[0])
    return sum(storages.values())


def _rows(tensors: dict[str, Tensor], rows: Sequence[int]) -> dict[str, Tensor]:
    return {key: value[[*rows]] for key, value in tensors.items()}
