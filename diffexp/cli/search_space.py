"""What a search may try, as far as that is known before it runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from hydra.core.override_parser.types import IntervalSweep, Override, Transformer
from omegaconf import DictConfig, OmegaConf

from diffexp.cli.fast_compose import CachedLoader

if TYPE_CHECKING:
    from rich.console import RenderableType

TRIALS = ("n_trials", "max_trials", "num_trials", "budget")
"""What sweepers call the number of trials."""
CUSTOM = "custom_search_space"
MOST_VALUES = 12
"""Of keys with more values the first and the last are tried."""


@dataclass(frozen=True)
class SearchSpace:
    """The keys that a sweeper chooses values for."""

    fixed: Sequence[str]
    """The words that all trials have in common."""
    searched: Mapping[str, Override]
    """By key, the values that it may have."""
    trials: int | None
    """How many there are; None where the sweeper does not say."""
    also: str | None = None
    """The function that adds keys to a trial."""

    @classmethod
    def of(cls, loader: CachedLoader, master: DictConfig) -> Self:
        """The space of a sweep whose cells its sweeper chooses; keys of the command line go before its ``params``.

        Args:
            master: the config of the sweep.
        """
        sweeper: Any = OmegaConf.to_container(master.hydra.sweeper, resolve=False)
        words: Any = OmegaConf.to_container(master.hydra.overrides.task, resolve=False)
        params = sweeper.get("params") or {}
        given = loader.parse([*(f"{key}={value}" for key, value in params.items()), *map(str, words)])
        by_key = {override.get_key_element(): override for override in given}
        searched = {key: override for key, override in by_key.items() if override.is_sweep_override()}
        fixed = [str(override.input_line) for key, override in by_key.items() if key not in searched]
        return cls(fixed, searched, _trials(sweeper), sweeper.get(CUSTOM))

    def at_its_ends(self) -> Iterator[tuple[str, list[str]]]:
        """Trials with a name: the first value of each key, then for one key after the other its other values."""
        values = {key: _values(override) for key, override in self.searched.items()}
        first = {key: own[0] for key, own in values.items()}
        yield ", ".join(first.values()), [*self.fixed, *first.values()]
        for key, own in values.items():
            for word in own[1:]:
                yield word, [*self.fixed, *(first | {key: word}).values()]

    def table(self) -> "RenderableType":
        """Each key with its values."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("key")
        table.add_column("values", overflow="fold")
        for key, override in self.searched.items():
            table.add_row(Text(key), Text(override.get_value_string()))
        if self.also:
            table.add_row(Text("others"), Text(f"what {self.also} adds to a trial"))
        return table


def _values(override: Override) -> list[str]:
    """Words for the values of a key: all of a few, else the first and the last."""
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        found = [str(value.start), str(value.end)]
    else:
        found = [*map(str, override.sweep_iterator(Transformer.encode))]
    found = found if len(found) <= MOST_VALUES else [found[0], found[-1]]
    return [f"{key}={text}" for text in found]


def _trials(node: Mapping[str, Any]) -> int | None:
    """The number of trials among the settings of a sweeper, which may be nested."""
    for key, value in node.items():
        if key in TRIALS and isinstance(value, int):
            return value
        if isinstance(value, Mapping) and (found := _trials(value)) is not None:
            return found
    return None
