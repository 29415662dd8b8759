"""Compiling a method: trace, rewrite, and check the table against the code it came from."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from diffexp.errors import InputError
from diffexp.plan.basis import Intercepted
from diffexp.plan.execute import Network, execute
from diffexp.plan.from_trace import build_plan
from diffexp.plan.levels import Level
from diffexp.plan.method import Method, Noise, drives_object
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear, Recording, record

log = logging.getLogger(__name__)

_CHECK_SHAPE = (2, 3, 4, 4)


def compile_method(method: Method) -> Plan:
    """The plan of a bound scheduler, checked on random inputs with a nonlinear model. Its numbers are finite.

    Raises:
        NotLinear: no table gives the method's output (adaptive steps, dynamic thresholding, …).
        InputError: the method refuses its options.
    """
    if getattr(method, "adaptive", False):
        raise NotLinear("it chooses its steps by what it finds")
    traced, recording = method, _recorded(method)
    if recording.not_finite is not None and drives_object(method):
        # A step of no length, which float32 rounds to 0, can be the root of a negative number in float64.
        traced = method.in_own_precision()
        recording = _recorded(traced)
    if recording.not_finite is not None:
        cause = FloatingPointError(f"NaN at step {recording.not_finite}")
        raise NotLinear(f"its coefficients are not finite at evaluation {recording.not_finite + 1}") from cause
    plan = build_plan(recording, method.name, method.start_std)
    _check(plan, traced, single=recording.single)
    return plan.compiled_from(method)


def _recorded(method: Method) -> Recording:
    try:
        return record(method)
    except (InputError, NotLinear):
        raise
    except Exception as error:  # foreign code may raise anything on such vectors; the direct run shows the cause
        raise NotLinear(f"{type(error).__name__} while tracing: {error}") from error


def run_directly(method: Method, network: Network, start: Tensor, noise: Noise) -> Tensor:
    """Run the method's own code; its calls of torch.randn in the shape of the sample return ``noise()``."""

    def evaluate(x: Tensor, u: Tensor, level: Level) -> Tensor:
        return network(u, level)

    with _SuppliedNoise(noise, start.shape):
        return method(evaluate, start.clone(), noise)


@dataclass(frozen=True)
class Direct:
    """A method that runs uncompiled, because it is not a table."""

    method: Method
    reason: str
    cause: BaseException | None = None
    """The exception that tracing raised, if that is the reason."""

    @property
    def start_std(self) -> float:
        return self.method.start_std

    @property
    def nfe(self) -> int:
        """Evaluations as far as they are known beforehand."""
        return self.method.nfe

    @property
    def levels(self) -> Sequence[Level]:
        """Level of every evaluation as far as they are known beforehand."""
        return self.method.levels

    @cached_property
    def couples_samples(self) -> bool:
        """Whether a sample may depend on the others of its batch, as where one step size is chosen for all of them."""
        if getattr(self.method, "adaptive", False):
            return True
        start, rows = _check_noise()() * self.start_std, range(_CHECK_SHAPE[0])
        try:
            together = run_directly(self.method, _lively_network, start, _check_noise())
            alone = torch.cat([self._run_row(start, row) for row in rows])
        except Exception:  # the run itself will raise it
            return False
        return not torch.allclose(together, alone, rtol=1e-5, atol=1e-5, equal_nan=True)

    @cached_property
    def is_finite(self) -> bool:
        """Whether its output for random inputs is finite; assumed where it does not run on them."""
        try:
            output = run_directly(self.method, _lively_network, _check_noise()() * self.start_std, _check_noise())
        except Exception:  # the run itself will raise it
            return True
        return bool(output.isfinite().all())

    def _run_row(self, start: Tensor, row: int) -> Tensor:
        noise = _check_noise()
        return run_directly(self.method, _lively_network, start[[row]], lambda: noise()[[row]])


Sampler = Plan | Direct


def compile_or_direct(method: Method) -> Sampler:
    """The plan, or the method itself with one log line that says why."""
    try:
        return compile_method(method)
    except NotLinear as reason:
        log.warning("%s runs directly, uncompiled: %s", method.name, reason)
        return Direct(method, str(reason), reason.__cause__)


def sample(sampler: Sampler, network: Network, start: Tensor, noise: Noise) -> Tensor:
    """Run a plan or a direct method from ``start`` [batch, *shape]."""
    if isinstance(sampler, Plan):
        return execute(sampler, network, start, noise)
    return run_directly(sampler.method, network, start, noise)


def _check(plan: Plan, method: Method, single: bool) -> None:
    """Plan against code on random inputs, with a network that keeps x0 estimates large and one that keeps them small.

    Code that branches on its data takes another branch in one of them than on the basis vectors.
    """
    largest = max(abs(c) for row in plan.rows for c in (1.0, *row.x, *row.m, *(clamp.x for clamp in row.clamps)))
    for network in (_lively_network, _quiet_network):
        start = _check_noise()() * plan.start_std
        peak = _Peak(network)
        planned = execute(plan, peak, start, _check_noise())
        try:
            direct = run_directly(method, network, start, _check_noise())
        except Exception as error:
            raise NotLinear(f"{type(error).__name__} on a batch of shape {_CHECK_SHAPE}: {error}") from error
        if direct.shape != start.shape:
            raise NotLinear(f"the output has shape {tuple(direct.shape)} for an input of shape {_CHECK_SHAPE}")
        if bool(planned.isfinite().all()) != bool(direct.isfinite().all()):
            raise NotLinear("its table and its code disagree about finite values")
        error = float((planned - direct).abs().max())
        scale = max(1.0, float(direct.abs().max()))
        # Rounding grows with the largest intermediate number, which may cancel before the end.
        size = peak.value * largest
        allowed = 1e-4 * scale + 1e-6 * size if single else 1e-8 * scale + 1e-14 * size
        if error > allowed:
            raise NotLinear(f"its table is off by {error / scale:.1e} on random inputs")


class _Peak:
    """A network that records its largest input or output."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.value = 0.0

    def __call__(self, u: Tensor, level: Level) -> Tensor:
        output = self._network(u, level)
        self.value = max(self.value, float(u.abs().max()), float(output.abs().max()))
        return output


def _lively_network(u: Tensor, level: Level) -> Tensor:
    """Nonlinear, different at every timestep and place, bounded like a noise prediction."""
    return torch.tanh(0.7 * u + 0.3 * math.sin(0.01 * level.timestep))


def _quiet_network(u: Tensor, level: Level) -> Tensor:
    """The noise prediction of data close to 0, with a nonlinear remainder."""
    return u * (1 - 0.01 * level.alpha**2) / max(level.sigma, 1e-3) + 0.01 * level.alpha * torch.tanh(u)


def _check_noise() -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(1)
    return lambda: torch.randn(_CHECK_SHAPE, dtype=torch.float64, generator=generator)


class _SuppliedNoise(Intercepted):
    """Replaces draws in the shape of the sample by the noise of the run."""

    def __init__(self, noise: Noise, shape: torch.Size) -> None:
        super().__init__(shape)
        self._noise = noise

    def drawn(self, dtype: torch.dtype | None, device: Any) -> Tensor:
        # The supplier itself may call torch.randn.
        with torch._C.DisableTorchFunction():
            return self._noise().to(device=device, dtype=dtype)
