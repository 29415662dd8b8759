"""The hand-made schedulers that a learned plan has to beat: all that ship and draw no noise, on all grids."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from diffexp.catalog.discover import Catalog
from diffexp.components.grids import BY_NAME
from diffexp.components.grids.choice import Grid
from diffexp.components.sampler import Recipe
from diffexp.errors import InputError
from diffexp.learn.problem import Problem
from diffexp.plan.table import Plan
from diffexp.plan.trace import NotLinear

log = logging.getLogger(__name__)

AUTO = "auto"


@dataclass(frozen=True)
class Candidate:
    """A hand-made scheduler on a timestep schedule, within the budget."""

    scheduler: str
    grid: str
    plan: Plan

    @property
    def name(self) -> str:
        return f"{self.scheduler} on {self.grid}"


def candidates(problem: Problem, catalog: Catalog, nfe: int) -> list[Candidate]:
    """Every native scheduler without noise on every grid, with as many steps as ``nfe`` evaluations allow.

    Equal tables are listed once, and those that the model or the number of steps rules out are not.
    """
    found: dict[str, Candidate] = {}
    level = log.getEffectiveLevel()
    logging.getLogger("diffexp").setLevel(logging.ERROR)  # what one of many has to say about the checkpoint
    try:
        for one in _all(problem, catalog, nfe):
            found.setdefault(one.plan.unscaled().sha256, one)
    finally:
        logging.getLogger("diffexp").setLevel(level)
    return [*found.values()]


def _all(problem: Problem, catalog: Catalog, nfe: int) -> Iterator[Candidate]:
    model = problem.run.model
    for name in catalog.names("scheduler"):
        entry = catalog.get("scheduler", name)
        if not entry.built_in or entry.traits.get("finished") or entry.traits.get("consistency"):
            continue
        scheduler = catalog.build("scheduler", {"name": name})
        for grid in (AUTO, *BY_NAME):
            made = Grid() if grid == AUTO else Grid.named(grid)
            recipe = Recipe(scheduler.func, nfe, model.training, made, scheduler.keywords, model)
            try:
                plan = recipe.within(nfe).sampler
            except (InputError, NotLinear):
                continue
            if isinstance(plan, Plan) and plan.deterministic and plan.nfe <= nfe:
                yield Candidate(name, grid, replace(plan, name=f"{name} on {grid}"))
