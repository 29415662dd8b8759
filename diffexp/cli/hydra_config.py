"""Hydra set up with everything that was discovered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from diffexp.catalog.diffusers import FAMILIES
from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.sources import conf_dir
from diffexp.catalog.types import MISSING
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_internals import put_config, remove_group
from diffexp.cli.launcher import register as register_launcher

CONFIG_NAME = "config"


@contextmanager
def hydra_session(catalog: Catalog, config_dir: Path | None = None) -> Iterator[CachedLoader]:
    """Hydra ready to compose.

    Args:
        config_dir: a folder of configs that is searched before all others.
    """
    _store_configs(catalog)
    register_launcher()
    with initialize_config_dir(str(conf_dir()), job_name="diffexp", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        path = hydra.config_loader.get_search_path()
        for folder in catalog.conf_dirs[1:]:
            path.prepend("diffexp-plugin", f"file://{folder}", SearchPathQuery(provider="schema"))
        if config_dir:
            path.prepend("command-line", f"file://{config_dir}", SearchPathQuery(provider="main"))
        loader = CachedLoader(path)
        hydra.config_loader = loader
        yield loader


def _store_configs(catalog: Catalog) -> None:
    """Put a node for every entry into Hydra's store, to which Hydra adds any option: ``diffexp.cli.config`` checks."""
    for kind, own in KINDS.items():
        remove_group(kind)
        for name in catalog.names(kind):
            put_config(kind, name, LazyNode(partial(_node, catalog, kind, name)), own.path(name), "diffexp")
    for kind in FAMILIES:
        target = None if kind == "scheduler" else MISSING  # a checkpoint names its scheduler, but no guider
        put_config(kind, "diffusers", _open({"name": "diffusers", TARGET: target}), kind, "diffexp")


class LazyNode:
    """A node that is made when Hydra copies it from its store, which it does before every use."""

    def __init__(self, make: Callable[[], DictConfig]) -> None:
        self._make = make

    def __deepcopy__(self, memo: dict[int, Any]) -> DictConfig:
        return self._make()


def _node(catalog: Catalog, kind: str, name: str) -> DictConfig:
    options = (*KINDS[kind].common, *catalog.get(kind, name).options)
    return _open({"name": name, **{option.name: option.default for option in options}})


def _open(content: dict[str, Any]) -> DictConfig:
    return DictConfig(content, flags={"struct": False})
