"""The command ``python -m diffexp.report DIR… [out=FILE]``: a page that compares runs, a table, or one chart."""

import sys
from collections.abc import Iterable
from pathlib import Path

from diffexp.cli.watch import FLAG, watch
from diffexp.cli.words import split_words
from diffexp.errors import InputError

USAGE = """usage: python -m diffexp.report DIR... [key=value ...]   (folders of runs or sweeps)
  out=FILE      what to write, by the end of its name:
                  .html           the page, with comparison.csv, its table of pairs, beside it (default: report.html in
                                  DIR, or here for several folders)
                  .csv .parquet   the results of every cell, seeds as replicates, with intervals
                  .md .tex        the same as a table to be read, the best value of each metric in bold
                  .svg .png       one chart of the page
  metric=NAME   of the chart, or what the table to be read is ordered by, as in metrics.json (default: the first on the
                page)
  cost=NAME     of the chart: forward_passes (default), nfe or seconds_per_image
  x=NAME        of a chart of metric= over anything else: another metric, steps, scheduler.eta, ...
  by=NAME       of such a chart: the key whose values have a line each, or several, as in by=scheduler,grid (default:
                scheduler)

or: python -m diffexp.report --watch DIR [port=8765]   (the page of DIR on this machine, at http://127.0.0.1:8765/, made
                anew when runs change, until Ctrl-C; port=0 takes any that is free)"""
KEYS = ("out", "metric", "cost", "x", "by")
CHARTS, READABLE = (".svg", ".png"), (".md", ".tex")
SUFFIXES = (".html", ".csv", ".parquet", *READABLE, *CHARTS)
"""Of the files that the command writes."""
BESIDE_RUNS = ("sweep.json", "multirun.yaml", "work.json")
"""Further files that lie beside the folders of runs."""


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
    words, folders = split_words(keyed, KEYS), _folders(word for word in arguments if word not in keyed)
    if not folders:
        raise InputError("no folder is given, as in python -m diffexp.report outputs/multirun/2026-01-31/12-00-00")
    out, metric = Path(words["out"]) if "out" in words else None, words.get("metric")
    suffix = out.suffix if out else ".html"
    if suffix not in SUFFIXES:
        raise InputError(f"out={out} ends in none of {', '.join(SUFFIXES)}")
    if out and not out.absolute().parent.is_dir():
        raise InputError(f"out={out}: there is no folder {out.parent}")
    free = words.keys() & {"x", "by"}
    for key in ("cost", "x", "by"):
        if key in words and suffix not in CHARTS:
            raise InputError(f"{key} chooses a chart; give its file too, as in out=chart.svg")
    if free and ("cost" in words or metric is None):
        raise InputError("x and by are for a chart of metric=NAME, without cost")
    if metric and suffix not in (*CHARTS, *READABLE):
        raise InputError("metric chooses a chart or the order of a table; give its file too, as in out=chart.svg")
    from diffexp.report import write_chart, write_report  # seconds to import

    if out is None or suffix == ".html":
        return write_report(folders, out)
    if free and out and metric:
        from diffexp.report.runs import load

        return (
            load(*folders)
            .chart(metric, x=words.get("x", "forward_passes"), by=words.get("by", "scheduler").split(","))
            .save(out)
        )
    if suffix in CHARTS:
        return write_chart(folders, out, metric, words.get("cost"))
    from diffexp.report.tables import write_table

    return write_table(folders, out, metric)


def _folders(words: Iterable[str]) -> list[Path]:
    """The folders among the words; what diffexp writes beside them is skipped, which the shell's star names too.

    Raises:
        InputError: another file, or nothing of that name.
    """
    folders, files = [], []
    for path in map(Path, words):
        if path.is_dir():
            folders.append(path)
        elif path.is_file() and (path.suffix in SUFFIXES or path.name in BESIDE_RUNS):
            files.append(path)
        elif path.is_file():
            raise InputError(f"{path} is a file; give folders of runs or sweeps")
        else:
            raise InputError(f"{path} is not a folder, and not one of {', '.join(f'{key}=...' for key in KEYS)}")
    if files and not folders:
        raise InputError(f"{files[0]} is a file; give its folder, {files[0].parent}")
    return folders
