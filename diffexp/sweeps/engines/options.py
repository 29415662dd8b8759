"""The options of launchers: which values they may have, checked before anything begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffexp.catalog.entry import as_typed
from diffexp.errors import InputError, unknown_option

WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "keys with values, as in {name: value}",
}


@dataclass(frozen=True)
class Rule:
    """The values that an option may have, besides none."""

    kind: type
    """A key of ``WORDS``; a text may be any scalar, as clusters have accounts and partitions that look like numbers."""
    at_least: float | None = None
    above: float | None = None

    def problem(self, value: Any) -> str | None:
        """What is wrong with a value, as the end of a sentence; None if nothing is."""
        if not self._fits(value):
            return f"must be {WORDS[self.kind]}"
        if self.at_least is not None and value < self.at_least:
            return f"must be at least {self.at_least:g}"
        if self.above is not None and not value > self.above:
            return f"must be above {self.above:g}"
        return None

    def _fits(self, value: Any) -> bool:
        if self.kind is str:
            return isinstance(value, str | int | float)
        if isinstance(value, bool):
            return self.kind is bool
        return isinstance(value, int | float if self.kind is float else self.kind)


BATCH = Rule(int, at_least=1)
"""``hydra.launcher.batch``, which all launchers of diffexp have."""
JOBS = Rule(int, at_least=1)


def check_options(
    rules: Mapping[str, Rule], options: Mapping[str, Any], shown: Mapping[str, Any] | None = None
) -> None:
    """Check the options of ``hydra.launcher``.

    Args:
        shown: those of ``rules`` that a message may name; None: all.

    Raises:
        InputError: the first one that is not known or cannot have its value.
    """
    for name, value in options.items():
        if name not in rules:
            raise InputError(unknown_option("hydra.launcher", name, [*(rules if shown is None else shown)]))
        if value is not None and (problem := rules[name].problem(value)):
            raise InputError(f"hydra.launcher.{name}={as_typed(value)} {problem}")
