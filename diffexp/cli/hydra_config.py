"""The config's schema, and Hydra set up with everything that was discovered."""

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import (
    AnyNode,
    BooleanNode,
    DictConfig,
    FloatNode,
    IntegerNode,
    ListConfig,
    Node,
    OmegaConf,
    StringNode,
)

from diffexp.catalog.diffusers import FAMILIES, class_names
from diffexp.catalog.discover import Catalog
from diffexp.catalog.entry import Entry
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.sources import conf_dir
from diffexp.catalog.types import MISSING, Option
from diffexp.cli.fast_compose import QuickLoader
from diffexp.cli.launcher import register as register_launcher
from diffexp.experiment.configs import steps_of

CONFIG_NAME = "config"


@dataclass
class Schema:
    """Types of the top-level keys; ``conf/config.yaml`` sets their values and says what they mean."""

    model: Any = MISSING
    scheduler: Any = MISSING
    grid: Any = MISSING
    loop: Any = MISSING
    guidance: Any = MISSING
    metric: Any = field(default_factory=dict)
    tracker: Any = MISSING
    steps: int = 50
    max_nfe: int | None = None
    seed: int = 0
    num_samples: int | None = None
    batch_size: int = 64
    prompt: Any = None
    negative_prompt: Any = None
    label: Any = None
    guidance_scale: float | None = None
    snapshot_every: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    compile: bool = False
    resume: str | None = None
    objective: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None


@contextmanager
def hydra_session(catalog: Catalog, config_dir: Path | None = None) -> Iterator[Hydra]:
    """Hydra, ready to compose and to run; ``config_dir`` is searched before everything else."""
    set_up(catalog, config_dir)
    with initialize_config_dir(str(conf_dir()), job_name="diffexp", version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        hydra.config_loader = QuickLoader(hydra.config_loader.get_search_path())
        yield hydra


def set_up(catalog: Catalog, config_dir: Path | None = None) -> None:
    """Hand the catalog to Hydra: a typed node for every entry, the conf folders, the resolvers of the folder names."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Schema, provider="diffexp")
    for kind in KINDS:
        store.repo.pop(kind, None)  # of an earlier discovery in this process
    for entry in catalog.entries.values():
        _store(entry.kind, entry.name, _node(entry), str(entry.file))
    for kind in FAMILIES:
        for name in class_names(kind):
            _store(kind, name, _Later(partial(_node_of, catalog, kind, name)), "diffusers")
        own = None if kind == "scheduler" else MISSING  # a checkpoint names its scheduler, but no guider
        target = {"name": StringNode("diffusers"), TARGET: StringNode(own)}
        _store(kind, "diffusers", DictConfig(target, flags={"struct": False}), "diffexp")
    PluginConfigs.folders = catalog.conf_dirs[1:]
    PluginConfigs.first = config_dir
    Plugins.instance().register(PluginConfigs)
    register_launcher()


class PluginConfigs(SearchPathPlugin):
    """Adds the conf folders of plugins to Hydra's search path."""

    folders: tuple[Path, ...] = ()
    first: Path | None = None

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in self.folders:
            search_path.append("diffexp-plugin", f"file://{folder}")
        if self.first:
            search_path.prepend("command-line", f"file://{self.first}", SearchPathQuery(provider="main"))


def cell_name(*, _root_: DictConfig) -> str:
    """``<model>_<scheduler>_<steps>`` of a composed config, fit for a file name; under a budget ``nfe<max_nfe>``.

    A scheduler that a ``_target_`` names goes by its class.
    """
    choices = _root_.hydra.runtime.choices
    scheduler = str(choices.get("scheduler"))
    target = OmegaConf.select(_root_, f"scheduler.{TARGET}")
    cost = steps_of(_root_) if _root_.max_nfe is None else f"nfe{_root_.max_nfe}"
    parts = [str(choices.get("model")), str(target).rpartition(".")[2] if target else scheduler, str(cost)]
    return "_".join(re.sub(r"[^\w.=+-]+", "-", part) for part in parts)


# On import, because a launcher's worker process names a cell's folder itself, and imports this to run the cell.
OmegaConf.register_new_resolver("diffexp.cell", cell_name, replace=True)
OmegaConf.register_new_resolver("diffexp.unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)


class _Later:
    """A node that is made when Hydra first wants it: Hydra copies what it loads from its store."""

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
        items = {"int": int, "float": float, "bool": bool, "str": str}.get(kind.item.base if kind.item else "", Any)
        return ListConfig(value, element_type=items, ref_type=list[items], is_optional=kind.optional)
    return AnyNode(value)


def _store(group: str, name: str, node: Any, provider: str) -> None:
    """Put a node, or a ``_Later``, where Hydra finds ``group=name``; a name with a slash lies in a group below."""
    # Not ConfigStore.store, which copies every node: with many plugins that takes longer than finding them.
    package = KINDS[group].path(name)
    *folders, file = f"{group}/{name}.yaml".split("/")
    options = ConfigStore.instance().repo
    for folder in folders:
        options = options.setdefault(folder, {})
    options[file] = ConfigNode(name=file, node=node, group="/".join(folders), package=package, provider=provider)
