"""Composes a config and checks it, so that every mistake on the command line ends in one clear line."""

import copy
import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

from diffexp.catalog.diffusers import FAMILIES, class_names
from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.keys import SEVERAL, TOP_LEVEL, VALUES, Keys, check_value
from diffexp.errors import InputError, hint

BASIC_SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


@dataclass(frozen=True)
class Checked:
    """A command line that is fine."""

    config: DictConfig
    """Of the run, or of a sweep's first cell; with the ``hydra`` key."""
    multirun: bool


class Preflight:
    """The checks of one command line.

    Args:
        hydra: see ``diffexp.cli.hydra_config.hydra_session``.
        catalog: what there is to choose from.
    """

    def __init__(self, hydra: Hydra, catalog: Catalog) -> None:
        self.loader: ConfigLoader = hydra.config_loader
        self.parser = OverridesParser.create(config_loader=self.loader)
        self.catalog = catalog
        groups = [group for group in self.loader.list_groups("") if group != "hydra"]
        options = {group: self.loader.get_group_options(group) for group in groups}
        for kind in FAMILIES:
            options[kind] = sorted([*options[kind], *class_names(kind)])  # Hydra lists no groups below a group
        self.keys = Keys(catalog, options)

    def check(self, overrides: list[str], multirun: bool) -> Checked:
        """Compose the run; of a sweep, every value of every swept key once.

        Raises:
            InputError: the first mistake.
        """
        parsed = self._parse(overrides)
        for override in parsed:
            self._check_key(override)
        first = self._compose([_values(override)[0] for override in parsed], multirun)
        multirun = multirun or first.hydra.mode == RunMode.MULTIRUN
        if not multirun:
            self._refuse_sweeps(parsed)
        elif first.hydra.sweeper.get(TARGET) == BASIC_SWEEPER:
            given = {override.get_key_element() for override in parsed}
            params = self._parse([f"{key}={value}" for key, value in (first.hydra.sweeper.params or {}).items()])
            params = [param for param in params if param.get_key_element() not in given]
            if params:
                parsed = [*params, *parsed]
                first = self._compose([_values(override)[0] for override in parsed], multirun)
        self._check_values(first)
        firsts = [_values(override)[0] for override in parsed]
        for index, override in enumerate(parsed):
            rest = _values(override)[1:]
            if rest and override.key_or_group in self.keys.groups:
                for value in rest:
                    self._check_values(self._compose([*firsts[:index], value, *firsts[index + 1 :]], multirun))
            elif rest:
                self._check_in_place(first, override, rest)
        return Checked(first, multirun)

    def _check_in_place(self, config: DictConfig, override: Override, values: list[str]) -> None:
        """The same for a key that is not a group: nothing to compose anew, which makes long sweeps quick."""
        config = copy.deepcopy(config)
        for text in values:
            value = self.parser.parse_override(text).value()
            try:
                OmegaConf.update(config, override.key_or_group, value)
            except OmegaConfBaseException as error:
                raise InputError(f"{text} {_type_problem(str(error))}") from error
            self._check_values(config)

    def _parse(self, overrides: list[str]) -> list[Override]:
        parsed = []
        for text in overrides:
            try:
                parsed += self.parser.parse_overrides([text])
            except OverrideParseException as error:
                if "=" not in text:
                    known = text in TOP_LEVEL or text in self.keys.groups
                    more = f": write {text}=..." if known else self.keys.suggest(text)
                    raise InputError(f"'{text}' is not key=value{more}") from error
                reason = re.sub(r"^\w*Exception: ", "", str(error).splitlines()[0])
                raise InputError(f"{text} cannot be read: {reason} (quote it as 'key=\"value\"'?)") from error
        return parsed

    def _check_key(self, override: Override) -> None:
        """The key's first part, and the option where the key is a group."""
        key = override.key_or_group
        self.keys.check_key(key)
        if key not in self.keys.groups or override.is_delete():
            return
        for value in _values(override):
            choices = _choices(value)
            if key not in SEVERAL and (len(choices) != 1 or value.partition("=")[2].startswith("[")):
                raise InputError(f"{value} is not one {key}{hint('', self.keys.groups[key])}")
            self.keys.check_choices(key, choices)

    def _refuse_sweeps(self, parsed: list[Override]) -> None:
        for override in parsed:
            if override.is_sweep_override():
                text = override.input_line or override.get_key_element()
                if override.key_or_group == "metric":
                    raise InputError(f"{text}: for several metrics write metric=[{text.split('=')[1]}]")
                raise InputError(f"{text} lists several values: add -m to run them all")

    def _compose(self, overrides: list[str], multirun: bool) -> DictConfig:
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            return self.loader.load_configuration(CONFIG_NAME, overrides, run_mode=mode)
        except MissingConfigException as error:
            missing = error.missing_cfg_file or ""
            group, _, choice = missing.rpartition("/")
            packages = {"hydra/launcher": "hydra-joblib-launcher", "hydra/sweeper": "hydra-optuna-sweeper"}
            more = f"; others come with packages such as {packages[group]}" if group in packages else ""
            raise InputError(f"{group}={choice} is not known{hint(choice, error.options or ())}{more}") from error
        except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
            raise InputError(self._explain(error, overrides, mode)) from error

    def _explain(self, error: Exception, overrides: list[str], mode: RunMode) -> str:
        cause = str(error.__cause__ or error)
        override = _offender(error, overrides)
        if override and "is not in struct" not in cause and "not in '" not in cause:
            return f"{override} {_type_problem(cause)}"
        dotted = [text for text in overrides if "." in text.split("=")[0]]
        without = [text for text in overrides if text not in dotted]
        if dotted:
            config = self.loader.load_configuration(CONFIG_NAME, without, run_mode=mode)
            for text in dotted:
                path = text.split("=")[0].lstrip("+~")
                self._check_refused(config, path)
                problem = _unknown_path(config, path)
                if problem:
                    return problem
        return " ".join(f"{error} {cause if error.__cause__ else ''}".split())

    def _check_refused(self, config: DictConfig, path: str) -> None:
        kind, _, option = path.partition(".")
        node = config.get(kind)
        entry = self.catalog.find(kind, str(node.get("name"))) if isinstance(node, DictConfig) else None
        if entry and option in entry.refused:
            entry.check_option(option)

    def _check_values(self, config: DictConfig) -> None:
        HydraConfig.instance().set_config(config)
        for key in TOP_LEVEL:
            if OmegaConf.is_missing(config, key):
                raise InputError(f"{key} needs a choice{hint('', self.keys.groups[key])}")
        try:
            values = {key: _plain(config[key]) for key in TOP_LEVEL}
        except InterpolationKeyError as error:
            missing = re.search(r"'(.+?)' not found", str(error))
            more = f" is that of {missing[1]}, which is not there" if missing else " stands for a key that is not there"
            raise InputError(f"{error.full_key}{more}; give {error.full_key}=...") from error
        except OmegaConfBaseException as error:
            raise InputError(" ".join(str(error).split())) from error
        for key in VALUES:
            check_value(key, values[key])
        for kind in KINDS:
            nodes = values[kind] or {} if KINDS[kind].several else {kind: values[kind]}
            for name, node in nodes.items():
                self.catalog.check(kind, node, KINDS[kind].path(name))


def _values(override: Override) -> list[str]:
    """An override for every value it sweeps over; itself where it sweeps over none."""
    text = override.input_line or ""
    if not override.is_sweep_override():
        return [text]
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        value = override.value()
        return [f"{key}={value.start}"] if isinstance(value, IntervalSweep) else [text]
    values = [f"{key}={value}" for value in override.sweep_string_iterator()]
    if not values:
        raise InputError(f"{text} names no value")
    return values


def _choices(override: str) -> list[str]:
    value = override.partition("=")[2].strip()
    items = value[1:-1].split(",") if value.startswith("[") else [value]
    return [item.strip().strip("'\"") for item in items if item.strip()]


def _offender(error: Exception, overrides: list[str]) -> str | None:
    found = re.match(r"Error merging override (.*)", str(error), re.DOTALL)
    if found and found[1] in overrides:
        return found[1]
    return None


def _type_problem(cause: str) -> str:
    first = cause.splitlines()[0]
    nouns = {"Integer": "an integer", "Float": "a number", "Boolean": "true or false", "String": "a string"}
    found = re.search(r"could not be converted to (\w+)", first)
    if found and re.search(r"full_key: .*\]$", cause, re.MULTILINE):
        return f"has an item that is not {nouns.get(found[1], found[1])}"
    if "is not a valid bool" in first:
        return "is not true or false"
    if found:
        return f"is not {nouns.get(found[1], found[1])}"
    if "is not Optional" in first or "Incompatible value 'None'" in first:
        return "must have a value, it cannot be null"
    if "is not a ListConfig, list or tuple" in first:
        return "is not a list"
    if "Cannot assign" in first or "Invalid value assigned" in first or "is not a primitive type" in first:
        return "is not a single value"
    return f"cannot be used: {first}"


def _unknown_path(config: DictConfig, path: str) -> str | None:
    """What is wrong with a dotted key, if the config has no place for it."""
    node: Any = config
    parts = path.split(".")
    for index, part in enumerate(parts):
        if not isinstance(node, DictConfig):
            return f"unknown key '{path}': {'.'.join(parts[:index])} is a value"
        if OmegaConf.is_missing(node, part):
            return None
        if part not in node:
            if node._get_node_flag("struct") is False:
                return None
            parent = ".".join(parts[:index])
            names = [str(key) for key in node if key != "name"]
            name = node.get("name") if isinstance(node.get("name"), str) else None
            owner = f" of {parts[0]}={name}" if name and index else ""
            near = get_close_matches(part, names, n=1)
            more = f"; did you mean '{parent}.{near[0]}'?" if near else f" (available: {', '.join(names) or 'none'})"
            return f"unknown option '{path}'{owner}{more}"
        node = node[part]
    return None


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
