"""Composes a config and checks it, so that every mistake on the command line ends in one clear line.

The values of the command line are checked before OmegaConf merges them into the config, on a ``Draft`` of the result.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from diffexp.catalog.diffusers import FAMILIES, class_names
from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import TARGET
from diffexp.catalog.sources import conf_dir
from diffexp.cli.draft import Draft, is_interpolated
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.guard import CommandLineKeys
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.hydra_internals import BASIC_SWEEPER
from diffexp.cli.keys import MULTI_CHOICE_GROUPS, TOP_LEVEL
from diffexp.cli.words import split_word
from diffexp.errors import InputError, hint, unknown_option

PACKAGES = {"hydra/launcher": "hydra-joblib-launcher", "hydra/sweeper": "hydra-optuna-sweeper"}
"""Packages that add options to a group of Hydra's, for messages."""


@dataclass(frozen=True)
class Checked:
    """A command line without mistakes."""

    config: DictConfig
    """The composed config of the run, or of a sweep's first cell; with the ``hydra`` key."""
    multirun: bool


class Preflight:
    """The checks of one command line.

    Args:
        loader: see ``diffexp.cli.hydra_config.hydra_session``.
        catalog: everything that can be chosen.
    """

    def __init__(self, loader: CachedLoader, catalog: Catalog) -> None:
        self.loader = loader
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        options = {group: loader.get_group_options(group) for group in groups}
        for kind in FAMILIES:
            options[kind] = sorted([*options[kind], *class_names(kind)])  # Hydra lists no groups below a group
        listed = [(group, name, conf_dir()) for group, names in options.items() for name in names]
        self.catalog = replace(catalog, configs=(*catalog.configs, *listed))  # also those of --config-dir
        self.keys = CommandLineKeys(self.catalog, options)

    def check(self, words: Sequence[str], multirun: bool) -> Checked:
        """Compose the run; of a sweep, check every value of every swept key once.

        Raises:
            InputError: the first mistake.
        """
        swept = [self._alternatives(self._parse(word)) for word in words]
        first, draft = self._compose([values[0] for values in swept], multirun)
        multirun = multirun or first.hydra.mode == RunMode.MULTIRUN
        if not multirun:
            self._refuse_sweeps(words)
        elif first.hydra.sweeper.get(TARGET) == BASIC_SWEEPER and first.hydra.sweeper.params:
            given = {values[0].get_key_element() for values in swept}
            params = [self._parse(f"{key}={value}") for key, value in first.hydra.sweeper.params.items()]
            swept = [*(self._alternatives(one) for one in params if one.get_key_element() not in given), *swept]
            first, draft = self._compose([values[0] for values in swept], multirun)
        for index, (_, *rest) in enumerate(swept):
            for override in rest:
                if override.key_or_group in self.keys.groups or is_interpolated(override.value()):
                    firsts = [values[0] for values in swept]
                    self._compose([*firsts[:index], override, *firsts[index + 1 :]], multirun)
                else:  # nothing to compose anew, which makes long sweeps quick
                    draft.check_change(override)
        return Checked(first, multirun)

    def _parse(self, word: str) -> Override:
        try:
            return self.loader.parse([word])[0]
        except OverrideParseException as error:
            split_word(word, [*TOP_LEVEL, *self.keys.groups], self.keys.suggest)
            reason = re.sub(r"^\w*Exception: ", "", str(error).splitlines()[0])
            raise InputError(f"{word} cannot be read: {reason} (quote it as 'key=\"value\"'?)") from error

    def _alternatives(self, override: Override) -> list[Override]:
        """An override for every value that it sweeps over, with keys and choices that are known."""
        key = override.key_or_group
        self.keys.check_key(key)
        found = self._values(override)
        if key in self.keys.groups and not override.is_delete():
            for text in (str(one.input_line) for one in found):
                choices = _choices(text)
                if key not in MULTI_CHOICE_GROUPS and (len(choices) != 1 or text.partition("=")[2].startswith("[")):
                    raise InputError(f"{text} is not one {key}{hint('', self.keys.groups[key])}")
                self.keys.check_choices(key, choices)
        return found

    def _values(self, override: Override) -> list[Override]:
        if not override.is_sweep_override():
            return [override]
        if override.is_hydra_override():
            raise InputError(f"{override.input_line}: the keys of Hydra itself cannot be swept")
        key, value = override.get_key_element(), override.value()
        if not override.is_discrete_sweep():
            return [self._parse(f"{key}={value.start}")] if isinstance(value, IntervalSweep) else [override]
        found = [self._parse(f"{key}={value}") for value in override.sweep_string_iterator()]
        if not found:
            raise InputError(f"{override.input_line} names no value")
        return found

    def _refuse_sweeps(self, words: Sequence[str]) -> None:
        for word, override in zip(words, map(self._parse, words)):
            if override.is_sweep_override():
                if override.key_or_group == "metric":
                    raise InputError(f"{word}: for several metrics write metric=[{word.split('=')[1]}]")
                raise InputError(f"{word} lists several values: add -m to run them all")

    def _compose(self, overrides: Sequence[Override], multirun: bool) -> tuple[DictConfig, Draft]:
        """Compose a config, and check its values before they are merged.

        Raises:
            InputError: the first mistake.
        """
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            tree, values = self.loader.choose(CONFIG_NAME, overrides, mode)
            draft = Draft.of(tree, values, self.keys)
            draft.check()
            _check_paths(tree, values)
            config = self.loader.load_configuration(CONFIG_NAME, [str(one.input_line) for one in overrides], mode)
        except MissingConfigException as error:
            group, _, choice = (error.missing_cfg_file or "").rpartition("/")
            more = f"; others come with packages such as {PACKAGES[group]}" if group in PACKAGES else ""
            raise InputError(f"{group}={choice} is not known{hint(choice, error.options or ())}{more}") from error
        except InputError:
            raise
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            cause = str(error.__cause__ or "").partition("\n")[0]
            parts = " ".join(str(error).split()), cause
            raise InputError(": ".join(part for part in parts if part)) from error
        self._check_interpolations(config, draft)
        return config, draft

    def _check_interpolations(self, config: DictConfig, draft: Draft) -> None:
        HydraConfig.instance().set_config(config)
        try:
            values = {key: _plain(config[key]) for key in TOP_LEVEL}
        except InterpolationKeyError as error:
            path = draft.interpolation(error.full_key or "").strip("${}")
            raise InputError(
                f"{error.full_key} is that of {path}, which is not there; give {error.full_key}=..."
            ) from error
        except OmegaConfBaseException as error:
            raise InputError(" ".join(str(error).split())) from error
        if draft.has_interpolations:
            Draft(values, self.keys).check()


def _choices(override: str) -> list[str]:
    value = override.partition("=")[2].strip()
    items = value[1:-1].split(",") if value.startswith("[") else [value]
    return [item.strip().strip("'\"") for item in items if item.strip()]


def _check_paths(tree: DictConfig, overrides: Sequence[Override]) -> None:
    """Check that the config has the keys which are set in it.

    Raises:
        InputError: an unknown key; those that a ``+`` adds are not checked.
    """
    added = tuple(one.key_or_group for one in overrides if one.is_add() or one.is_force_add())
    for override in overrides:
        path = override.key_or_group
        if not path.startswith(added) and (problem := _unknown_path(tree, path)):
            raise InputError(problem)


def _unknown_path(config: DictConfig, path: str) -> str | None:
    node: Any = config
    parts = path.split(".")
    for index, part in enumerate(parts):
        if node is None or OmegaConf.is_list(node):
            return None
        if not isinstance(node, DictConfig):
            return f"unknown key '{path}': {'.'.join(parts[:index])} is a value"
        if OmegaConf.is_missing(node, part):
            return None
        if part not in node:
            if not OmegaConf.is_struct(node):
                return None
            parent = ".".join(parts[:index])
            names = [str(key) for key in node if key != "name"]
            name = node.get("name") if isinstance(node.get("name"), str) else None
            rest = ".".join(parts[index:])
            return unknown_option(parent, rest, names, f"{parts[0]}={name}" if name and index else "")
        if OmegaConf.is_interpolation(node, part):
            return None
        node = node[part]
    return None


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
