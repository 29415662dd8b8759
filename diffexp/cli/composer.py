"""The cells of a sweep, composed from one another: Hydra composes the first of each form.

A cell has the form of another if it chooses the same options of all groups and sets the same keys, to scalars of the
same types. What Hydra composes for it then differs in these values alone, and in what interpolations make of them: they
are set in the config of the first, which takes a fraction of the time; without interpolations in its plain containers
alone, which takes a tenth of that. Where that is not sure, Hydra composes the cell.
"""

import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffexp.catalog.discover import Catalog
from diffexp.catalog.types import MISSING
from diffexp.cli.cells import (
    ComposedCell,
    Place,
    as_containers,
    compose_job,
    own_folder_name,
    resolved,
    resolved_task,
    set_up,
    value_at,
    with_counts,
)
from diffexp.cli.config import check_config, check_key, is_interpolated, with_value
from diffexp.cli.fast_compose import SEARCH_PATH, CachedLoader, fast_copy, placed
from diffexp.cli.hydra_internals import current_config, get_overrides_dirname

MOST_FORMS = 64
"""How many forms are kept, at most."""
PATH = re.compile(r"(?!\d+(\.|$))[^.\[\]]+(\.(?!\d+(\.|$))[^.\[\]]+)*")
"""A key whose parts are names, not indices of lists."""
SCALARS = (bool, int, float, str)
HYDRA = "hydra"


@dataclass(frozen=True)
class Form:
    """A composed cell in which other values can be set."""

    config: DictConfig
    """The cell that was set last."""
    content: dict[str, Any]
    """The first one in containers, with its interpolations as they were written."""
    checked: dict[str, Any]
    """What a run gets of the first one."""
    interpolated: frozenset[str]
    """The top-level keys in which there are interpolations."""
    place: Place | None
    """That of the first one; None where there are interpolations, in those keys or in what makes a place."""


class CellComposer:
    """Composes the cells of one sweep; see ``diffexp.cli.composer``.

    Args:
        loader: the loader of all configs.
        master: the config of the sweep.
        catalog: everything that can be chosen.
    """

    def __init__(self, loader: CachedLoader, master: DictConfig, catalog: Catalog) -> None:
        self._loader = loader
        self._master = master
        self._catalog = catalog
        self._forms: dict[tuple[Hashable, ...], Form | None] = {}
        self._shapes: dict[str, Hashable] = {}
        given: Any = OmegaConf.to_container(master.hydra.overrides.hydra, resolve=False)
        self._paths = [override for override in loader.parse(given) if override.key_or_group == SEARCH_PATH]
        naming = master.hydra.job.config.override_dirname
        self._naming: Any = {**naming, "exclude_keys": [*naming.exclude_keys]}

    def compose(self, number: int, words: Sequence[str]) -> ComposedCell:
        """Compose the cell with these overrides.

        Raises:
            hydra.errors.HydraException: the overrides do not fit.
            InputError: a wrong value, or an interpolation that cannot be resolved.
        """
        overrides = self._loader.parse(words)
        key = tuple(map(self._shape, overrides))
        if form := self._forms.get(key):
            with suppress(OmegaConfBaseException):  # Hydra raises the right one
                if cell := self._set(form, number, overrides):
                    return cell
        cell = compose_job(self._loader, self._master, number, words, self._catalog)
        if key not in self._forms:
            if len(self._forms) >= MOST_FORMS:
                self._forms.clear()
            self._forms[key] = self._form_of(cell, overrides)
        return cell

    def _shape(self, override: Override) -> Hashable:
        """What a word has in common with those that differ from it in a value."""
        word = str(override.input_line)
        if word not in self._shapes:
            free = is_scalar(override) and self._loader.split([*self._paths, override])[1]
            self._shapes[word] = (override.type, override.key_or_group, type(override.value())) if free else word
        return self._shapes[word]

    def _free(self, overrides: Sequence[Override]) -> list[Override]:
        return [override for override in overrides if not isinstance(self._shape(override), str)]

    def _form_of(self, cell: ComposedCell, overrides: Sequence[Override]) -> Form | None:
        """The form of a cell that Hydra composed; None where others of it may differ in more than values."""
        content = cell.content
        given = last_values(self._free(overrides), content)
        task = {key: value for key, value in content.items() if key != HYDRA}
        interpolated = frozenset(key for key, value in task.items() if is_interpolated(value))
        with current_config(cell.composed):
            plain = resolved_task(cell.composed)
        if (
            self._may_depend_on_values(overrides)
            or not all(is_same(value_at(content, path), value) for path, value in given.items())
            or any(plain[key] != task[key] for key in task.keys() - interpolated)
        ):
            return None
        of_place = [content[HYDRA]["sweep"]["dir"], *(content[HYDRA]["job"][key] for key in ("chdir", "env_set"))]
        place = None if interpolated or is_interpolated(of_place) else cell.place
        return Form(fast_copy(cell.composed), content, check_config(plain, self._catalog), interpolated, place)

    def _may_depend_on_values(self, overrides: Sequence[Override]) -> bool:
        """Whether overrides may fit or not, depending on the values of others."""
        if any(override.is_delete() and override.value() is not None for override in overrides):
            return True
        if not any(override.is_add() or override.is_delete() for override in overrides):
            return False
        tree = self._loader.choose(self._master.hydra.job.config_name, overrides, RunMode.RUN)[0]
        return is_interpolated({key: value for key, value in as_containers(tree).items() if key != HYDRA})

    def _set(self, form: Form, number: int, overrides: Sequence[Override]) -> ComposedCell | None:
        """The cell of this form with these overrides; None where Hydra may compose another one.

        Raises:
            OmegaConfBaseException: likewise.
        """
        content = form.content
        given = last_values(self._free(overrides), content)
        for path, value in given.items():
            content = with_value(content, path, value)
        of_task = [override for override in overrides if not override.is_hydra_override()]
        words = [str(override.input_line) for override in of_task]
        dirname = get_overrides_dirname(of_task, **self._naming)
        changed = {path.partition(".")[0] for path in given}
        name = None
        if form.place and not is_interpolated(words):  # nothing of OmegaConf is needed, which takes ten times as long
            name = own_folder_name(content[HYDRA]["sweep"]["subdir"], number, content)
        if form.place and name:
            place, shown, cache = form.place.of(name), tuple(words), OmegaConf.get_cache(self._master)
            task = self._checked(form, content, changed)
        else:
            config = form.config
            for path, value in given.items():
                OmegaConf.update(config, path, value, force_add=True)
                if not is_same(OmegaConf.select(config, path), value):
                    return None
            config.hydra.overrides.task, config.hydra.job.override_dirname = words, dirname
            OmegaConf.copy_cache(self._master, config)
            cache = OmegaConf.get_cache(config)
            with set_up(config, number) as place:
                task = self._checked(form, content, changed)
                shown = tuple(config.hydra.overrides.task if is_interpolated(words) else words)

        def make() -> DictConfig:
            lines = [str(override.input_line) for override in overrides]
            composed = self._loader.load_sweep_config(self._master, lines)
            OmegaConf.set_cache(composed, cache)
            with set_up(composed, number):
                composed.hydra.runtime.output_dir = str(place.folder)  # whatever a resolver gives the second time
            return composed

        def unresolved() -> dict[str, Any]:
            hydra = content[HYDRA]
            changed = {
                "job": hydra["job"] | {"id": str(number), "num": number, "override_dirname": dirname},
                "overrides": hydra["overrides"] | {"task": words},
                "runtime": hydra["runtime"] | {"output_dir": str(place.folder)},
            }
            return content | {HYDRA: hydra | changed}

        own = fast_copy(task)
        return ComposedCell(number, own, place.folder, shown, place=place, make=make, unresolved=unresolved)

    def _checked(self, form: Form, content: Mapping[str, Any], changed: Collection[str]) -> dict[str, Any]:
        """What a run gets of the cell that is set now; only what may differ from the first one is checked."""
        task = dict(form.checked)
        for key in task:
            if key in form.interpolated:
                task[key] = check_key(key, resolved(form.config, key), self._catalog)
            elif key in changed:
                task[key] = check_key(key, content[key], self._catalog)
        return with_counts(task, self._catalog)


def is_scalar(override: Override) -> bool:
    """Whether an override sets a key of its own to a plain value, not an interpolation."""
    value = override.value()
    return (
        not override.is_sweep_override()
        and not override.is_delete()
        and not override.is_hydra_override()
        and PATH.fullmatch(override.key_or_group) is not None
        and isinstance(value, SCALARS)
        and not is_interpolated(value)
        and value != MISSING
    )


def last_values(overrides: Sequence[Override], content: Mapping[str, Any]) -> dict[str, Any]:
    """The values that overrides set in a config, by key."""
    return {placed(content, override.key_or_group): override.value() for override in overrides}


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of one type; NaN is the same as NaN."""
    return type(one) is type(other) and (one == other or (one != one and other != other))
