"""A command line, from its words to an exit code."""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.guard import complain, guarded
from diffexp.cli.names import KnownNames
from diffexp.errors import BAD_INPUT, FAILED, InputError
from diffexp.sweeps.console import show, styled

if TYPE_CHECKING:
    from diffexp.sweeps.failures import Failure

FROM_IMAGE = "--from-image"


def run_command(arguments: list[str]) -> int:
    """Run a command line; returns the exit code."""
    return guarded(lambda: _dispatch(arguments))


def _dispatch(arguments: list[str]) -> int:
    arguments = [word.lstrip() for word in arguments]
    if "--help" in arguments or "-h" in arguments:
        from diffexp.cli.help import help_page

        page = help_page(discover())
        show(lambda width: page)
        return 0
    if "--version" in arguments:
        from diffexp.experiment.provenance import installed_versions

        found = installed_versions().get("diffexp")
        print(f"diffexp {found}" if found else "diffexp, not installed")
        return 0
    catalog = discover()
    names = KnownNames.of(catalog)
    if any(word == FROM_IMAGE or word.startswith(f"{FROM_IMAGE}=") for word in arguments):
        return _print_command_of(arguments, names)
    if not any(word.startswith(("--config-d", "--shell", "-sc", "-cd", "hydra.searchpath")) for word in arguments):
        names.check_words(arguments)
    from diffexp.cli.hydra_internals import get_args_parser

    parser = get_args_parser()
    parser.add_argument(FROM_IMAGE)  # alone, as above; here for the nearest spelling
    parser.add_argument("--dry-run", action="store_true")
    parser.error = _refuse
    names.check_flags(arguments, parser._option_string_actions)
    options = parser.parse_intermixed_args(arguments)  # flags may stand between the words
    if options.from_image is not None:  # abbreviated
        return _print_command_of([FROM_IMAGE, options.from_image], names)
    if not options.cfg and (options.package or options.resolve):
        raise InputError("--package (-p) and --resolve change what --cfg shows, and have no effect without it")
    for flag in ("config_path", "config_name", "experimental_rerun"):
        if getattr(options, flag) is not None:
            raise InputError(f"--{flag.replace('_', '-')} is not supported; add a folder of configs with --config-dir")
    return _run(catalog, options)


def _print_command_of(arguments: list[str], names: KnownNames) -> int:
    """Print the command that makes an image again; returns the exit code."""
    from diffexp.cli.from_image import command_of

    file = arguments[-1].removeprefix(f"{FROM_IMAGE}=")
    if len(arguments) > 2 or (len(arguments) == 2) != (arguments[0] == FROM_IMAGE) or file in ("", FROM_IMAGE):
        raise InputError(f"{FROM_IMAGE} takes an image file and nothing else: {FROM_IMAGE} samples/000000.png")
    found = command_of(Path(file).expanduser(), names.groups)
    print(found.command)
    for note in found.notes:
        print(f"{styled('note:', 'bold', sys.stderr)} {note}", file=sys.stderr)
    return 0


def _run(catalog: Catalog, options: argparse.Namespace) -> int:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _run_or_raise(catalog, options)
    except (HydraException, OmegaConfBaseException) as error:  # of the keys of Hydra itself
        raise InputError(" ".join(str(error).split())) from error


def _run_or_raise(catalog: Catalog, options: argparse.Namespace) -> int:
    from diffexp.cli.check import Preflight
    from diffexp.cli.hydra_config import CONFIG_NAME, hydra_session
    from diffexp.cli.hydra_internals import show
    from diffexp.cli.launch import launch
    from diffexp.cli.ranks import Ranks
    from diffexp.cli.resume import resumed_sweep, resumed_words

    ranks = Ranks.of_environment()
    if ranks:
        options.overrides = ranks.words(options.overrides)
    resumed = resumed_sweep(options.overrides)
    if resumed:
        options.overrides, options.config_dir = resumed.record.overrides, resumed.record.config_dir
    else:
        options.overrides, config_dir = resumed_words(options.overrides)
        options.config_dir = options.config_dir or config_dir
    config_dir = _config_dir(options)
    with hydra_session(catalog, config_dir) as loader:
        if options.shell_completion or options.hydra_help:
            show(CONFIG_NAME, options)
            return 0
        checked = Preflight(loader, catalog).check(options.overrides, options.multirun or resumed is not None)
        if options.cfg and options.multirun:
            raise InputError("--cfg shows the config of one run: leave -m out, and give one value for each key")
        if options.cfg or options.info:
            options.overrides = checked.words
            show(CONFIG_NAME, options)
            return 0
        if options.dry_run:
            from diffexp.cli.dry_run import dry_run

            return dry_run(loader, checked, catalog, config_dir, resumed) if not (ranks and ranks.rank) else 0
        if ranks and checked.multirun:
            checked = Preflight(loader, catalog).check(ranks.words_of_sweep(options.overrides), multirun=True)
        if ranks:
            ranks.choose_device()
        if ranks and ranks.rank > 0:
            ranks.work()
            return 0
        folder, failures = launch(loader, checked, catalog, config_dir, resumed)
    return _report(folder, failures, multirun=checked.multirun)


def _report(folder: Path, failures: list["Failure"], *, multirun: bool) -> int:
    """Print the outcome; returns the exit code."""
    if not failures:
        if multirun:
            if (folder / "report.html").is_file():
                print(f"open the report with: {opens(folder / 'report.html')}")
            for name in ("results.csv", "report.html"):
                if (folder / name).is_file():
                    print(f"{name.partition('.')[0]}: {folder / name}")
        return 0
    code = BAD_INPUT if all(failure.input_error for failure in failures) else FAILED
    if not multirun:
        more = "" if failures[0].input_error else f" (traceback: {folder / 'diffexp.log'})"
        return complain(failures[0].message + more, code)
    lines = [f"{Path(failure.folder).name}: {failure.message}" for failure in failures]
    return complain("\n  ".join([f"{len(failures)} of the sweep's runs failed, see {folder}", *lines]), code)


def opens(page: Path) -> str:
    """The command that shows a page: in a browser here, or where there is no screen, from a server on this machine."""
    screens = sys.platform in ("win32", "darwin") or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    if screens and not os.environ.get("SSH_CONNECTION"):
        return f"python -m webbrowser {page.as_uri()}"
    return f"python -m diffexp.report --watch {shlex.quote(str(page.parent))}"


def _config_dir(options: argparse.Namespace) -> Path | None:
    if options.config_dir is None:
        return None
    folder = Path(options.config_dir).absolute()
    if not folder.is_dir():
        raise InputError(f"--config-dir={options.config_dir} is not a folder")
    return folder


def _refuse(message: str) -> NoReturn:
    raise InputError(f"{message} (see --help)")
