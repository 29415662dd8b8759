"""The command ``python -m diffexp.certify scheduler=NAME``: words in, certificates and an exit code out."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from diffexp.catalog.discover import Catalog, discover
from diffexp.certify.request import Job, Request
from diffexp.cli.config import check_node
from diffexp.cli.guard import guarded
from diffexp.cli.names import KnownNames
from diffexp.cli.words import read_value, split_words
from diffexp.errors import FAILED, InputError

OUT = "outputs/certify"
ALL = "all"
HELP = f"""\
diffexp.certify: checks a scheduler's implementation on models with exact solutions, offline, in seconds.

  python -m diffexp.certify scheduler=euler
  python -m diffexp.certify scheduler=mine scheduler.gamma=1.5      a plugin, with options
  python -m diffexp.certify scheduler=dpmpp_2m,diffusers/dpmsolver_multistep
  python -m diffexp.certify scheduler={ALL}                           one table, sorted

Keys:
  scheduler=NAME     what to certify: a name, several with commas, or {ALL}
  scheduler.OPTION=  an option of it; `python -m diffexp --help` lists them
  out={OUT}   where certificate.json, certificate.md and certificate.png go, in a folder for each

The exit code is 0 where all passed, 1 where a check failed, 2 for bad input.

Schedulers:
"""


def main() -> NoReturn:
    """Run the command line in ``sys.argv`` and exit."""
    sys.exit(run_command(sys.argv[1:]))


def run_command(words: Sequence[str]) -> int:
    """Run a command line; returns the exit code."""
    return guarded(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    if not words or "--help" in words or "-h" in words:
        print(HELP + "  " + "\n  ".join(sorted(discover().names("scheduler"))))
        return 0
    request = read_words(words, discover())
    from diffexp.certify.session import run_request

    return 0 if run_request(request) else FAILED


def read_words(words: Sequence[str], catalog: Catalog) -> Request:
    """Read the words of the command line.

    Raises:
        InputError: an unknown key, scheduler or option, or a value of the wrong type.
    """
    values = split_words(words, ("scheduler", "out"), ("scheduler.",))
    if not values.get("scheduler"):
        raise InputError(f"give scheduler=NAME, or scheduler={ALL}; see --help")
    chosen = {key.partition(".")[2]: word for key, word in values.items() if key.startswith("scheduler.")}
    out = Path(values.get("out") or OUT)
    if values["scheduler"] == ALL:
        if chosen:
            raise InputError(
                f"scheduler={ALL} takes no options: name the scheduler that scheduler.{min(chosen)} is for"
            )
        return Request(everything(catalog), out, True)
    names = [name.strip() for name in values["scheduler"].strip("[]").split(",")]
    return Request(tuple(Job(name, _options(catalog, name, chosen)) for name in names), out, False)


def everything(catalog: Catalog) -> tuple[Job, ...]:
    """All schedulers at their defaults, and the variants that are methods of their own."""
    from diffexp.certify.equivalents import VARIANTS

    jobs = [Job(name) for name in catalog.names("scheduler")]
    return (*jobs, *(Job(name, options) for name, options in VARIANTS if catalog.find("scheduler", name)))


def _options(catalog: Catalog, name: str, chosen: Mapping[str, str]) -> dict[str, Any]:
    if catalog.find("scheduler", name) is None:
        KnownNames.of(catalog).check_choices("scheduler", [name])
        raise InputError(f"scheduler={name} is no scheduler by itself; write scheduler=diffusers/<class>")
    options = {option: read_value(f"scheduler.{option}", word) for option, word in chosen.items()}
    return {
        key: own for key, own in check_node("scheduler", {**options, "name": name}, catalog).items() if key in options
    }
