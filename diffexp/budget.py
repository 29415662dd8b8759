"""As many steps as a number of model evaluations allows: what makes schedulers of different cost comparable."""

from dataclasses import replace

from diffexp.errors import InputError
from diffexp.plan import Recipe


def within_budget(recipe: Recipe, max_nfe: int | None) -> Recipe:
    """The recipe with as many steps, up to its own, as ``max_nfe`` evaluations allow; None allows all.

    A method of two evaluations a step gets half the steps of one that takes one.

    Raises:
        InputError: not even one step fits, or the levels are given one by one and are too many.
    """
    if max_nfe is None:
        return recipe
    if recipe.grid.explicit:
        if (nfe := recipe.sampler().nfe) > max_nfe:
            raise InputError(f"max_nfe={max_nfe}: the levels of grid.timesteps or grid.sigmas take {nfe}")
        return recipe
    most = min(recipe.steps, max_nfe)
    steps = most
    while (nfe := replace(recipe, steps=steps).sampler().nfe) > max_nfe:
        if steps == 1:
            raise InputError(f"max_nfe={max_nfe}: one step takes {nfe}")
        steps = max(1, min(steps - 1, steps * max_nfe // nfe))
    while steps < most and replace(recipe, steps=steps + 1).sampler().nfe <= max_nfe:
        steps += 1
    return replace(recipe, steps=steps)
