"""Composes configs as Hydra does, but quickly: a sweep has many.

Hydra copies all configs that it knows before it composes one, and it reads and merges the whole tree anew for every
cell of a sweep. Here nothing is copied that is not changed; and because a plain ``key=value`` is applied to the merged
tree in the end, cells that choose the same options of the groups share all that comes before.
"""

import copy
import pickle
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

KEPT = 64
"""How many merged trees are kept, at most."""


class QuickRepository(ConfigRepository):
    """Hydra copies its repository for every composition, to be free to change the list of sources."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "QuickRepository":
        other = copy.copy(self)
        other.sources = list(self.sources)
        return other


class QuickLoader(ConfigLoaderImpl):
    """Hydra's loader of configs, for which a cell like one before is little work."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = QuickRepository(config_search_path)
        self._master: DictConfig | None = None
        self._merged: dict[tuple[str, ...], bytes] | None = {}
        """None in a worker process: every cell there has a loader of its own, and Hydra loads some classes twice."""

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_master": None, "_merged": None}

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """As its parent's; composes only where these choices of groups were not composed before."""
        parsed = OverridesParser.create(config_loader=self).parse_overrides(sweep_overrides)
        if self._merged is None or any(override.is_hydra_override() for override in parsed):
            return super().load_sweep_config(master_config, sweep_overrides)
        choices = [override for override in parsed if self._is_choice(override)]
        config = self._tree(master_config, tuple(str(override.input_line) for override in choices))
        self._apply_overrides_to_config([override for override in parsed if override not in choices], config)
        config.hydra.overrides.task = [override.input_line for override in parsed]
        naming = config.hydra.job.config.override_dirname
        config.hydra.job.override_dirname = get_overrides_dirname(
            parsed, exclude_keys=naming.exclude_keys, item_sep=naming.item_sep, kv_sep=naming.kv_sep
        )
        OmegaConf.copy_cache(from_config=master_config, to_config=config)
        return config

    def _is_choice(self, override: Override) -> bool:
        """Whether Hydra takes it for a choice in a group of configs, and not for a value."""
        return not isinstance(override.value(), dict) and self.repository.group_exists(override.key_or_group)

    def _tree(self, master: DictConfig, choices: tuple[str, ...]) -> DictConfig:
        assert self._merged is not None
        if master is not self._master or len(self._merged) >= KEPT:
            self._master, self._merged = master, {}
        if choices not in self._merged:
            self._merged[choices] = pickle.dumps(super().load_sweep_config(master, list(choices)))
        return pickle.loads(self._merged[choices])  # a copy, several times as fast as copy.deepcopy
