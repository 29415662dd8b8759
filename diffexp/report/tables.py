"""Files of results: CSV and Parquet with every number, Markdown and LaTeX to be read."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from markupsafe import Markup

from diffexp.errors import InputError
from diffexp.files import replace_whole, write_text
from diffexp.report.axes import as_text
from diffexp.report.result_table import BOLD, ITALIC, Column, ResultTable

MOST_ROWS = 60
"""Rows in a notebook."""
MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")
TEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "{}$&#_%"},
    "^": r"\^{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "≤": r"$\leq$",
    "·": r"$\cdot$",
    "–": "--",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "∞": r"$\infty$",
}


def markdown(table: ResultTable) -> str:
    """The table for a README."""

    def line(texts: Sequence[str]) -> str:
        return f"| {' | '.join(texts)} |"

    signs = {BOLD: "**{}**", ITALIC: "*{}*", "": "{}"}
    lines = [line([_markdown(column.title) for column in table.columns])]
    lines.append(line(["---:" if column.is_number else "---" for column in table.columns]))
    for row in table.rows:
        lines.append(line([signs[one.style if one.text else ""].format(_markdown(one.text)) for one in row]))
    notes = [f"{_markdown(note)}." for note in table.notes]
    return "\n".join([*lines, "", *(f"{note}  " for note in notes[:-1]), *notes[-1:]]) + "\n"


def tex(table: ResultTable) -> str:
    """The table for LaTeX with the package booktabs."""
    signs = {BOLD: r"\textbf{{{}}}", ITALIC: r"\textit{{{}}}", "": "{}"}
    places = "".join("r" if column.is_number else "l" for column in table.columns)
    head = " & ".join(_tex(column.title) for column in table.columns)
    body = [
        " & ".join(signs[one.style if one.text else ""].format(_tex(one.text)) for one in row) + r" \\"
        for row in table.rows
    ]
    caption = " ".join(f"{_tex(note)}." for note in table.notes)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{places}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def html(table: ResultTable) -> Markup:
    """The first rows of the table and its notes as a part of a page, in the colours of that page."""
    hidden = len(table.rows) - MOST_ROWS
    more = [f"{hidden} more cells are not shown"] if hidden > 0 else []
    signs = {BOLD: Markup("<b>{}</b>"), ITALIC: Markup("<i>{}</i>"), "": Markup("{}")}
    cell = Markup('<td style="text-align:{}">{}</td>')
    head = Markup("").join(
        Markup('<th style="text-align:{}">{}</th>').format(_side(column), column.title) for column in table.columns
    )
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                cell.format(_side(column), signs[one.style].format(one.text)) for column, one in zip(table.columns, row)
            )
        )
        for row in table.rows[:MOST_ROWS]
    )
    notes = Markup('<div style="opacity:.7">{}.</div>').format(". ".join([*table.notes, *more]))
    whole = Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>{}")
    return whole.format(head, rows, notes)


def write_table(folders: Sequence[Path], out: Path, metric: str | None = None) -> Path:
    """Write the results of runs as a table: ``.csv`` or ``.parquet`` with every number, ``.md`` or ``.tex`` to be read.

    Args:
        folders: of sweeps or runs, or folders that contain such folders.
        metric: what readable tables are ordered by; by default the first that the page shows.

    Raises:
        InputError: another kind of file, Parquet without the package that writes it, a folder contains no runs, or no
            cell has the metric.
    """
    from diffexp.report.collect import collect
    from diffexp.report.content import Report

    if out.suffix not in WRITERS:
        raise InputError(f"out={out} ends in none of {', '.join(WRITERS)}")
    if out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise InputError(f"out={out}: Parquet needs pyarrow: pip install diffexp[parquet]")
    WRITERS[out.suffix](ResultTable(Report(collect(folders), out.absolute()), metric), out)
    return out


def _write_csv(table: ResultTable, out: Path) -> None:
    text = io.StringIO()
    table.frame(out.absolute().parent).to_csv(text, index=False)
    write_text(out, text.getvalue())


def _write_parquet(table: ResultTable, out: Path) -> None:
    frame = table.frame(out.absolute().parent)
    for name in frame:  # columns of one type
        if frame[name].dtype == object:
            frame[name] = [None if value is None or value != value else as_text(value) for value in frame[name]]
    with replace_whole(out) as temporary:
        frame.to_parquet(temporary, engine="pyarrow", index=False)


WRITERS: Mapping[str, Callable[[ResultTable, Path], None]] = {
    ".csv": _write_csv,
    ".md": lambda table, out: write_text(out, markdown(table)),
    ".tex": lambda table, out: write_text(out, tex(table)),
    ".parquet": _write_parquet,
}
"""What writes a table, by the suffix of its file."""


def _side(column: Column) -> str:
    return "right" if column.is_number else "left"


def _markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _tex(text: str) -> str:
    return "".join(TEX.get(character, character) for character in " ".join(text.split()))
