"""Which class of diffusers a native scheduler equals, with which options, and how well. Data; names, not imports."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EXACT = 1e-10
OWN = "own"
"""The levels that the class visits by itself, given to the native scheduler."""
SINGLE = 2e-5
"""Where diffusers computes its coefficients in float32."""


@dataclass(frozen=True)
class Twin:
    """One pair: equal tables on the grids that both have, or a known difference."""

    native: str
    cls: str
    """Name of the class in ``diffusers``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the native scheduler."""
    theirs: Mapping[str, Any] = field(default_factory=dict)
    """Of the class."""
    grid: str = "leading"
    tolerance: float = SINGLE
    """Largest relative difference of two coefficients."""
    difference: str = ""
    """Why the tables differ, where they do on purpose; the test that shows who is right is in ``tests/parity``."""
    prediction: str = "epsilon"


TWINS = (
    Twin("ddpm", "DDPMScheduler", tolerance=EXACT),
    Twin("ddim", "DDIMScheduler", tolerance=EXACT),
    Twin("ddim", "DDIMScheduler", {"eta": 1.0}, {"eta": 1.0}, tolerance=EXACT),
    Twin("euler", "EulerDiscreteScheduler"),
    Twin("euler_ancestral", "EulerAncestralDiscreteScheduler"),
    Twin("heun", "HeunDiscreteScheduler", grid="linspace"),
    Twin("dpm2", "KDPM2DiscreteScheduler", grid="linspace"),
    Twin("dpm2_ancestral", "KDPM2AncestralDiscreteScheduler", grid="linspace", tolerance=2e-4),
    Twin("lms", "LMSDiscreteScheduler", grid="linspace"),
    Twin("dpmpp_2m", "DPMSolverMultistepScheduler", grid=OWN),
    Twin("dpmpp_2m_sde", "DPMSolverMultistepScheduler", {}, {"algorithm_type": "sde-dpmsolver++"}, grid=OWN),
    Twin(
        "dpmpp_3m",
        "DPMSolverMultistepScheduler",
        {},
        {"solver_order": 3},
        grid=OWN,
        difference="theirs takes half of the second derivative, which leaves a method of order 2",
    ),
    Twin("deis", "DEISMultistepScheduler", grid=OWN),
    Twin("deis", "DEISMultistepScheduler", {"order": 3}, {"solver_order": 3}, grid=OWN),
    Twin("unipc", "UniPCMultistepScheduler", grid=OWN),
    Twin("unipc", "UniPCMultistepScheduler", {"order": 3}, {"solver_order": 3}, grid=OWN),
    Twin("pndm", "PNDMScheduler", {}, {"skip_prk_steps": True}, tolerance=EXACT),
    Twin("pndm", "PNDMScheduler", {"start": "runge_kutta"}, tolerance=EXACT),
    Twin(
        "ipndm",
        "IPNDMScheduler",
        prediction="v_prediction",
        difference="theirs has a noise schedule of its own, of which the model knows nothing",
    ),
    Twin("lcm", "LCMScheduler", grid=OWN),
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
    "IPNDMScheduler": (1, 0),  # its weights are those of even steps, which its levels do not take
    "DPMSolverMultistepScheduler": ("solver_order", 0),
    "DPMSolverSinglestepScheduler": ("solver_order", 0),
    "EDMDPMSolverMultistepScheduler": ("solver_order", 0),
    "DEISMultistepScheduler": ("solver_order", 0),
    "UniPCMultistepScheduler": ("solver_order", 1),
}
"""The order that the paper of a class claims: a number, or the option that holds it and what to add to it."""


VARIANTS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("deis", {"order": 3}),
    ("unipc", {"order": 3}),
    ("diffusers/deis", {"solver_order": 3}),
    ("diffusers/dpmsolver_multistep", {"solver_order": 3}),
    ("diffusers/dpmsolver_multistep", {"algorithm_type": "sde-dpmsolver++"}),
    ("diffusers/unipc", {"solver_order": 3}),
)
"""What ``scheduler=all`` certifies beside every scheduler at its defaults."""


def order_of_class(scheduler: Any, options: Mapping[str, Any]) -> float | None:
    """The order that a class or an object of one claims; None where it is not known.

    SDE variants of the DPM-Solver classes claim none: their papers give none for the noise.
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


def twins_of(name: str) -> list[Twin]:
    """The twins of a native scheduler."""
    return [twin for twin in TWINS if twin.native == name]


def natives_of(cls: str) -> list[Twin]:
    """The twins that a class belongs to."""
    return [twin for twin in TWINS if twin.cls == cls]
