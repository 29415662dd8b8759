"""Peculiarities of single classes of diffusers, as data; looked up by name, without importing them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quirks:
    """The peculiarities of one scheduler class; the defaults are those of a class without any."""

    requires: str = ""
    """A package that the class uses and diffusers does not install."""
    cached: str = ""
    """A slow method of the class whose results depend on its arguments and its sigmas only."""
    for_flow: bool = False
    """Whether the class is for flow models although none of its options shows that."""
    delegated: tuple[str, ...] = ()
    """Config entries that the class has no option for because it passes them on to another class."""
    inert: tuple[str, ...] = ()
    """Options that the class accepts and never uses, whatever the others are."""
    reads_velocity: bool = False
    """Whether the class takes the network's output for v, whatever its config says."""
    consistency: bool = False
    """Whether the class samples consistency models, which solve no ODE or SDE."""
    midpoint: int = 0
    """Where in ``sigmas_interpol`` the second evaluation of a step lies, relative to ``step_index``."""
    noise_and_signal: tuple[str, str] | None = None
    """The tables of sigma and alpha, of a class without a table of sigma / alpha."""


_CLIPPING = ("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value")
_FLOW_LEVELS = (
    *("shift", "shift_terminal", "use_dynamic_shifting", "time_shift_type", "invert_sigmas"),
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
)
_GRID = ("timestep_spacing", "steps_offset", "set_alpha_to_one")

QUIRKS: Mapping[str, Quirks] = {
    "CMStochasticIterativeScheduler": Quirks(consistency=True),
    "CogVideoXDDIMScheduler": Quirks(inert=(*_CLIPPING, "eta", "use_clipped_model_output")),
    "CogVideoXDPMScheduler": Quirks(inert=(*_CLIPPING, "eta", "use_clipped_model_output")),
    "FlowMapEulerDiscreteScheduler": Quirks(for_flow=True),
    "FlowMatchEulerDiscreteScheduler": Quirks(inert=("s_churn", "s_tmin", "s_tmax", "s_noise")),
    "FlowMatchLCMScheduler": Quirks(consistency=True),
    "IPNDMScheduler": Quirks(reads_velocity=True, noise_and_signal=("betas", "alphas")),
    "KDPM2AncestralDiscreteScheduler": Quirks(midpoint=-1),
    "LCMScheduler": Quirks(consistency=True, inert=_GRID),
    "LMSDiscreteScheduler": Quirks(requires="scipy", cached="get_lms_coefficient"),
    "LTXEulerAncestralRFScheduler": Quirks(for_flow=True, delegated=_FLOW_LEVELS),
    "TCDScheduler": Quirks(consistency=True, inert=(*_CLIPPING, *_GRID, "timestep_scaling")),
}


def quirks_of(cls: type) -> Quirks:
    """The peculiarities of a class, or of the class of diffusers that it is derived from."""
    return next((QUIRKS[base.__name__] for base in cls.__mro__ if base.__name__ in QUIRKS), Quirks())
