"""Align Your Steps: noise levels that were optimised for one model."""

import math
from typing import Literal

import numpy as np

from diffexp import grid
from diffexp.components.grids.build import check_steps, with_clean_end
from diffexp.errors import InputError
from diffexp.plan.levels import Levels, Schedule

TABLES = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "deepfloyd": (160.41, 8.081, 3.315, 1.885, 1.207, 0.785, 0.553, 0.293, 0.186, 0.030, 0.006),
    "svd": (700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}
"""sigma / alpha of ten steps, the end included (Sabour et al. 2024, table 3)."""


@grid
def ays(schedule: Schedule, steps: int, *, table: Literal["sd15", "sdxl", "deepfloyd", "svd"] = "sd15") -> Levels:
    """Align Your Steps (Sabour et al. 2024, arXiv:2404.14507): levels optimised for one model, best for about 10 steps.

    Ten steps take the first ten noise levels of the paper's table, as in diffusers' AysSchedules; other numbers
    interpolate the table log-linearly, as the authors do. The last step ends clean and not at the table's last level.

    Args:
        table: whose levels: Stable Diffusion 1.5, SDXL, DeepFloyd-IF (pixels) or Stable Video Diffusion (EDM).

    Raises:
        InputError: the table begins above the noise that this model was trained with.
    """
    check_steps(schedule, steps)
    ratios = TABLES[table]
    highest = schedule.at_sigma(schedule.sigma_range[1]).ratio
    if ratios[0] > 1.05 * highest:
        raise InputError(f"grid.table={table} begins at sigma {ratios[0]:g}, above this model's highest, {highest:.4g}")
    places = np.linspace(0, len(ratios) - 1, steps + 1)[:-1]
    logs = np.interp(places, np.arange(len(ratios)), [math.log(ratio) for ratio in ratios])
    return with_clean_end(schedule, (schedule.at_ratio(ratio) for ratio in np.exp(logs).tolist()))
