"""``resume=<folder>`` on the command line: the original words of a run or a sweep."""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffexp.cli.words import folder_word
from diffexp.errors import InputError
from diffexp.experiment.parts import read_division
from diffexp.experiment.provenance import inputs_sha256
from diffexp.experiment.resume import PLAIN, check_same_samples, read_earlier, read_run_or_raise
from diffexp.files import read_yaml
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.record import LAUNCHER, SweepRecord, read_sweep

COMMAND = "python -m diffexp"
CHANGES_NO_SAMPLE = re.compile(rf"(resume|workers)=|{LAUNCHER.pattern}")
"""Words with which a run that several processes draw is continued in its own folder."""


def resumed_words(overrides: Sequence[str]) -> tuple[list[str], str | None]:
    """Put the original words of a run before those of a command line with ``resume=<run folder>``, which override them.

    A run that several processes draw goes on in its own folder, unless other words ask for other samples or metrics.

    Returns:
        The words, and the run's ``--config-dir``; ``overrides`` unchanged where they name no run of the command line.

    Raises:
        InputError: the folder contains no run.
    """
    given = {_key(word) for word in overrides}
    named = [word.partition("=")[2].strip("'\"") for word in overrides if word.startswith("resume=")]
    if not named or not PLAIN.fullmatch(named[-1]):
        return list(overrides), None
    record, hydra = read_run_or_raise(named[-1]).record, Path(named[-1], ".hydra").expanduser()
    if not (hydra / "overrides.yaml").is_file():
        return list(overrides), None
    earlier, place = _words(record, hydra / "overrides.yaml"), Path(named[-1]).expanduser().absolute()
    own = []
    if record.get("status") != "done" and read_division(place) and all(map(CHANGES_NO_SAMPLE.match, overrides)):
        own = [folder_word("hydra.run.dir", place)]  # where its other workers go on
        given.add("hydra.run.dir")
    words = [word for word in earlier if _key(word) not in given]
    return [*words, *own, *overrides], _config_dir(hydra / "hydra.yaml")


def _words(record: Mapping[str, Any], file: Path) -> list[str]:
    """The words that a run was started with: those of its record, which is written last, or of Hydra's file.

    Raises:
        InputError: both are damaged.
    """
    command = record.get("command")
    if isinstance(command, str) and command.startswith(COMMAND):
        with suppress(ValueError):  # a quotation without an end
            return shlex.split(command)[len(shlex.split(COMMAND)) :]
    found = read_yaml(file)
    if not isinstance(found, list):
        raise InputError(f"{file} is damaged; give the words of the run again, without resume, or with another folder")
    return [str(word) for word in found]


def _config_dir(composed: Path) -> str | None:
    """The ``--config-dir`` of a run, from its ``.hydra/hydra.yaml``; without it the config is found to differ."""
    try:
        sources = read_yaml(composed)["hydra"]["runtime"]["config_sources"]
        given = [source["path"] for source in sources if source["provider"] == "command-line"]
    except (TypeError, KeyError):
        return None
    return given[0] if given else None


def _key(override: str) -> str:
    return re.split("[=@]", override.lstrip("+~"), maxsplit=1)[0]


@dataclass(frozen=True)
class Resumed:
    """A sweep that is to be finished."""

    folder: Path
    record: SweepRecord
    """The record of the new attempt."""

    def check_cells(self, cells: Sequence[Sequence[str]] | None, compose: Callable[[int, Sequence[str]], Cell]) -> None:
        """Check that no cell has changed since it began, neither its config nor the files that the config names.

        Raises:
            InputError: the first difference.
        """
        if self.record.cells is None:
            raise InputError(
                f"resume={self.folder}: its sweeper chose the cells during the run; continue a search from its storage"
            )
        for number, (before, now) in enumerate(zip(self.record.cells, cells or [])):
            if list(before) != list(now):
                raise InputError(
                    f"resume={self.folder}: cell {number} was {' '.join(before)} and is now {' '.join(now)}"
                )
        if len(self.record.cells) != len(cells or []):
            raise InputError(
                f"resume={self.folder}: it had {len(self.record.cells)} cells and has now {len(cells or [])}"
            )
        for number, words in enumerate(self.record.cells):
            cell = compose(number, words)
            earlier = read_earlier(cell.folder)
            if earlier:
                check_same_samples(earlier, {"config": cell.config, "inputs_sha256": inputs_sha256(cell.config)})


def resumed_sweep(overrides: Sequence[str]) -> Resumed | None:
    """The sweep at the folder of ``resume=<folder>``; None without such a word, or if it is the folder of a run.

    Raises:
        InputError: there are other words than those for the launcher.
    """
    named = [match[1].strip("'\"") for text in overrides if (match := re.fullmatch(r"resume=(.+)", text))]
    folder = Path(named[-1]).expanduser().absolute() if named else None
    found = read_sweep(folder) if folder else None
    if folder is None or found is None:
        return None
    more = [text for text in overrides if not text.startswith("resume=")]
    for text in more:
        if not LAUNCHER.match(text):
            raise InputError(f"resume={named[-1]} finishes the sweep with its original config; remove {text}")
    anew = any(text.startswith("hydra/launcher=") for text in more)  # its options are others
    given = {_key(text) for text in more}
    kept = [text for text in found.overrides if not (LAUNCHER.match(text) and (anew or _key(text) in given))]
    return Resumed(folder, replace(found, overrides=[*kept, *more], attempts=found.attempts + 1))
