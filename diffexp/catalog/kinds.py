"""The kinds of plugins, one record each: names, folders, parameters and how options are bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.types import Option, OptionType

TARGET = "_target_"
"""Key of a config node that names any importable class or function instead of a registered one."""

_NUMBERS = OptionType("list", optional=True, item=OptionType("float"))


@dataclass(frozen=True)
class Kind:
    """One kind of plugin: its decorator, its config group, and how a plugin of it is called."""

    name: str
    """Of the decorator and of the config group."""
    folder: str
    """The folder of ``diffexp/components`` with the built-in ones."""
    positional: tuple[str, ...] = ()
    """Parameters that diffexp passes by position."""
    injectable: tuple[str, ...] = ()
    """Further positional parameters that a plugin may declare, by these names."""
    several: bool = False
    """Whether a run may have several; their options then stand under ``<kind>.<name>``."""
    required: bool = True
    """Whether a run has at least one."""
    instantiated: bool = False
    """Whether it is called with its options when the run is built; otherwise the options are bound for later calls."""
    common: tuple[Option, ...] = ()
    """Options that the config node of every plugin of the kind has, besides the plugin's own."""
    condition: bool = False
    """Whether the choice and its options state what is sampled: only runs that agree in them are ranked."""
    explanation: str = ""
    """What a plugin of the kind can be, for complaints about a signature."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """Keys of a config node that are not options of the plugin itself."""
        return ("name", TARGET, *(option.name for option in self.common))

    def path(self, name: str) -> str:
        """Key of the options of the plugin ``name`` in the config."""
        return f"{self.name}.{name}" if self.several else self.name

    def nodes(self, value: Any) -> list[Mapping[str, Any]]:
        """The nodes in the value that the kind has in a config, also in one of before it had several."""
        if not value:
            return []
        return [node for node in value.values() if node] if self.several and not is_node(value) else [value]


def is_node(value: Any) -> bool:
    """Whether a value of a config is the node of one choice."""
    named = isinstance(value, Mapping) and not {"name", TARGET}.isdisjoint(value)
    return named and not isinstance(value.get("name"), Mapping)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model", "models", positional=("runtime",), condition=True),
        Kind(
            "scheduler",
            "schedulers",
            positional=("denoise", "x", "levels", "noise"),
            explanation="a scheduler is a function (denoise, x, levels, noise, *, options), a k-diffusion sampler "
            "(model, x, sigmas, ...), a function (levels, *, options) that returns a Plan, or a class with "
            "set_timesteps and step",
        ),
        Kind(
            "grid",
            "grids",
            positional=("schedule", "steps"),
            injectable=("training",),
            common=(Option("timesteps", _NUMBERS, None), Option("sigmas", _NUMBERS, None)),
        ),
        Kind("loop", "loops", positional=("batch",)),
        Kind("guidance", "guidance", positional=("predict", "scale"), injectable=("model", "levels")),
        Kind(
            "metric",
            "metrics",
            several=True,
            required=False,
            instantiated=True,
            explanation="a metric is a class with applies, update and compute, or a function of its options that makes "
            "one",
        ),
        Kind(
            "tracker",
            "trackers",
            several=True,
            instantiated=True,
            explanation="a tracker is a class, or a function of its options that makes one",
        ),
    )
}
