"""Model and pipeline objects of ``diffexp.run`` and ``diffexp.sweep``: each has a name for the time of the call."""

import inspect
import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffexp.catalog.entry import Entry
from diffexp.catalog.given import PREFIX, GivenEntry
from diffexp.catalog.kinds import KINDS, TARGET
from diffexp.catalog.sources import Source
from diffexp.catalog.types import Option, OptionType
from diffexp.cli.ranks import Ranks
from diffexp.errors import InputError

CLASS = "class"
"""Option of an object, by which ``run.json`` has its class."""
SIZE = (
    Option("height", OptionType("int", optional=True), None),
    Option("width", OptionType("int", optional=True), None),
    Option("clip_skip", OptionType("int", optional=True), None),
)
"""Options of a text-to-image pipeline."""
IN_THIS_PROCESS = ("Batched", "Basic")
"""What the names of launchers begin with that run cells in this process."""
AS_IT_IS = {"device": "auto", "dtype": "auto", "compile": False}
"""Keys that say how a model is loaded, with the values that leave it alone."""


class Objects:
    """The objects of one call."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], Entry] = {}

    def name_of(self, key: str, value: Any) -> str | None:
        """The name of an object that is given for a group; None of a value that a config can hold.

        Raises:
            InputError: an object of a kind that has to be registered, or that is no model.
        """
        plain = value is None or isinstance(value, str | Mapping | list | tuple | numbers.Number)
        if key not in KINDS or plain or type(value).__module__.partition(".")[0] in ("numpy", "pandas", "builtins"):
            return None
        if key != "model":
            kind = type(value).__name__
            raise InputError(f"{key}: a {kind} is an object, which only model= takes; register it with @diffexp.{key}")
        entry = self._entry(value)
        self.entries[key, entry.name] = entry
        return entry.name

    def check(self, task: Mapping[str, Any], settings: Any) -> None:
        """Check that objects stay in this process, and as they are.

        Args:
            task: the config of the run, or of a sweep's first cell.
            settings: those of Hydra.

        Raises:
            InputError: other processes would need them, or they would have to be moved.
        """
        if not self.entries:
            return
        name = str(settings.launcher.get(TARGET)).rpartition(".")[2]
        if (task["workers"] or 1) > 1 or not name.startswith(IN_THIS_PROCESS) or Ranks.of_environment():
            raise InputError("a model object cannot be handed to other processes; give the model by its name")
        for key, alone in AS_IT_IS.items():
            if task[key] != alone:
                raise InputError(f"{key}={task[key]} has no effect on a model object: it is used as it is given")

    def others(self, words: Sequence[str]) -> list[str]:
        """The words that name other things than objects."""
        names = {name for _, name in self.entries}
        return [word for word in words if set(word.partition("=")[2].split(",")) - names]

    def _entry(self, thing: Any) -> Entry:
        from diffexp.components.models.given import is_pipeline, model_of, weights_of  # imports torch

        build, sha256 = model_of(thing), weights_of(thing)
        cls = type(thing)
        path = f"{cls.__module__}.{cls.__qualname__}"
        sized = inspect.signature(build).parameters
        options = tuple(option for option in SIZE if option.name in sized)

        def load(runtime: Any, **given: Any) -> Any:
            return build(**{name: value for name, value in given.items() if name != CLASS})

        source = _source(cls)
        return GivenEntry(
            kind="model",
            name=f"{PREFIX}{cls.__name__}-{sha256[:8]}",
            file=source.file,
            line=1,
            qualname=cls.__qualname__,
            options=(Option(CLASS, OptionType("str"), path), *options),
            doc="An object from Python.",
            traits={"default_samples": "one per prompt"}
            if options
            else {"default_samples": 4}
            if is_pipeline(thing)
            else {},
            style="function",
            accepts_any_option=False,
            source=source,
            thing=load,
        )


def _source(cls: type) -> Source:
    """The file of a class; of one that has none, as in a notebook, and of diffusers' that of this module."""
    try:
        file = Path(inspect.getfile(cls)).resolve()
        if cls.__module__.partition(".")[0] not in ("diffusers", "diffexp", "__main__") and file.is_file():
            return Source(file, cls.__module__, file, by_path=False)
    except (TypeError, OSError):
        pass
    here = Path(__file__).resolve()
    return Source(here, __name__, here, by_path=False)
