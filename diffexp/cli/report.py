"""The command ``python -m diffexp.report DIR… [out=FILE]``: a page that compares runs, or one chart of it."""

import sys
from pathlib import Path

from diffexp.cli.watch import FLAG, watch
from diffexp.cli.words import split_words
from diffexp.errors import InputError

USAGE = """usage: python -m diffexp.report DIR... [key=value ...]   (folders of runs or sweeps)
  out=FILE      the page, with comparison.csv, its table of pairs, beside it (default: report.html in DIR, or here for
                several folders); or, if it ends in .svg, one chart as an image
  metric=NAME   of that chart, as in metrics.json (default: the first on the page)
  cost=NAME     of that chart: forward_passes (default), nfe or seconds_per_image
or: python -m diffexp.report --watch DIR [port=8765]   (the page of DIR on this machine, at http://127.0.0.1:8765/, made
                anew when runs change, until Ctrl-C; port=0 takes any that is free)"""
KEYS = ("out", "metric", "cost")


def main(arguments: list[str]) -> int:
    """Run a command line; returns the exit code."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    try:
        if FLAG in arguments:
            watch(arguments)
        else:
            print(f"report: {_write(arguments)}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _write(arguments: list[str]) -> Path:
    keyed = [word for word in arguments if word.startswith(tuple(f"{key}=" for key in KEYS))]
    words, folders = split_words(keyed, KEYS), [Path(word) for word in arguments if word not in keyed]
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder, and not one of {', '.join(f'{key}=...' for key in KEYS)}")
    if not folders:
        raise InputError("no folder is given, as in python -m diffexp.report outputs/multirun/2026-01-31/12-00-00")
    from diffexp.report import write_chart, write_report  # seconds to import

    out = Path(words["out"]) if "out" in words else None
    if out and out.suffix not in (".html", ".svg"):
        raise InputError(f"out={out} ends in neither .html, the page, nor .svg, one chart of it")
    if out and not out.absolute().parent.is_dir():
        raise InputError(f"out={out}: there is no folder {out.parent}")
    if out and out.suffix == ".svg":
        return write_chart(folders, out, words.get("metric"), words.get("cost"))
    if {"metric", "cost"} & set(words):
        raise InputError("metric and cost choose a chart; give its file too, as in out=chart.svg")
    return write_report(folders, out)
