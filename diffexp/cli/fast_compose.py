"""Composes configs as Hydra does, but quickly: a sweep has many.

Hydra copies all configs that it knows before it composes one, and it reads and merges the whole tree anew for every
cell. Here nothing is copied that is not changed; and because a plain ``key=value`` is applied to the merged tree in the
end, command lines that choose the same options of the groups share all that comes before. A word is parsed once.
"""

import copy
import pickle
from typing import Any, TypeVar

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import MissingConfigException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig

T = TypeVar("T")

KEPT = 64
"""How many merged trees are kept, at most."""


def packed_or_none(thing: Any) -> bytes | None:
    """What ``pickle`` makes of it; a copy from that is several times as fast as ``copy.deepcopy``."""
    try:
        return pickle.dumps(thing)
    except pickle.PicklingError:  # Hydra imports plugins anew in worker processes, with classes that are others
        return None


def quick_copy(thing: T) -> T:
    """A deep copy."""
    packed = packed_or_none(thing)
    return copy.deepcopy(thing) if packed is None else pickle.loads(packed)


class QuickRepository(ConfigRepository):
    """Hydra reads each file anew for every composition; it copies its repository to be free to change the sources."""

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        super().initialize_sources(config_search_path)
        self._read: dict[str, bytes] = {}  # anew: from other sources come other configs

    def __deepcopy__(self, memo: dict[int, Any]) -> "QuickRepository":
        other = object.__new__(QuickRepository)
        vars(other).update(vars(self), sources=list(self.sources))  # what was read is shared
        return other

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_read": {}}

    def load_config(self, config_path: str) -> ConfigResult | None:
        """As its parent's, from memory the second time."""
        if config_path not in self._read:
            found = super().load_config(config_path)
            packed = packed_or_none(found)
            if packed is None:
                return found
            self._read[config_path] = packed
        return pickle.loads(self._read[config_path])


class QuickLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, for which a command line like one before is little work."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = QuickRepository(config_search_path)
        self._trees: dict[tuple[str | None, ...], bytes] = {}
        self._words: dict[str, Override] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_trees": {}, "_words": {}}  # to worker processes it goes without its memory

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """As its parent's; merges only what was not merged before."""
        parsed = self._parsed(overrides)
        if any(override.key_or_group == "hydra.searchpath" for override in parsed):
            return super()._load_configuration_impl(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        given = [override for override in parsed if not override.is_sweep_override()]  # those come with the cells
        choices = [override for override in given if self._is_choice(override)]
        # Those of Hydra come last here, wherever they stood: the same choices are then the same tree.
        choices.sort(key=Override.is_hydra_override)
        config = self._tree(config_name, [str(override.input_line) for override in choices], run_mode)
        self._apply_overrides_to_config([override for override in given if override not in choices], config)
        of_hydra = [override for override in parsed if override.is_hydra_override()]
        of_task = [override for override in parsed if not override.is_hydra_override()]
        config.hydra.overrides.hydra = [override.input_line for override in of_hydra]
        config.hydra.overrides.task = [override.input_line for override in of_task]
        naming = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            of_task, exclude_keys=naming.exclude_keys, item_sep=naming.item_sep, kv_sep=naming.kv_sep
        )
        return config

    def _parsed(self, words: list[str]) -> list[Override]:
        new = [word for word in words if word not in self._words]
        self._words.update(zip(new, OverridesParser.create(config_loader=self).parse_overrides(new)))
        return [self._words[word] for word in words]

    def _is_choice(self, override: Override) -> bool:
        """Whether Hydra takes it for a choice in a group of configs, and not for a value."""
        return not isinstance(override.value(), dict) and self.repository.group_exists(override.key_or_group)

    def _tree(self, config_name: str | None, choices: list[str], run_mode: RunMode) -> DictConfig:
        """What these choices give, without any value."""
        key = (config_name, *choices)
        if key not in self._trees:
            try:
                tree = super()._load_configuration_impl(config_name, choices, RunMode.RUN)
            except MissingConfigException:
                if run_mode == RunMode.RUN:
                    raise
                return super()._load_configuration_impl(config_name, choices, run_mode)  # may be missing there
            packed = packed_or_none(tree)
            if packed is None:
                return tree
            if len(self._trees) >= KEPT:
                self._trees.clear()
            self._trees[key] = packed
        return pickle.loads(self._trees[key])
