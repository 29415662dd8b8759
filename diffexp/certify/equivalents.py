"""Equivalents in diffusers: the class that a native scheduler equals, its options, how closely; names, not imports."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXACT = 1e-10
OWN = "own"
"""The class's own levels, which the native scheduler is given."""
SINGLE = 2e-5
"""Tolerance where diffusers computes its coefficients in float32."""


@dataclass(frozen=True)
class DiffusersEquivalent:
    """A native scheduler and a class: equal tables on the timestep schedules that both have, or a known difference."""

    native: str
    cls: str
    """Name of the class in ``diffusers``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the native scheduler."""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the class."""
    grid: str = "leading"
    tolerance: float = SINGLE
    """Largest relative difference of two coefficients."""
    difference: str = ""
    """Why the tables differ on purpose; ``tests/parity`` has the test that shows which one is right."""
    prediction: str = "epsilon"


EQUIVALENTS = (
    DiffusersEquivalent("ddpm", "DDPMScheduler", tolerance=EXACT),
    DiffusersEquivalent("ddim", "DDIMScheduler", tolerance=EXACT),
    DiffusersEquivalent("ddim", "DDIMScheduler", {"eta": 1.0}, {"eta": 1.0}, tolerance=EXACT),
    DiffusersEquivalent("euler", "EulerDiscreteScheduler"),
    DiffusersEquivalent("euler_ancestral", "EulerAncestralDiscreteScheduler"),
    DiffusersEquivalent("heun", "HeunDiscreteScheduler", grid="linspace"),
    DiffusersEquivalent("dpm2", "KDPM2DiscreteScheduler", grid="linspace"),
    DiffusersEquivalent("dpm2_ancestral", "KDPM2AncestralDiscreteScheduler", grid="linspace", tolerance=2e-4),
    DiffusersEquivalent("lms", "LMSDiscreteScheduler", grid="linspace"),
    DiffusersEquivalent("dpmpp_2m", "DPMSolverMultistepScheduler", grid=OWN),
    DiffusersEquivalent(
        "dpmpp_2m_sde", "DPMSolverMultistepScheduler", {}, {"algorithm_type": "sde-dpmsolver++"}, grid=OWN
    ),
    DiffusersEquivalent(
        "dpmpp_3m",
        "DPMSolverMultistepScheduler",
        {},
        {"solver_order": 3},
        grid=OWN,
        difference="theirs takes half of the second derivative, which leaves a method of order 2",
    ),
    DiffusersEquivalent("deis", "DEISMultistepScheduler", grid=OWN),
    DiffusersEquivalent("deis", "DEISMultistepScheduler", {"order": 3}, {"solver_order": 3}, grid=OWN),
    DiffusersEquivalent("unipc", "UniPCMultistepScheduler", grid=OWN),
    DiffusersEquivalent("unipc", "UniPCMultistepScheduler", {"order": 3}, {"solver_order": 3}, grid=OWN),
    DiffusersEquivalent("pndm", "PNDMScheduler", {}, {"skip_prk_steps": True}, tolerance=EXACT),
    DiffusersEquivalent("pndm", "PNDMScheduler", {"start": "runge_kutta"}, tolerance=EXACT),
    DiffusersEquivalent(
        "ipndm",
        "IPNDMScheduler",
        prediction="v_prediction",
        difference="theirs has a noise schedule of its own, which is not the model's",
    ),
    DiffusersEquivalent("lcm", "LCMScheduler", grid=OWN),
)

ORDERS: Mapping[str, tuple[float | str, int]] = {
    "DDPMScheduler": (1, 0),
    "DDPMParallelScheduler": (1, 0),
    "DDIMScheduler": (1, 0),
    "DDIMParallelScheduler": (1, 0),
    "CogVideoXDDIMScheduler": (1, 0),
    "CogVideoXDPMScheduler": (1, 0),
    "EulerDiscreteScheduler": (1, 0),
    "EulerAncestralDiscreteScheduler": (1, 0),
    "EDMEulerScheduler": (1, 0),
    "FlowMatchEulerDiscreteScheduler": (1, 0),
    "LTXEulerAncestralRFScheduler": (1, 0),
    "HeunDiscreteScheduler": (2, 0),
    "FlowMatchHeunDiscreteScheduler": (2, 0),
    "KDPM2DiscreteScheduler": (2, 0),
    "KDPM2AncestralDiscreteScheduler": (2, 0),
    "LMSDiscreteScheduler": (4, 0),
    "IPNDMScheduler": (1, 0),  # its weights are those of equal steps, and its levels are not equally spaced
    "DPMSolverMultistepScheduler": ("solver_order", 0),
    "DPMSolverSinglestepScheduler": ("solver_order", 0),
    "EDMDPMSolverMultistepScheduler": ("solver_order", 0),
    "DEISMultistepScheduler": ("solver_order", 0),
    "UniPCMultistepScheduler": ("solver_order", 1),
}
"""The order in the paper of a class: a number, or the option that holds it; then what to add to it."""

VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("deis", {"order": 3}),
    ("unipc", {"order": 3}),
    ("diffusers/deis", {"solver_order": 3}),
    ("diffusers/dpmsolver_multistep", {"solver_order": 3}),
    ("diffusers/dpmsolver_multistep", {"algorithm_type": "sde-dpmsolver++"}),
    ("diffusers/unipc", {"solver_order": 3}),
)
"""Options that ``scheduler=all`` certifies beside every scheduler at its defaults."""


def order_of_class(scheduler: Any, options: Mapping[str, Any]) -> float | None:
    """Return the declared order of a class or an object of one; None where it is not known.

    SDE variants of the DPM-Solver classes have none: their papers give none for the noise.
    """
    cls = scheduler if isinstance(scheduler, type) else type(scheduler)
    if cls.__name__ not in ORDERS or str(options.get("algorithm_type", "")).startswith("sde"):
        return None
    claim, more = ORDERS[cls.__name__]
    if isinstance(claim, str):
        config = {} if isinstance(scheduler, type) else dict(getattr(scheduler, "config", {}))
        default = inspect.signature(cls.__init__).parameters[claim].default  # pyright: ignore[reportGeneralTypeIssues]
        claim = options.get(claim) or config.get(claim) or default
    return float(claim) + more


def equivalents_of(name: str) -> list[DiffusersEquivalent]:
    """Return the pairs of a native scheduler, by its name or by that of a class of diffusers."""
    return [pair for pair in EQUIVALENTS if name in (pair.native, pair.cls)]
