"""DPM-Solver++ with a memory of three estimates."""

from collections.abc import Callable

from torch import Tensor

from diffexp import scheduler
from diffexp.components.schedulers.shared.exponential import FEW_STEPS, adams_weights, sde_step, step_orders
from diffexp.plan.execute import weighted
from diffexp.plan.levels import Levels
from diffexp.plan.method import Denoiser


@scheduler(
    discrete=True,
    order=3,
    weak_order=2,
    spacing="linspace",
    spare_level=True,
    diffusers=("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"),
)
def dpmpp_3m(
    denoise: Denoiser,
    x: Tensor,
    levels: Levels,
    noise: Callable[[], Tensor],
    *,
    eta: float = 0.0,
    lower_order_final: bool = True,
) -> Tensor:
    """DPM-Solver++(3M) (after Lu et al. 2022, arXiv:2211.01095): order 3, weak order 2. One evaluation per step.

    The paper's expansion of x0 in log(alpha / sigma), up to the second derivative, with the derivatives of the parabola
    through the last three estimates. The code of the paper's authors, and with it diffusers and k-diffusion, takes half
    of the second derivative, which leaves a method of order 2.

    Args:
        eta: rate of the noise, >= 0; 0 is the ODE, 1 the reverse SDE (k-diffusion's DPM++ 3M SDE).
        lower_order_final: use two estimates and then one in the last two steps, where there are fewer than 15 steps.

    Raises:
        InputError: negative ``eta``.
    """
    past: list[tuple[float, Tensor]] = []
    orders = step_orders(levels, 3, lower_order_final and levels.steps < FEW_STEPS)
    for (here, there), order in zip(levels.pairs(), orders):
        past = [(here.log_snr, denoise(x, here)), *past[:2]]
        times, estimates = zip(*past[:order])
        weights = adams_weights(times, here.log_snr, there.log_snr, rate=-(1 + eta))
        x = sde_step(x, here, there, weighted(list(zip(weights, estimates))), eta, noise)
    return x
