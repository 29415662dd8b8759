"""Accuracy of a scheduler in float32 and bfloat16, and precision of its own coefficients."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diffexp.certify.bindings import OfClass
from diffexp.certify.bound import Bound
from diffexp.certify.checks.order import smooth
from diffexp.certify.data import MIXTURE
from diffexp.certify.defects import point_defects
from diffexp.certify.outcome import Outcome, failed, passed, warned
from diffexp.certify.runs import distance, sample_noise
from diffexp.certify.subject import Subject
from diffexp.errors import InputError
from diffexp.plan.compile import sample
from diffexp.plan.levels import Level
from diffexp.plan.moments import POINT

STEPS = 20
FLOAT32_ALLOWED = 1e-3
"""Relative; a method whose coefficients do not cancel each other stays near 1e-6."""
OWN_ALLOWED = 1e-4
"""How much of the output float32 tables may change: a thousand roundings."""
EXACT, ROUNDED = 1e-10, 1e-5
"""Between these two a defect on point data is float32 rounding."""
MANY = 96


def precision(subject: Subject) -> Outcome:
    """Execution in float32 and bfloat16 against float64, and the precision of the coefficients themselves."""
    bound = subject.bind(STEPS)
    truth = _run(bound, torch.float64)
    scale = truth.square().mean().sqrt().item()
    single, half = (distance(_run(bound, dtype), truth) / scale for dtype in (torch.float32, torch.bfloat16))
    numbers: dict[str, Any] = {"float32": single, "bfloat16": half}
    found = f"float32 is off by {single:.0e}, bfloat16 by {half:.0e}"
    if not math.isfinite(truth.abs().max().item()):
        return failed("the output is not finite in float64", **numbers)
    if not single <= FLOAT32_ALLOWED:
        return failed(f"{found}: its coefficients cancel each other", **numbers)
    fault = _of_class(subject, numbers) if isinstance(bound, OfClass) else _of_code(subject, bound, numbers)
    if fault is not None:
        return failed(f"{fault}; {found}", **numbers)
    if not math.isfinite(half):
        return warned(f"{found}: bfloat16 is not enough for it", **numbers)
    if not isinstance(bound, OfClass) and (where := _single_in(bound, of_samples=True)):
        return warned(f"{found}; {where} makes float32 of samples, whatever their dtype", **numbers)
    own = numbers["coefficients"]
    if math.isnan(own):
        return passed(found, **numbers)
    return passed(f"{found}; its coefficients are good to {max(own, 1e-16):.0e}", **numbers)


def _run(bound: Bound, dtype: torch.dtype) -> Tensor:
    """Run with everything in ``dtype``, the network's output rounded to it."""
    noise = sample_noise()

    def network(u: Tensor, level: Level) -> Tensor:
        noisy = MIXTURE.clean_and_noise(u.double(), level)
        return bound.case.training.prediction.output(level, *noisy).to(dtype)

    return sample(bound.sampler, network, bound.start().to(dtype), lambda: noise().to(dtype)).double()


def _of_class(subject: Subject, numbers: dict[str, Any]) -> str | None:
    """Compare the output of a class with its own tables to the same in float64, from few to many steps."""
    counts: tuple[int, ...] = (MANY // 4, MANY // 2, MANY)
    errors = []
    for steps in counts:
        try:
            bound = smooth(subject, steps)
        except InputError:
            break  # LCM allows no more steps than its network was distilled with
        shipped, wide = bound.usual_walk, bound.in_float64.usual_walk
        size = wide.output.square().mean().sqrt().item()
        errors.append(distance(shipped.output, wide.output) / size)
    counts = counts[: len(errors)]
    numbers |= {"coefficients": errors[-1], "coefficients_counts": list(counts), "coefficients_errors": errors}
    if errors[-1] > OWN_ALLOWED:
        return (
            f"its float32 coefficients change the output by {errors[-1]:.0e} at {counts[-1]} steps "
            f"({errors[0]:.0e} at {counts[0]}): rounding that the method amplifies"
        )
    return None


def _of_code(subject: Subject, bound: Bound, numbers: dict[str, Any]) -> str | None:
    """Measure rounding on point data, where everything else is exact, and find the torch function that causes it."""
    if bound.nonlinear or subject.is_finished:
        numbers["coefficients"] = math.nan
        return None
    defects = point_defects(bound.moments(POINT), bound.end)
    own = max(defect.size for defect in defects)
    numbers["coefficients"] = own
    if not EXACT < own < ROUNDED:
        return None
    where = _single_in(bound)
    where = f" ({where} gives float32)" if where else ""
    return f"its coefficients are float32{where}: good to {own:.0e} where float64 gives 1e-15"


def _single_in(bound: Bound, of_samples: bool = False) -> str:
    """Return the first torch function that makes a float32 tensor (or sample) in a float64 run; empty if none does."""
    start, noise = bound.start(), sample_noise()()
    with _SinglePrecision(start.shape if of_samples else None) as observer:
        bound.walk(MIXTURE, start=start, noise=lambda: noise)
    return observer.found


class _SinglePrecision(TorchFunctionMode):
    """Records the first torch function that makes a float32 tensor (of one shape, if it is given)."""

    def __init__(self, shape: torch.Size | None) -> None:
        super().__init__()
        self._shape = shape
        self.found = ""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        single = isinstance(result, Tensor) and result.dtype == torch.float32
        if not self.found and single and self._shape in (None, result.shape):
            self.found = f"torch.{getattr(func, '__name__', func)}"
        return result
