"""The command ``python -m diffexp.learn``: words in, a folder with a learned plan and an exit code out."""

import logging
import secrets
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.guard import guarded
from diffexp.cli.words import read_value, split_word
from diffexp.errors import INTERRUPTED, InputError
from diffexp.files import read_json
from diffexp.learn.settings import CHOICES, GRADIENT, KEYS, Settings

if TYPE_CHECKING:
    from diffexp.learn.session import Learned

OUT = "outputs/learn"
SWEEP = ("-m", "--multirun")
OWN = (*KEYS, "out", "resume")
SHIP = "ship="
HELP = f"""\
diffexp.learn: fits a plan (levels, timesteps and coefficients of a scheduler) to one model, and proves it.

  python -m diffexp.learn model=mnist steps=5
  python -m diffexp.learn -m model=mnist steps=3,5,8
  python -m diffexp.learn model=sd15 steps=6 prompt=@prompts.txt guidance_scale=7.5
  python -m diffexp.learn resume=outputs/learn/FOLDER

All keys of a run choose what to learn for: model, guidance, prompt or label, and scheduler and grid to start from
(by default dpmpp_2m on ays or the model's own grid). Keys of learning:
  method=NAME         {", ".join(CHOICES["method"])}
  loss=NAME           {", ".join(CHOICES["loss"])}: what the first, endpoint and levels descend on
  log=BOOL            whether distances count by their logarithm (true)
  iterations=N        of these three ({Settings.iterations}; by gradient {GRADIENT["iterations"]})
  learning_rate=X     of endpoint and levels ({Settings.learning_rate})
  batch=N             samples of an iteration ({Settings.batch}; by gradient {GRADIENT["batch"]})
  train=N valid=N     noises to learn from, and to choose the best table by ({Settings.train}, {Settings.valid})
  test=N              noises of the comparison at the end; 0 leaves it out ({Settings.test})
  spectrum=NAME       {", ".join(CHOICES["spectrum"])}: what method=spectrum learns on
  noise=NAME          {", ".join(CHOICES["noise"])}: what becomes of the noise of a scheduler that draws it
  out=FOLDER          by default a new one in {OUT}
  resume=FOLDER       continue what was interrupted; with test=N, compare what was learned on so many noises
  ship=FOLDER         put the proven plan of a folder into the package, for scheduler=learned without a path

Use the result: python -m diffexp scheduler=learned scheduler.path=FOLDER
"""


@dataclass(frozen=True)
class Order:
    """What one plan is to be learned from."""

    config: Mapping[str, Any]
    settings: Settings
    folder: Path
    command: str
    resume: bool = False
    usual_grid: bool = False
    """Whether no grid was given."""


def main() -> NoReturn:
    """Run the command line in ``sys.argv`` and exit."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(words: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    logging.getLogger("diffexp").setLevel(logging.INFO)
    return guarded(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    if not words or "--help" in words or "-h" in words:
        print(HELP, end="")
        return 0
    if all(word.startswith(SHIP) for word in words):
        from diffexp.components.plan_files import ship  # imports torch

        for word in words:
            print(f"shipped: {ship(word.removeprefix(SHIP))}")
        return 0
    catalog = discover()
    for order in read_orders(words, catalog):
        learned = run_order(order, catalog)
        print(f"plan: {learned.folder / 'plan.json'}\nreport: {learned.folder / 'report.html'}")
        if learned.interrupted:
            return INTERRUPTED
    return 0


def run_order(order: Order, catalog: Catalog) -> "Learned":
    """Learn one plan."""
    from diffexp.learn.session import learn  # imports torch

    how = {"resume": order.resume, "usual_grid": order.usual_grid}
    return learn(order.config, order.settings, order.folder, catalog, order.command, **how)


def read_orders(words: Sequence[str], catalog: Catalog) -> list[Order]:
    """Read the words of the command line; several plans with ``-m``.

    Raises:
        InputError: an unknown key, or a value that does not fit.
    """
    multirun = any(word in SWEEP for word in words)
    given = [word for word in words if word not in SWEEP]
    own = dict(split_word(word, OWN.__contains__) for word in given if word.partition("=")[0] in OWN)
    rest = [word for word in given if word.partition("=")[0] not in OWN]
    if resume := own.pop("resume", None):
        if rest or own.keys() - {"test"} or multirun:
            raise InputError("resume= stands alone, but for test=: everything else is in the folder")
        return [_resumed(Path(resume).expanduser(), own.get("test"))]
    out = own.pop("out", None)
    if multirun and out is None:
        out = str(Path(OUT, datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
    settings = Settings.of({key: read_value(key, word) for key, word in own.items()})
    usual_grid = not any(word.partition("=")[0].partition(".")[0] == "grid" for word in rest)
    orders = []
    for cell in _configs(_with_defaults(rest), multirun, catalog):
        config, of_cell = cell
        name = f"{config['model']['name']}_{settings.method}_{config['steps']}"
        folder = Path(out) if out else Path(OUT, f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}_{secrets.token_hex(3)}")
        if multirun:
            folder = folder / f"{len(orders)}_{name}"
        of_learning = [word for word in given if word.partition("=")[0] in KEYS]
        command = shlex.join(["python", "-m", "diffexp.learn", *of_cell, *of_learning])
        orders.append(Order(config, settings, folder.absolute(), command, usual_grid=usual_grid))
    return orders


def _with_defaults(words: Sequence[str]) -> list[str]:
    """The words of a run with those that differ here where nothing is given."""
    keys = {word.partition("=")[0] for word in words}
    usual = {"scheduler": "dpmpp_2m", "tracker": "none"}
    return [*words, *(f"{key}={value}" for key, value in usual.items() if key not in keys)]


def _configs(words: Sequence[str], multirun: bool, catalog: Catalog) -> list[tuple[dict[str, Any], list[str]]]:
    """The config of each run, with its words."""
    from diffexp.cli.cells import task_config
    from diffexp.cli.check import Preflight
    from diffexp.cli.hydra_config import hydra_session

    with hydra_session(catalog) as loader:
        preflight = Preflight(loader, catalog)
        checked = preflight.check(words, multirun)
        if not checked.multirun:
            return [(task_config(checked.config), list(checked.words))]
        return [(task_config(preflight.check(cell, False).config), cell) for cell in checked.cells or ()]


def _resumed(folder: Path, test: str | None) -> Order:
    """The order that a folder was made for, with another number of noises of the comparison where one is given."""
    record = read_json(folder / "learn.json")
    if not record:
        raise InputError(f"resume={folder}: there is no learn.json of an earlier attempt")
    values, words = record["settings"], shlex.split(record["command"])
    if test is not None:
        values = {**values, "test": read_value("test", test)}
        words = [*(word for word in words if not word.startswith("test=")), f"test={test}"]
    return Order(record["config"], Settings.of(values), folder.absolute(), shlex.join(words), True)
