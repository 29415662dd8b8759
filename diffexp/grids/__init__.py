"""Which levels a solver visits. Any solver takes any grid, on any of the three kinds of schedule.

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

from diffexp.grids.ays import ays as ays
from diffexp.grids.beta import beta as beta
from diffexp.grids.beta import beta_timesteps as beta_timesteps
from diffexp.grids.build import at_sigmas as at_sigmas
from diffexp.grids.build import check_steps as check_steps
from diffexp.grids.build import sigma_range as sigma_range
from diffexp.grids.given import from_sigmas as from_sigmas
from diffexp.grids.given import from_timesteps as from_timesteps
from diffexp.grids.lcm import lcm as lcm
from diffexp.grids.sigmas import cosine as cosine
from diffexp.grids.sigmas import exponential as exponential
from diffexp.grids.sigmas import flow as flow
from diffexp.grids.sigmas import karras as karras
from diffexp.grids.sigmas import polyexponential as polyexponential
from diffexp.grids.uniform import leading as leading
from diffexp.grids.uniform import linspace as linspace
from diffexp.grids.uniform import sgm_uniform as sgm_uniform
from diffexp.grids.uniform import trailing as trailing
