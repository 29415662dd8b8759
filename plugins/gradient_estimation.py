"""The gradient-estimation sampler: a whole plugin in one file.

Drop a file like this into ``plugins/`` and its function is a scheduler:

    python -m diffexp scheduler=gradient_estimation scheduler.gamma=1.5 steps=10
"""

from diffexp import scheduler


@scheduler(order=1)
def gradient_estimation(denoise, x, levels, noise, *, gamma: float = 2.0):
    """DDIM with a memory (Permenter & Yuan 2024, arXiv:2306.04848, algorithm 2).

    Sampling is gradient descent on the distance to the data; the noise estimates of the last two steps together
    approximate that gradient better than the newest alone. One evaluation a step.

    Args:
        gamma: weight of the newest noise; 1 is plain DDIM, 2 the paper's choice.
    """
    previous = None
    for here, there in levels.pairs():
        x0 = denoise(x, here)
        eps = (x - here.alpha * x0) / here.sigma  # of the clipped estimate where the model clips
        x = there.alpha * x0 + there.sigma * eps  # DDIM
        if previous is not None:
            # the longer the step in sigma / alpha, the larger the weight of the change in noise
            x = x + (gamma - 1) * (there.sigma - there.alpha * here.ratio) * (eps - previous)
        previous = eps
    return x
