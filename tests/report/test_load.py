"""``diffexp.load``: runs of many sweeps as one table."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import diffexp
from diffexp.errors import InputError
from tests.made_up import made_up_cell


def started(folder: Path, moment: datetime) -> Path:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"started": moment.isoformat(timespec="seconds")}))
    return folder


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """Two sweeps, of today and of ten days ago: two schedulers, two seeds, one failure."""
    now = datetime.now(UTC)
    for scheduler, quality in (("ddim", 3.0), ("heun", 2.0)):
        for steps in (10, 20):
            for seed in (0, 1):
                config = {"scheduler": {"name": scheduler, "eta": 0.0}, "steps": steps, "seed": seed}
                name = f"{scheduler}-{steps}-{seed}"
                passes = steps * (2 if scheduler == "heun" else 1)
                folder = made_up_cell(
                    tmp_path / "new", name, config, quality=quality - steps / 20 + seed / 100, passes=passes
                )
                started(folder, now)
    (tmp_path / "new" / "sweep.json").write_text("{}")
    failed = made_up_cell(tmp_path / "old", "0", {"scheduler": {"name": "ddpm"}}, status="failed", error="no luck")
    started(failed, now - timedelta(days=10))
    return tmp_path


def test_a_row_a_run_with_config_facts_metrics_and_intervals(outputs: Path) -> None:
    runs: Any = diffexp.load(outputs)
    assert isinstance(runs, pd.DataFrame) and len(runs) == 9
    oldest = runs.iloc[0]
    assert (oldest["status"], oldest["error"], oldest["scheduler"]) == ("failed", "no luck", "ddpm")
    assert oldest["sweep"] is None or pd.isna(oldest["sweep"])
    row = runs[(runs["scheduler"] == "heun") & (runs["steps"] == 20) & (runs["seed"] == 1)].iloc[0]
    metrics = json.loads(Path(row["folder"], "metrics.json").read_text())
    assert row["fid/mnist_cnn"] == metrics["fid/mnist_cnn"] and row["fid/mnist_cnn/low"] == metrics["fid/mnist_cnn/low"]
    assert (row["model"], row["scheduler.eta"], row["nfe"], row["forward_passes"]) == ("mnist", 0.0, 20, 40)
    assert row["sweep"] == str(outputs / "new") and row["started"].tzinfo is not None


def test_the_best_run_within_a_budget(outputs: Path) -> None:
    runs: Any = diffexp.load(outputs)
    best = runs.best("fid", max_cost=20)
    eligible = runs[(runs["status"] == "done") & (runs["forward_passes"] <= 20)]
    assert best["fid/mnist_cnn"] == eligible["fid/mnist_cnn"].min()
    assert runs.best("psnr")["psnr"] == runs["psnr"].max(), "of psnr the higher is the better"
    with pytest.raises(InputError, match="no finished run has fid/mnist_cnn at forward_passes of at most 3"):
        runs.best("fid", max_cost=3)
    with pytest.raises(InputError, match="there is no column fdi"):
        runs.best("fdi")


def test_means_over_seeds(outputs: Path) -> None:
    runs: Any = diffexp.load(outputs)
    merged = runs.over_seeds()
    assert len(merged) == 4 and set(merged["seeds"]) == {2}
    own = runs[(runs["scheduler"] == "ddim") & (runs["steps"] == 10)]["fid/mnist_cnn"]
    row = merged[(merged["scheduler"] == "ddim") & (merged["steps"] == 10)].iloc[0]
    assert row["fid/mnist_cnn"] == pytest.approx(own.mean())
    assert row["fid/mnist_cnn/low"] < own.min() and row["fid/mnist_cnn/high"] > own.max(), "12.7 standard errors"
    assert merged.best("fid")["scheduler"] == "heun"


def test_a_question_in_few_lines_of_pandas(outputs: Path) -> None:
    runs: Any = diffexp.load(outputs, since="today")
    lines = runs.groupby(["forward_passes", "scheduler"])["fid/mnist_cnn"].mean().unstack()
    assert list(lines.columns) == ["ddim", "heun"] and list(lines.index) == [10, 20, 40]
    assert lines.notna().sum().tolist() == [2, 2]


@pytest.mark.parametrize(
    ("since", "count"),
    [("7d", 8), ("12h", 8), ("2w", 9), ("today", 8), ("2020-01-01", 9), (datetime(2020, 1, 1, tzinfo=UTC), 9)],
)
def test_since(outputs: Path, since: str | datetime, count: int) -> None:
    assert len(diffexp.load(outputs, since=since)) == count


def test_since_a_weekday_is_the_last_one_today_included(outputs: Path) -> None:
    today = datetime.now().strftime("%A")
    assert len(diffexp.load(outputs, since=today)) == 8
    tomorrow = (datetime.now() + timedelta(days=1)).strftime("%A")
    assert len(diffexp.load(outputs, since=tomorrow)) == 8, "six days ago"


def test_where(outputs: Path) -> None:
    assert len(diffexp.load(outputs, where={"scheduler": "ddim", "steps": [10, 20]})) == 4
    assert len(diffexp.load(outputs, where="steps < 15 and status == 'done'")) == 4
    assert len(diffexp.load(outputs, where=lambda runs: runs["seed"] == 1)) == 4
    assert set(diffexp.load(outputs, where={"scheduler": "heun"}).over_seeds()["seeds"]) == {2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "yesteryear"}, "since=yesteryear: give 7d"),
        ({"where": {"schedulr": "ddim"}}, "no column schedulr; did you mean scheduler"),
        ({"where": "stepz < 3"}, "where=stepz < 3: name 'stepz' is not defined"),
    ],
)
def test_what_cannot_be_read(outputs: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        diffexp.load(outputs, **options)


def test_folders_without_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="contains no runs"):
        diffexp.load(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        diffexp.load(tmp_path / "nowhere")
