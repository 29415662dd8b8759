"""Everything private of Hydra and OmegaConf that the command line uses, with the reason; nothing else imports it.

``TRIED`` names the versions that the tests passed with; a test compares them with the installed one.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

# Parse interpolations, see below.
import omegaconf._utils
import omegaconf.base

# Calls the user's hydra.callbacks. Without it a config that is run as composed, and not by Hydra, would call none.
from hydra._internal.callbacks import Callbacks as Callbacks

# The loader and its repository, for ``fast_compose``. Without them a sweep reads and merges all files for each cell.
from hydra._internal.config_loader_impl import (
    ConfigLoaderImpl as ConfigLoaderImpl,
    get_overrides_dirname as get_overrides_dirname,
)
from hydra._internal.config_repository import ConfigRepository as ConfigRepository

# Parses the flags (-m, --cfg, --info, ...). Without it a parser of our own would have to follow every new flag.
from hydra._internal.utils import get_args_parser as get_args_parser
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.plugin import Plugin
from hydra.types import RunMode
from omegaconf import DictConfig

# Writes strings as ``OmegaConf.to_yaml`` does. Without it .hydra/*.yaml would quote words such as "1e-4" differently.
from omegaconf._utils import get_omega_conf_dumper as get_omega_conf_dumper

# Without this cache the dozen interpolations of Hydra's own config are parsed anew for every cell and tree of options,
# a third of the time. Parse trees are not changed by those who read them.
omegaconf.base.parse = omegaconf._utils.parse = lru_cache(maxsize=1024)(omegaconf.base.parse)

TRIED = ("1.3.2", "1.3.8")
BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
"""The ``_target_`` of Hydra's own sweeper, whose cells are known before they run; see ``diffexp.cli.crossing``."""


def put_config(group: str, name: str, node: Any, package: str, provider: str) -> None:
    """Put a node where Hydra finds ``group=name``; a name with a slash lies in a group below.

    ``ConfigStore.store`` is the public way, and copies the node: with all plugins that takes longer than finding them,
    and it accepts no node that is made on first use.
    """
    *folders, file = f"{group}/{name}.yaml".split("/")
    options = ConfigStore.instance().repo
    for folder in folders:
        options = options.setdefault(folder, {})
    options[file] = ConfigNode(name=file, node=node, group="/".join(folders), package=package, provider=provider)


def remove_group(group: str) -> None:
    """Remove what an earlier discovery in this process put; there is no public way."""
    ConfigStore.instance().repo.pop(group, None)


def register_plugin(plugin: type[Plugin], target: str) -> None:
    """Register a plugin under ``target``; without the second line Hydra would import that path, which no module has."""
    plugins = Plugins.instance()
    plugins.register(plugin)
    plugins.class_name_to_class[target] = plugin


@contextmanager
def current_config(composed: DictConfig) -> Iterator[None]:
    """Resolve ``${hydra:...}`` by this config; ``HydraConfig.set_config`` copies it and makes it read-only."""
    here = HydraConfig.instance()
    before, here.cfg = here.cfg, composed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        here.cfg = before


def show(config_name: str, options: argparse.Namespace) -> None:
    """Print what ``--cfg``, ``--info``, ``--hydra-help`` or ``--shell-completion`` ask for, by Hydra's own methods.

    Without them: ``hydra.main``, which reads ``sys.argv`` again and composes with the slow loader.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    words = options.overrides
    if options.hydra_help:
        hydra.hydra_help(config_name, get_args_parser(), options)
    elif options.cfg:
        hydra.show_cfg(config_name, words, options.cfg, options.package, options.resolve)
    elif options.shell_completion:
        hydra.shell_completion(config_name, words)
    elif options.info:
        hydra.show_info(options.info, config_name, words, RunMode.RUN)
