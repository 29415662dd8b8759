"""The config's schema, and Hydra set up with everything that was discovered."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field, make_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import (
    AnyNode,
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    ListConfig,
    Node,
    StringNode,
)

from diffexp.catalog.diffusers import FAMILIES, class_names
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.sources import conf_dir
from diffexp.catalog.types import MISSING, Option, OptionType
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_internals import put_config, remove_group
from diffexp.cli.keys import KEYS, MULTI_CHOICE_GROUPS
from diffexp.cli.launcher import register as register_launcher

CONFIG_NAME = "config"
TYPES = {"int": int, "float": float, "bool": bool, "str": str}


def _annotation(kind: OptionType) -> Any:
    found: Any = list[_annotation(kind.item)] if kind.base == "list" and kind.item else TYPES.get(kind.base, Any)
    return found | None if kind.optional else found


def _field(default: Any) -> Any:
    return field(default_factory=lambda: list(default)) if isinstance(default, list | tuple) else default


Schema = make_dataclass(
    "Schema",
    [(kind, Any, field(default_factory=dict) if kind in MULTI_CHOICE_GROUPS else MISSING) for kind in KINDS]
    + [(key.name, _annotation(key.type), _field(key.default)) for key in KEYS],
)
"""Types and defaults of the top-level keys, as a dataclass for OmegaConf."""
Schema.__module__ = __name__  # so that composed configs can be pickled


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
    """Put the schema and a typed node for every entry into Hydra's store."""
    ConfigStore.instance().store(name="schema", node=Schema, provider="diffexp")
    for kind in KINDS:
        remove_group(kind)
    for entry in catalog.entries.values():
        _put(entry.kind, entry.name, _node(entry), str(entry.file))
    for kind in FAMILIES:
        for name in class_names(kind):
            _put(kind, name, LazyNode(partial(_node_of, catalog, kind, name)), "diffusers")
        own = None if kind == "scheduler" else MISSING  # a checkpoint names its scheduler, but no guider
        target = {"name": StringNode("diffusers"), TARGET: StringNode(own)}
        _put(kind, "diffusers", DictConfig(target, flags={"struct": False}), "diffexp")


def _put(kind: str, name: str, node: Any, provider: str) -> None:
    put_config(kind, name, node, KINDS[kind].path(name), provider)


class LazyNode:
    """A node that is made when Hydra copies it from its store, which it does before every use."""

    def __init__(self, make: Callable[[], DictConfig]) -> None:
        self._make = make

    def __deepcopy__(self, memo: dict[int, Any]) -> DictConfig:
        return self._make()


def _node_of(catalog: Catalog, kind: str, name: str) -> DictConfig:
    return _node(catalog.get(kind, name))


def _node(entry: Entry) -> DictConfig:
    content: dict[str, Node] = {"name": StringNode(entry.name)}
    content.update({option.name: _leaf(option) for option in (*KINDS[entry.kind].common, *entry.options)})
    return DictConfig(content, flags={"struct": False} if entry.accepts_any_option else None)


def _leaf(option: Option) -> Node:
    kind, value = option.type, option.default
    scalars = {"int": IntegerNode, "float": FloatNode, "bool": BooleanNode, "str": StringNode}
    if kind.base in scalars:
        return scalars[kind.base](value, is_optional=kind.optional)
    if kind.base in ("list", "tuple"):
        items = TYPES.get(kind.item.base if kind.item else "", Any)
        return ListConfig(value, element_type=items, ref_type=list[items], is_optional=kind.optional)
    return AnyNode(value)
