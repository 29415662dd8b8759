"""Grids: the levels that a solver visits. Any solver takes any grid, on any of the three kinds of schedule.

Counts and roundings are diffusers', so that equal names mean equal levels. What others call them:

    ours            diffusers                             ComfyUI, A1111, k-diffusion
    linspace        timestep_spacing="linspace"           normal
    leading         timestep_spacing="leading"            ddim_uniform
    trailing        timestep_spacing="trailing"           simple (which rounds down); Flux's pipelines
    sgm_uniform                                           sgm_uniform
    flow            FlowMatchEulerDiscreteScheduler       normal, for flow models
    karras          use_karras_sigmas                     karras
    exponential     use_exponential_sigmas                exponential
    polyexponential                                       polyexponential
    beta            use_beta_sigmas
    beta_timesteps                                        beta
    cosine                                                kl_optimal
    lcm             LCMScheduler's own
    ays             AysSchedules                          AlignYourSteps
"""

from diffexp.components.grids.ays import ays as ays
from diffexp.components.grids.beta import beta as beta, beta_timesteps as beta_timesteps
from diffexp.components.grids.build import (
    at_sigmas as at_sigmas,
    check_steps as check_steps,
    sigma_range as sigma_range,
)
from diffexp.components.grids.explicit import from_sigmas as from_sigmas, from_timesteps as from_timesteps
from diffexp.components.grids.lcm import lcm as lcm
from diffexp.components.grids.sigmas import (
    cosine as cosine,
    exponential as exponential,
    flow as flow,
    karras as karras,
    polyexponential as polyexponential,
)
from diffexp.components.grids.uniform import (
    leading as leading,
    linspace as linspace,
    sgm_uniform as sgm_uniform,
    trailing as trailing,
)

BY_NAME = {
    grid.__name__: grid
    for grid in (
        *(linspace, leading, trailing, sgm_uniform, flow, karras, exponential, polyexponential),
        *(beta, beta_timesteps, cosine, lcm, ays),
    )
}
"""The built-in grids by their names in the config."""
