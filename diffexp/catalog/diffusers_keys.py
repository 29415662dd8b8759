"""Keys of diffusers' scheduler configs, by what they decide, so that none of a checkpoint's is ignored silently."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from diffexp.catalog.diffusers import TRAINING, WITHOUT_EFFECT

CLIPPING = (
    *("clip_sample", "clip_sample_range", "clip_denoised"),
    *("thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
)
"""Clipping of the x0 estimate, which the model decides."""

UNIFORM = ("timestep_spacing", "steps_offset", "set_alpha_to_one", "sigma_schedule", "shift", "flow_shift")
"""Levels that our own grids and schedules make from the config, with every value."""

SPACING: Mapping[str, tuple[Any, ...]] = {
    "use_karras_sigmas": (False,),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
    "use_lu_lambdas": (False,),
    "interpolation_type": ("linear",),
    "lambda_min_clipped": (-math.inf,),
    "final_sigmas_type": ("zero",),
    "shift_terminal": (),
    "use_dynamic_shifting": (False,),
    "time_shift_type": ("exponential",),
}
"""Further keys about the levels, which a grid that is chosen replaces, each with the values that change nothing."""

LEVELS: Mapping[str, tuple[Any, ...]] = {
    **SPACING,
    "timestep_type": ("discrete",),
    "sigma_min": (),
    "sigma_max": (),
    "rho": (7.0,),
    "invert_sigmas": (False,),
    "original_inference_steps": (50,),
}
"""All keys about the levels that only the class itself makes levels of."""

SOLVER: Mapping[str, tuple[Any, ...]] = {
    "algorithm_type": ("dpmsolver++", "deis", "data_prediction"),
    "solver_order": (2,),
    "solver_type": ("midpoint", "logrho", "bh2"),
    "lower_order_final": (True,),
    "euler_at_final": (False,),
    "predict_x0": (True,),
    "disable_corrector": ([],),
    "solver_p": (),
    "predictor_order": (2,),
    "corrector_order": (2,),
    "tau_func": (),
    "skip_prk_steps": (True,),
    "variance_type": ("fixed_small",),
    "stochastic_sampling": (False,),
    "timestep_scaling": (10.0,),
    "eta": (0.0,),
    "s_noise": (1.0,),
    "noise_sampler_seed": (),
}
"""How a class steps, each key with the values that our scheduler of the same name has."""

OLD = ("predict_epsilon", "use_flow_sigma")
"""Names of keys in earlier releases."""

KNOWN = frozenset((*TRAINING, *WITHOUT_EFFECT, *CLIPPING, *UNIFORM, *LEVELS, *SOLVER, *OLD))
"""Every key whose meaning is known here."""


def spoken(config: Mapping[str, Any], keys: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
    """The entries of a config among ``keys`` whose values change something."""
    given = {key: value for key, value in config.items() if key in keys and value is not None}
    return {key: value for key, value in given.items() if not any(value == plain for plain in keys[key])}
