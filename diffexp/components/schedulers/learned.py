"""Plans that were fitted to one model."""

import logging

from diffexp import scheduler
from diffexp.components.models.base import Model
from diffexp.components.plan_files import load_plan, shipped_plan
from diffexp.plan.levels import Levels
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)


@scheduler(finished=True)
def learned(levels: Levels, model: Model | None, *, path: str | None = None) -> Plan:
    """A plan learned by ``python -m diffexp.learn``: levels, timesteps and coefficients fitted to one model.

    Levels are those of the plan, whatever the grid. Without a path it is the plan that ships for the model and the
    number of steps; with one, its number of evaluations is that of the plan.

    Args:
        path: a plan.json, the folder of one, or a folder of such folders, of which ``steps`` chooses.

    Raises:
        InputError: there is no such plan.
    """
    if path is None:
        return shipped_plan(model, levels.steps)
    plan = load_plan(path, levels.steps)
    if plan.nfe != levels.steps:
        log.warning("steps=%d has no effect: the plan in %s takes %d evaluations", levels.steps, path, plan.nfe)
    return plan
