"""Runs as a table: ``diffexp.load``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from diffexp.components.metrics.traits import higher_is_better, needed, needed_by
from diffexp.errors import InputError
from diffexp.experiment.summary import HIGH, LOW
from diffexp.report.axes import GROUPS
from diffexp.report.collect import collect
from diffexp.sweeps.replicates import IDENTITY, IRRELEVANT_KEYS, mean_metrics

if TYPE_CHECKING:
    from diffexp.drawing import Drawing
    from diffexp.sweeps.results import CellResult

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
FACTS = (
    "error",
    "nfe",
    "forward_passes",
    "seconds",
    "device",
    "dtype",
    "model_id",
    "weights_sha256",
    "plan_sha256",
    "git_commit",
)
"""Entries of ``run.json`` that are columns."""

Where = Mapping[str, Any] | str | Callable[[pd.DataFrame], Any]


class Runs(pd.DataFrame):
    """A row a run; an ordinary ``pandas.DataFrame`` with the methods ``best``, ``over_seeds`` and ``chart``."""

    @property
    def _constructor(self) -> type[Runs]:
        return Runs

    def best(self, metric: str, *, max_cost: float | None = None, cost: str = "forward_passes") -> pd.Series:
        """The finished run with the best value of a metric; with several seeds, ask ``over_seeds()``.

        Args:
            metric: a column, or its name without the features: ``fid`` for ``fid/mnist_cnn``.
            max_cost: only runs that cost at most so much.
            cost: the column that ``max_cost`` is of.

        Raises:
            InputError: no such column, or no finished run has a value, or enough samples to be ranked by it.
        """
        column = self.column(metric)
        found: Any = self[(self["status"] == "done") & self[column].notna()]
        if max_cost is not None:
            found = found[found[self.column(cost)] <= max_cost]
        if found.empty:
            limit = "" if max_cost is None else f" at {cost} of at most {max_cost:g}"
            raise InputError(f"no finished run has {column}{limit}")
        if "num_samples" in found and (least := needed_by(column, needed())):
            enough = found[found["num_samples"].isna() | (found["num_samples"] >= least)]
            if enough.empty:
                most = found["num_samples"].max()
                raise InputError(f"{column} is ranked from {least} samples on; the finished runs have at most {most:g}")
            found = enough
        higher = column.partition("/")[0] in higher_is_better()
        return found.loc[found[column].idxmax() if higher else found[column].idxmin()]

    def over_seeds(self) -> Runs:
        """A row for each set of finished runs that differ in nothing but the seed: the means of their metrics.

        ``seeds`` is how many there are; the ends ``/low`` and ``/high`` are those of Student's 95 % interval over them.
        The other columns are those of the first run.

        Raises:
            InputError: the table is not of ``load``, or has been joined with another.
        """
        if not {"config", "metrics"} <= self.attrs.keys():
            raise InputError(
                "this table does not know which columns are config keys: pandas drops that where it joins tables; "
                "give all folders to diffexp.load"
            )
        done: Any = self[self["status"] == "done"]
        keys = [key for key in self.attrs["config"] if key.partition(".")[0] not in IRRELEVANT_KEYS]
        columns = [done[key] for key in (*keys, *IDENTITY) if key in done]
        same = [repr(values) for values in zip(*columns)]  # some are lists, which pandas does not group by
        rows: list[dict[Any, Any]] = []
        for _, group in done.groupby(same, sort=False):
            members = group[self.attrs["metrics"]].astype(object).to_dict("records")
            known = [{name: value for name, value in member.items() if pd.notna(value)} for member in members]
            means = dict.fromkeys(self.attrs["metrics"]) | mean_metrics(known)
            rows.append({**group.iloc[0].to_dict(), "seeds": len(group), **means})
        found = Runs(pd.DataFrame(rows, columns=None if rows else [*self.columns, "seeds"]))
        found.attrs = self.attrs
        return found

    def chart(self, metric: str, *, x: str = "forward_passes", by: str | Sequence[str] = "scheduler") -> Drawing:
        """A chart of a metric: a line for each scheduler, the mean over seeds with its interval.

        A notebook shows it, ``.save("fid.svg")`` or ``.save("fid.png")`` writes it. Runs of one line at the same ``x``
        that differ in another config key as well are lines of their own.

        Args:
            metric: a column, or its name without the features: ``fid`` for ``fid/mnist_cnn``.
            x: the column of numbers across.
            by: the column, or the columns, whose values have a line each.

        Raises:
            InputError: no such column, no numbers in it, or no finished run has both.
        """
        from diffexp.report.run_chart import chart  # the drawing takes a while to import

        table = self if "seeds" in self else self.over_seeds()
        lines_by = [table.column(name) for name in ([by] if isinstance(by, str) else by)]
        return chart(table, table.column(metric), table.column(x), lines_by)

    def column(self, name: str) -> str:
        """The column of that name, or the only one whose name begins with it: ``fid/mnist_cnn`` for ``fid``.

        Raises:
            InputError: there is none, with the nearest spelling, or there are several.
        """
        if name in self.columns:
            return name
        own = [str(column) for column in self.columns if str(column).partition("/")[0] == name]
        own = [column for column in own if not column.endswith((LOW, HIGH))]
        if len(own) == 1:
            return own[0]
        near = own or get_close_matches(name, map(str, self.columns), n=3)
        raise InputError(f"there is no column {name}" + (f"; did you mean {' or '.join(near)}?" if near else ""))


def load(*folders: str | PathLike[str], since: str | datetime | None = None, where: Where | None = None) -> Runs:
    """Every run below some folders, across sweeps, as a table with a row each, the oldest first.

    Columns: ``folder``, ``sweep``, ``status``, ``error``, ``started`` (UTC), every config key, flattened (the chosen
    option of a group is ``scheduler``, its options ``scheduler.eta``), the facts of ``run.json`` (``nfe``, ``device``,
    ``plan_sha256``, ``versions.torch``, ...), and every metric with the ends of its interval (``fid/mnist_cnn``,
    ``fid/mnist_cnn/low``). A metric that is named like a config key is ``metric.<name>``.

    Args:
        *folders: of runs, of sweeps, or folders that contain such folders; by default ``outputs``.
        since: ``"7d"``, ``"12h"``, ``"30m"`` or ``"2w"`` ago, ``"monday"`` (the last one, today included), or a date or
            time (local if it has no zone).
        where: keep the rows with these values ``{"scheduler": "ddim", "steps": [10, 20]}``, for which a pandas query
            ``"steps <= 20"`` is true, or those that a function of the table selects.

    Raises:
        InputError: a folder contains no runs, or ``since`` or ``where`` cannot be read.

    Example:
        >>> import diffexp
        >>> runs = diffexp.load("outputs", since="monday", where={"model": "mnist"})  # doctest: +SKIP
        >>> runs.best("fid", max_cost=20)["folder"]  # doctest: +SKIP
    """
    paths = [Path(folder).expanduser() for folder in folders or ("outputs",)]
    for path in paths:
        if not path.is_dir():
            raise InputError(f"{path} is not a folder")
    cells = collect(paths)
    table: Any = Runs(pd.DataFrame([_row(cell) for cell in cells]))
    config = dict.fromkeys(key for cell in cells for key in _short(cell.config))
    measured = dict.fromkeys(name for cell in cells for name in _metrics(cell))
    table.attrs = {"config": list(config), "metrics": list(measured)}
    table["started"] = pd.to_datetime(table["started"], utc=True)
    table = table.sort_values("started", kind="stable", ignore_index=True)
    if since is not None:
        table = table[table["started"] >= _moment(since)].reset_index(drop=True)
    return table if where is None else _selected(table, where)


def _row(cell: CellResult) -> dict[str, Any]:
    record, config = cell.record, _short(cell.config)
    facts = {name: record.get(name) for name in FACTS if name != "error"}
    versions = {f"versions.{name}": version for name, version in (record.get("versions") or {}).items()}
    sweep = str(cell.folder.parent) if (cell.folder.parent / "sweep.json").is_file() else None
    return {
        "folder": str(cell.folder),
        "sweep": sweep,
        "status": cell.status,
        "error": cell.error,
        "started": record.get("started"),
        **config,
        **{name: value for name, value in facts.items() if name not in config},
        **versions,
        **_metrics(cell),
    }


def _metrics(cell: CellResult) -> dict[str, Any]:
    return {f"metric.{name}" if name in cell.config else name: value for name, value in cell.metrics.items()}


def _short(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config with ``scheduler`` in place of ``scheduler.name``, and the names of all trackers in ``tracker``."""
    names = {f"{group}.name": group for group in GROUPS}
    trackers = {key: value for key, value in config.items() if re.fullmatch(r"tracker(\.[^.]+)?\.name", key)}
    short = {names.get(key, key): value for key, value in config.items() if key not in trackers}
    return short | ({"tracker": ",".join(trackers.values())} if trackers else {})


def _moment(since: str | datetime) -> datetime:
    """The moment that ``since`` names.

    Raises:
        InputError: it cannot be read.
    """
    now = datetime.now().astimezone()
    if isinstance(since, datetime):
        return since.astimezone(UTC)
    text = since.strip().lower()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([mhdw])", text):
        return now - timedelta(**{UNITS[match[2]]: float(match[1])})
    if text in ("today", *WEEKDAYS):
        days = 0 if text == "today" else (now.weekday() - WEEKDAYS.index(text)) % 7
        return (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        return datetime.fromisoformat(since.strip()).astimezone(UTC)
    except ValueError:
        raise InputError(f"since={since}: give 7d, 12h, 30m, 2w, a weekday, today, or a date as 2026-01-31") from None


def _selected(table: Any, where: Where) -> Runs:
    if callable(where):
        return table[where(table)].reset_index(drop=True)
    if isinstance(where, str):
        try:
            return table.query(where).reset_index(drop=True)
        except Exception as error:  # pandas raises a dozen kinds
            raise InputError(f"where={where}: {' '.join(str(error).split())}; columns: {_some(table)}") from error
    for key, value in where.items():
        column = table[table.column(key)]
        wanted = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        table = table[column.isin(wanted)]
    return table.reset_index(drop=True)


def _some(table: pd.DataFrame) -> str:
    return ", ".join(map(str, [*table.columns][:12])) + ", ..."
