"""One rule for every key: what is given and changes nothing is named in one line, and refused where it is swept.

A sweep over such a key is not refused if another swept key decides whether it has an effect, as the guidance does in
``-m guidance=none,cfg guidance_scale=1,3``.

The effect of options of schedulers and timestep schedules is measured on the plan, that of everything about guidance
on predictions with a stand-in for the network. Other components declare it: ``idle``, in the decorator or of a model
itself, lists options and top-level keys that have no effect, always or where another key has a value, as in
``@loop(idle=["jump where resample=1"])``.
"""

import functools
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry, as_typed
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.types import flat, to_containers
from diffexp.components.sampler import Recipe
from diffexp.errors import InputError
from diffexp.experiment.build import Components
from diffexp.experiment.configs import choices
from diffexp.experiment.guide import Guide, Rehearsal, rehearse
from diffexp.plan.levels import listed_steps
from diffexp.plan.table import Plan

log = logging.getLogger(__name__)

PROBE = 2.0
"""A scale at which a guidance that has any effect has one."""


@dataclass(frozen=True)
class Given:
    """The keys that somebody gave for a run, on the command line or as words in Python."""

    values: Mapping[str, Any]
    """By dotted key; of a group, the name of its choice."""
    swept: Collection[str] | None = None
    """Those that the sweep of the run varies; None for a run of its own."""

    @classmethod
    def of(cls, words: Sequence[str] | None, config: Mapping[str, Any], swept: Collection[str] | None) -> "Given":
        """What ``key=value`` words of a command line gave, with the values of ``config``; of ``steps`` the word's."""
        pairs = [word.lstrip("+").partition("=") for word in words or ()]
        texts = {key: text for key, equals, text in pairs if equals}
        known = flat(config)
        values = {key: known.get(key, text) for key, text in texts.items()}
        if texts.get("steps", "").isdecimal():  # in the config it is the number of the levels that are listed
            values["steps"] = int(texts["steps"])
        return cls(values, swept)


@dataclass(frozen=True)
class Idle:
    """A given key without effect."""

    key: str
    why: str
    because: tuple[str, ...]
    """The keys, or groups, that this depends on."""

    def report(self, given: Given) -> None:
        """Log it.

        Raises:
            InputError: it is swept, and nothing that it depends on is.
        """
        text = f"{self.key}={as_typed(to_containers(given.values[self.key]))} has no effect: {self.why}"
        swept = given.swept or ()
        others = {key.partition(".")[0] for key in swept if key != self.key}
        if self.key in swept and not others.intersection(self.because):
            raise InputError(text)
        log.warning("%s", text)


def check_effects(run: Components, config: Mapping[str, Any], given: Given, catalog: Catalog) -> None:
    """Report the given keys that have no effect in a run.

    Raises:
        InputError: see ``Idle.report``.
    """
    for idle in _idle_keys(run, config, given, catalog):
        idle.report(given)


def check_seed(drew_noise: bool, given: Given) -> None:
    """Report a given seed in a run that drew no random numbers, such as the inversion of an image."""
    if "seed" in given.values and not drew_noise:
        Idle("seed", "nothing is drawn at random", ("loop", "scheduler", "model")).report(given)


def _idle_keys(run: Components, config: Mapping[str, Any], given: Given, catalog: Catalog) -> Iterator[Idle]:
    if "objective" in given.values and given.swept is None:
        yield Idle("objective", "it is for sweeps and searches", ())
    yield from _of_lists(run, config, given)
    yield from _of_listed_levels(config, given)
    for kind, node in choices(config):
        if entry := catalog.find(kind, str(node.get("name"))):
            of_model = getattr(run.model, "idle", ()) if kind == "model" else ()
            yield from _declared(entry, [*entry.traits.get("idle", ()), *of_model], flat(config), given)
    yield from _of_plan(run, config, given, catalog)
    yield from _of_guidance(run, config, given, catalog)


def _of_lists(run: Components, config: Mapping[str, Any], given: Given) -> Iterator[Idle]:
    count = int(config["num_samples"])
    for key in ("prompt", "negative_prompt", "label"):
        texts = getattr(run.request, key)
        if key in given.values and isinstance(texts, list) and len(texts) > count:
            yield Idle(key, f"of its {len(texts)} entries only {count} are used, num_samples={count}", ("num_samples",))


def _of_listed_levels(config: Mapping[str, Any], given: Given) -> Iterator[Idle]:
    lists = {f"grid.{name}": config["grid"].get(name) for name in ("timesteps", "sigmas")}
    listed = next((key for key, levels in lists.items() if levels is not None), None)
    if listed is None:
        return
    count = listed_steps(*lists.values())
    for key, value in given.values.items():
        named = (key == "grid" and value != "auto") or (key.startswith("grid.") and key not in lists)
        if named or (key == "steps" and value != count):
            yield Idle(key, f"{listed} lists {count} levels", ("grid",))


def _declared(entry: Entry, declarations: Sequence[str], config: Mapping[str, Any], given: Given) -> Iterator[Idle]:
    options = {option.name: option for option in entry.options}

    def path(name: str) -> str:
        return f"{entry.path}.{name}" if name in options else name

    for declaration in declarations:
        name, _, condition = declaration.partition(" where ")
        key = path(name)
        usual = options[name].default if name in options else False
        if key not in given.values or given.values[key] == usual:
            continue
        other, _, value = condition.partition("=")
        unequal = other.endswith("!")
        other = path(other.removesuffix("!"))
        if not condition:
            yield Idle(key, f"{entry.kind}={entry.name} does not use it", (entry.kind,))
        elif (as_typed(config.get(other)) == value) != unequal:
            because = f"{other}={as_typed(config.get(other))}"
            yield Idle(key, because, (entry.kind, other.partition(".")[0]))


def _of_plan(run: Components, config: Mapping[str, Any], given: Given, catalog: Catalog) -> Iterator[Idle]:
    """Options of the scheduler and the timestep schedule without which the plan has the same numbers."""
    for key, value in given.values.items():
        kind, _, option = key.partition(".")
        entry = catalog.find(kind, str(config[kind].get("name"))) if kind in ("scheduler", "grid") else None
        usual = next((own for own in entry.options if own.name == option), None) if entry else None
        from_checkpoint = run.model.training.scheduler_config.get(option)
        if usual is None or value in (usual.default, usual.effective_default, from_checkpoint):
            continue
        other = _without(run.recipe, kind, option)
        if isinstance(run.sampler, Plan) and other is not None and _is_same(run.sampler, other):
            because = ("scheduler", "grid", "steps", "max_nfe", "max_forward_passes", "model")
            yield Idle(key, "the plan of the scheduler is the same without it", because)


def _without(recipe: Recipe, kind: str, option: str) -> Recipe | None:
    if kind == "scheduler":
        return replace(recipe, options={name: value for name, value in recipe.options.items() if name != option})
    make = recipe.grid.make
    if not isinstance(make, functools.partial) or recipe.grid.explicit:
        return None
    others = {name: value for name, value in make.keywords.items() if name != option}
    return replace(recipe, grid=replace(recipe.grid, make=functools.partial(make.func, **others)))


def _is_same(plan: Plan, recipe: Recipe) -> bool:
    try:
        other = recipe.sampler
    except InputError:  # it cannot be left out
        return False
    return isinstance(other, Plan) and other.sha256 == plan.sha256


def _of_guidance(run: Components, config: Mapping[str, Any], given: Given, catalog: Catalog) -> Iterator[Idle]:
    """The guidance, its scale and options, and the negative prompt, without which the predictions are the same."""
    keys = [key for key in given.values if key.partition(".")[0] in ("guidance", "guidance_scale", "negative_prompt")]
    if not keys:
        return
    condition, loop = run.model.conditions(run.request, range(1)), catalog.find("loop", str(config["loop"]["name"]))
    unseen = condition.negative is None and loop is not None and loop.traits.get("guides")
    if unseen or condition.draw is not None:  # a pipeline guides by itself, or draws the condition
        return
    entry = catalog.find("guidance", str(config["guidance"]["name"]))
    usual = {option.name: option.default for option in entry.options} if entry else {}
    samples = _cycle(run, config)
    ours = rehearse(run.guide, run.model, run.sampler, run.request, samples)
    same = functools.partial(_same, run, ours, samples)
    has_negative = condition.negative is not None
    for key in keys:
        _, _, option = key.partition(".")
        because, why = _reason(run, ours, has_negative, by_scale=key != "guidance_scale" or run.guidance_scale != 1)
        if key == "guidance_scale":
            idle = _is_idle_scale(run, ours, same, swept=key in (given.swept or ()))
        elif key == "negative_prompt":
            idle = same(negative_prompt=None)
        elif key == "guidance" or option == TARGET:
            idle = ours.plain and not run.guidance_traits.get("ignores_scale")
        else:
            given_default = option in usual and given.values[key] == usual[option]
            idle = not given_default and same(run.guide.without(option))
        if idle:
            yield Idle(key, why, because)


def _is_idle_scale(run: Components, ours: Rehearsal, same: Callable[[Guide], bool], *, swept: bool) -> bool:
    usual = run.model.guidance_scale
    if run.guidance_scale not in (1.0, usual):
        return same(replace(run.guide, scale=usual))
    # The usual one, or none at all: asked for and done, unless others are to be tried that do no more.
    return swept and ours.plain and same(replace(run.guide, scale=PROBE))


def _reason(run: Components, ours: Rehearsal, has_negative: bool, by_scale: bool) -> tuple[tuple[str, ...], str]:
    """What something of guidance without effect depends on, and why it has none.

    Args:
        by_scale: whether the scale may be the reason.
    """
    if not ours.plain:
        return ("guidance", "guidance_scale", "model"), "the predictions are the same without it"
    if not has_negative:
        return ("model",), f"model={run.model.id} has nothing to guide away from"
    if run.guidance_scale <= 1 and by_scale:
        scale = f"guidance_scale={run.guidance_scale:g}"
        return ("guidance_scale", "guidance", "model"), f"{scale} is no guidance; give one above 1"
    return ("guidance", "grid", "steps"), f"guidance={run.guidance} leaves the predictions as they are"


def _cycle(run: Components, config: Mapping[str, Any]) -> int:
    """The number of samples after which conditions repeat."""
    lists = (getattr(run.request, key) for key in ("prompt", "negative_prompt", "label"))
    return min(int(config["num_samples"]), max(len(one) if isinstance(one, list) else 1 for one in lists))


def _same(run: Components, ours: Rehearsal, samples: int, guide: Guide | None = None, **request: Any) -> bool:
    """Whether the predictions are those of ``ours`` under another guide or with a changed request."""
    try:
        other = rehearse(guide or run.guide, run.model, run.sampler, replace(run.request, **request), samples)
    except InputError:  # the other one is refused
        return False
    return other.sha256 == ours.sha256
