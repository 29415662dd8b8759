"""The grid that latent consistency models were distilled on."""

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import check_steps, with_clean_end
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule


@grid
def lcm(schedule: Schedule, steps: int, *, original_steps: int = 50) -> Levels:
    """Some of the timesteps that a latent consistency model was distilled on (Luo et al. 2023, section 4.3).

    These are the last of ``original_steps`` equal parts of the training time; ``steps`` of them are taken, equally
    spaced from the highest and rounded up, as in diffusers' LCMScheduler.

    Args:
        original_steps: of the solver that the model was distilled with.

    Raises:
        InputError: more steps than ``original_steps``, or more of these than training timesteps.
    """
    check_steps(schedule, steps)
    if not steps <= original_steps <= schedule.num_train_timesteps:
        raise InputError(
            f"grid.original_steps={original_steps} must be between steps={steps} and the model's "
            f"{schedule.num_train_timesteps} training timesteps"
        )
    part = schedule.num_train_timesteps // original_steps
    chosen = original_steps - np.floor(np.linspace(0, original_steps, steps, endpoint=False))
    return with_clean_end(schedule, (schedule.at_index(place) for place in (chosen * part - 1).tolist()))
