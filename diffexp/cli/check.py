"""Composes a config and checks it, so that every mistake on the command line ends in one clear line."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from diffexp.catalog.diffusers import FAMILIES, class_names
from diffexp.catalog.discover import Catalog
from diffexp.catalog.keys import BY_NAME, MULTI_CHOICE_GROUPS, PIPE, TOP_LEVEL
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.sources import conf_dir
from diffexp.cli.cells import task_config
from diffexp.cli.config import check_key, is_interpolated, with_value
from diffexp.cli.crossing import crossed
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME
from diffexp.cli.hydra_internals import BASIC_SWEEPER
from diffexp.cli.launcher import needed_launcher
from diffexp.cli.launcher_options import check_launcher
from diffexp.cli.names import KnownNames
from diffexp.cli.stop import check_stop
from diffexp.cli.words import choices_of, quoted_text, split_word
from diffexp.errors import InputError, hint, unknown_option

PACKAGES = {"hydra/launcher": "hydra-joblib-launcher", "hydra/sweeper": "hydra-optuna-sweeper"}
"""Packages that add options to a group of Hydra's, for messages."""
MOST_CELLS = 100_000
"""More cells than this are a mistake."""


@dataclass(frozen=True)
class Checked:
    """A command line without mistakes."""

    config: DictConfig
    """The composed config of the run, or of a sweep's first cell; with the ``hydra`` key."""
    words: list[str]
    """The command line, with texts in quotes."""
    multirun: bool
    cells: list[list[str]] | None = None
    """The overrides of each cell of a sweep; None where another sweeper than Hydra's own decides."""


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
        self.names = KnownNames(self.catalog, options)
        self._nodes: dict[str, Any] = {}
        self._choices: list[Override] = []
        """The choices of the first cell."""

    def check(self, given: Sequence[str], multirun: bool) -> Checked:
        """Compose the run; of a sweep, check every value of every swept key once.

        Raises:
            InputError: the first mistake.
        """
        words = [self._with_quotes(word) for word in given]
        overrides = [self._parse(word) for word in words]
        swept = {override.get_key_element(): self._alternatives(override) for override in overrides}
        self._choices = self.loader.split([values[0] for values in swept.values()])[0]
        first, task = self._compose(next(crossed(swept.values(), self._has)), multirun)
        check_launcher(first)
        if not multirun and first.hydra.mode != RunMode.MULTIRUN:
            self._refuse_sweeps(overrides)
            if first.stop is not None:
                raise InputError(f"stop={first.stop} is for sweeps, whose cells it compares: add -m and several values")
            return Checked(first, words, multirun=False)
        if launcher := needed_launcher(first, overrides):
            return self.check([*given, launcher], multirun)
        basic = first.hydra.sweeper.get(TARGET) == BASIC_SWEEPER
        if basic and first.hydra.sweeper.params:
            params = [self._parse(f"{key}={value}") for key, value in first.hydra.sweeper.params.items()]
            swept = {override.get_key_element(): self._alternatives(override) for override in params} | swept
            first, task = self._compose(next(crossed(swept.values(), self._has)), multirun=True)
        number = math.prod(map(len, swept.values()))
        if first.stop is not None:
            check_stop(first, task, number, known=basic)
        if number > MOST_CELLS:
            raise InputError(f"this sweep has {number} cells, and {MOST_CELLS} are the most")
        cells = [*crossed(swept.values(), self._has)]
        self._check_cells(cells, task)
        named = [[str(one.input_line) for one in cell if _is_of_cell(one)] for cell in cells]
        return Checked(first, words, multirun=True, cells=named if basic else None)

    def _check_cells(self, cells: Sequence[Sequence[Override]], first: dict[str, Any]) -> None:
        """Check what the cells set, each combination of a choice and its options once."""
        seen: set[tuple[str, ...]] = set()
        for cell in cells:
            by_key: dict[str, list[Override]] = {}
            for override in cell:
                head = override.key_or_group.partition(".")[0]
                apart = head in TOP_LEVEL and not override.is_delete() and not is_interpolated(override.value())
                by_key.setdefault(head if apart else "", []).append(override)
            for head, own in by_key.items():
                words = tuple(str(override.input_line) for override in own)
                if words in seen:
                    continue
                seen.add(words)
                if not head:  # known only when the cell is composed
                    self._compose(cell, multirun=True)
                    continue
                node = first
                for override in own:
                    chosen = override.key_or_group in KINDS and not isinstance(override.value(), dict)
                    value = self._node(override) if chosen else override.value()
                    node = {**node, head: value} if chosen else with_value(node, override.key_or_group, value)
                check_key(head, node[head], self.catalog)

    def _node(self, choice: Override) -> Any:
        """The node of a group with this choice, before values are set in it."""
        word = str(choice.input_line)
        if word not in self._nodes:
            self._nodes[word] = OmegaConf.to_container(self._tree(choice)[choice.key_or_group])
        return self._nodes[word]

    def _tree(self, choice: Override) -> DictConfig:
        """The config with this choice: that of a cell, which is needed anyway, where choices set their nodes alone."""
        like = [choice if other.key_or_group == choice.key_or_group else other for other in self._choices]
        if choice in like and all(one.key_or_group in KINDS or one.is_hydra_override() for one in like):
            with suppress(HydraException, OmegaConfBaseException):  # another choice does not compose
                return self.loader.choose(CONFIG_NAME, like, RunMode.RUN)[0]
        return self.loader.choose(CONFIG_NAME, [choice], RunMode.RUN)[0]

    def _has(self, choice: Override, option: str) -> bool:
        """Whether a choice has an option; of what only a run can know, true."""
        kind, node = choice.key_or_group, self._node(choice)
        head = option.partition(".")[0]
        own = KINDS[kind].nodes(node)
        return (KINDS[kind].several and head in node) or any(self._takes(kind, one, head) for one in own)

    def _takes(self, kind: str, node: Any, option: str) -> bool:
        entry = self.catalog.find(kind, str(node.get("name")))
        if entry is None or TARGET in node or entry.accepts_any_option:
            return True
        return option in {own.name for own in (*KINDS[kind].common, *entry.options)}

    def _with_quotes(self, word: str) -> str:
        key, equals, value = word.partition("=")
        own = BY_NAME.get(key.lstrip("+"))
        no_text = own and own.free_text and value.startswith("[") and value.endswith("]")
        if key.startswith(f"{PIPE}."):
            return f"++{word}"  # of which only the pipeline knows the names
        if not equals or no_text or not self.names.is_text(key.lstrip("+")):
            return word
        return f"{key}={quoted_text(key, value)}"

    def _parse(self, word: str) -> Override:
        try:
            override = self.loader.parse([word])[0]
        except (OverrideParseException, ValueError, RecursionError) as error:
            key = split_word(word, self.names.is_known, self.names.suggest)[0].lstrip("+~")
            if re.fullmatch(r"\w[\w./-]*", key):
                self.names.check_key(key)
            lines = [line.strip() for line in str(error).splitlines()]
            relevant = [line for line in lines if line.strip("^") and word.strip() not in line and "https" not in line]
            reason = relevant[0] if relevant else "a quote or bracket is not closed, or a character needs quotes"
            raise InputError(f"{word} cannot be read: {reason} (quote it as 'key=\"value\"'?)") from error
        key = override.key_or_group
        if not key:
            raise InputError(f"'{word}' names no key: write key=value")
        if override.is_delete() and key in BY_NAME:
            raise InputError(f"{word}: every run has the key {key}, which cannot be removed; leave {word} out")
        if override.is_delete() and not isinstance(override.value(), str | None):
            raise InputError(f"{word}: {key} has no option of that name; write ~{key}")
        return override

    def _alternatives(self, override: Override) -> list[Override]:
        """An override for every value that it sweeps over, with keys and choices that are known."""
        key = override.key_or_group
        self.names.check_key(key)
        found = self._values(override)
        if key in self.names.groups and not override.is_delete():
            for text in (str(one.input_line) for one in found):
                choices = choices_of(text)
                if key not in MULTI_CHOICE_GROUPS and (len(choices) != 1 or text.partition("=")[2].startswith("[")):
                    raise InputError(f"{text} is not one {key}{hint('', self.names.groups[key])}")
                self.names.check_choices(key, choices)
        return found

    def _values(self, override: Override) -> list[Override]:
        if not override.is_sweep_override():
            return [override]
        if override.is_hydra_override():
            raise InputError(f"{override.input_line}: the keys of Hydra itself cannot be swept")
        if not _is_of_cell(override):
            raise InputError(f"{override.input_line}: all cells have the same {override.key_or_group}; give one value")
        key, value = override.get_key_element(), override.value()
        if not override.is_discrete_sweep():
            return [self._parse(f"{key}={value.start}")] if isinstance(value, IntervalSweep) else [override]
        as_word = self._text if self.names.is_text(override.key_or_group) else Transformer.str
        try:
            known = value.range() if isinstance(value, RangeSweep) else ()  # before Hydra shuffles it as a list
            few = len(list(islice(known, MOST_CELLS + 1))) <= MOST_CELLS
            texts = list(islice(override.sweep_iterator(as_word), MOST_CELLS + 1)) if few else [""]
        except (HydraException, ValueError) as error:  # a range with step 0
            raise InputError(f"{override.input_line}: {error}") from error
        if not texts or not few or len(texts) > MOST_CELLS:
            raise InputError(f"{override.input_line} names {f'more than {MOST_CELLS} values' if texts else 'no value'}")
        return [self._parse(f"{key}={text}") for text in texts]

    def _text(self, value: Any) -> str:
        return quoted_text("", value) if isinstance(value, str) else Transformer.str(value)

    def _refuse_sweeps(self, overrides: Sequence[Override]) -> None:
        for override in overrides:
            if override.is_sweep_override():
                kind, values = override.key_or_group, override.get_value_string()
                if kind in KINDS and KINDS[kind].several:
                    raise InputError(f"{override.input_line}: for several {kind}s write {kind}=[{values}]")
                raise InputError(f"{override.input_line} lists several values: add -m to run them all")

    def _compose(self, overrides: Sequence[Override], multirun: bool) -> tuple[DictConfig, dict[str, Any]]:
        """Compose a config; returns it, and what a run gets of it, checked.

        Raises:
            InputError: the first mistake.
        """
        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            config = self.loader.load_configuration(CONFIG_NAME, [str(one.input_line) for one in overrides], mode)
        except MissingConfigException as error:
            group, _, choice = (error.missing_cfg_file or "").rpartition("/")
            more = f"; others come with packages such as {PACKAGES[group]}" if group in PACKAGES else ""
            raise InputError(f"{group}={choice} is not known{hint(choice, error.options or ())}{more}") from error
        except Exception as error:  # Hydra has many, and does not always name the word
            raise InputError(self._unfit(overrides, mode, error)) from error
        HydraConfig.instance().set_config(config)
        return config, task_config(config, self.catalog)

    def _unfit(self, overrides: Sequence[Override], mode: RunMode, error: Exception) -> str:
        """Why a config cannot be composed: the word, and what is wrong with it."""
        (word,) = getattr(error, "__notes__", None) or [self._culprit(overrides, mode)]
        override = self._parse(word) if word else None
        key: str = override.key_or_group if override else ""
        cause: Any = error.__cause__
        kind, unknown = key.partition(".")[0], isinstance(cause, ConfigKeyError | ConfigAttributeError)
        if override and kind in KINDS and (unknown or override.is_delete()):  # names the options there are
            tree: Any = OmegaConf.to_container(self.loader.choose(CONFIG_NAME, overrides, mode)[0])
            check_key(kind, with_value(tree, key, None)[kind], self.catalog)
        if unknown and OmegaConf.is_dict(cause.parent_node):
            parent = (cause.full_key or "").rpartition(".")[0]
            return unknown_option(
                parent, key.removeprefix(f"{parent}."), [str(name) for name in cause.parent_node if name != TARGET]
            )
        if override and override.is_delete():
            return f"{word}: there is no {key} to remove"
        if override and override.is_add():
            return f"{word}: {key} is there already; write {word.lstrip('+')}"
        return f"{word}: {_message(error)}".removeprefix(": ")

    def _culprit(self, overrides: Sequence[Override], mode: RunMode) -> str:
        """The word without which the others can be composed, or else the first that alone cannot be either."""
        words = [str(one.input_line) for one in overrides]
        without = (own for n, own in enumerate(words) if self._composes([*words[:n], *words[n + 1 :]], mode))
        return next(chain(without, (word for word in words if not self._composes([word], mode))), "")

    def _composes(self, words: list[str], mode: RunMode) -> bool:
        try:
            return bool(self.loader.load_configuration(CONFIG_NAME, words, mode))
        except Exception:
            return False


def _is_of_cell(override: Override) -> bool:
    """Whether a word belongs to the cells of a sweep, and not to the sweep as a whole."""
    own = BY_NAME.get(override.key_or_group)
    return not override.is_hydra_override() and (own is None or own.swept)


def _message(error: Exception) -> str:
    """The first line of an error's message, and of its cause's."""
    found = [str(one or "").strip().partition("\n")[0] for one in (error, error.__cause__)]
    return ": ".join(text for text in found if text)
