"""The timestep schedule of Movie Gen and Mochi: half of the steps on a short first part of the path, the rest longer.

ComfyUI calls it ``linear_quadratic``; in diffusers it is a private function of one pipeline.

    python -m diffexp grid=linear_quadratic model=mixture model.schedule=flow scheduler=euler steps=20 num_samples=2000
"""

from diffexp import InputError, Levels, Schedule, at_sigmas, check_steps, grid, sigma_range


@grid
def linear_quadratic(
    schedule: Schedule, steps: int, *, threshold: float = 0.025, sigma_max: float | None = None
) -> Levels:
    """Linear for ``threshold`` of the path, then quadratic (Movie Gen: Polyak et al. 2024, arXiv:2410.13720).

    The first half of the steps imitates the start of a run with many more steps; the second half continues with its
    slope. Defined for flow models; for others the path is sigma divided by the highest sigma, as in ComfyUI.

    Args:
        threshold: part of the path that the linear half covers, in (0, 0.5].
        sigma_max: first sigma; null: the highest sigma of the training.

    Raises:
        InputError: a threshold out of range.
    """
    check_steps(schedule, steps)
    if not 0 < threshold <= 0.5:
        raise InputError(f"grid.threshold={threshold:g} must lie in (0, 0.5]")
    _, highest = sigma_range(schedule, None, sigma_max)
    half = steps // 2
    slope = threshold / half if half else 0.0
    # The parabola starts with the slope of the line and reaches the end of the path after the last step.
    bend = (1 - slope * steps) / (steps - half) ** 2
    passed = (slope * k + bend * max(k - half, 0) ** 2 for k in range(steps))
    return at_sigmas(schedule, (highest * (1 - part) for part in passed))
