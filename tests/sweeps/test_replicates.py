"""Seeds as replicates: means and intervals over seeds in the terminal, in the files and on the page."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from diffexp.cli.command import run_command
from diffexp.report.collect import collect
from diffexp.report.comparison import compare, read_all_halves
from diffexp.report.content import Report
from diffexp.report.over_seeds import write_over_seeds
from diffexp.report.page import page_html
from diffexp.report.page_data import page_data
from diffexp.report.quality import points_of
from diffexp.report.tracker import comparison_of
from diffexp.sweeps.objective import best_text
from diffexp.sweeps.replicates import mean_metrics, merge_replicates
from diffexp.sweeps.results import CellResult, read_cells
from diffexp.sweeps.values import Quality, value_of
from tests.made_up import cell_of, made_up_cell, made_up_sweep

FID = Quality("fid/mnist_cnn", higher=False)
T_2, T_1 = 4.302653, 12.706205  # Student's t at 97.5 % with 2 and with 1 degrees of freedom


def finished(number: int, value: float, **config: Any) -> CellResult:
    cell = cell_of({"seed": 0, "steps": 5, **config}, f"sweep/{number}")
    return CellResult(cell.folder, (), "done", None, cell.config, {"fid/mnist_cnn": value, "nfe": 5}, {})


def test_the_mean_of_seeds_has_students_interval():
    (cell,) = merge_replicates([finished(s, value, seed=s) for s, value in enumerate((1.0, 2.0, 3.0))])
    assert [member.config["seed"] for member in cell.members] == [0, 1, 2]
    assert cell.metrics["fid/mnist_cnn"] == pytest.approx(2.0)
    half = T_2 / math.sqrt(3)  # their standard deviation is 1
    assert cell.metrics["fid/mnist_cnn/low"] == pytest.approx(max(0.0, 2 - half), rel=1e-6)
    assert cell.metrics["fid/mnist_cnn/high"] == pytest.approx(2 + half, rel=1e-6)
    assert cell.metrics["nfe"] == 5 and "nfe/low" not in cell.metrics


def test_intervals_of_single_runs_do_not_enter_the_mean():
    runs = [{"fid": 1.0, "fid/low": 0.0, "fid/high": 9.0}, {"fid": 3.0, "fid/low": 1.0, "fid/high": 4.0}]
    assert mean_metrics(runs) == pytest.approx(
        {"fid": 2.0, "fid/low": max(0.0, 2 - T_1), "fid/high": 2 + T_1}, rel=1e-6
    )
    assert mean_metrics(runs[:1]) == runs[0]


def test_one_cell_for_what_differs_in_nothing_that_matters():
    cells = [
        finished(0, 1.0, seed=0, name="a", tags=["x"]),
        finished(1, 3.0, seed=1, name="b", snapshot_every=0),
        finished(2, 1.0, seed=0, name="again"),  # the same run once more is no further seed
        finished(3, 9.0, seed=0, steps=10),
    ]
    merged = merge_replicates(cells)
    assert [len(cell.runs) for cell in merged] == [2, 1]
    assert merged[0].metrics["fid/mnist_cnn"] == pytest.approx(2.0)
    assert merged[1] is cells[3]


def test_other_weights_or_another_plan_are_another_cell():
    one, other = finished(0, 1.0, seed=0), finished(1, 2.0, seed=1)
    for key in ("weights_sha256", "plan_sha256", "code_sha256"):
        different = [CellResult(**{**vars(cell), "record": {key: key + str(i)}}) for i, cell in enumerate((one, other))]
        assert len(merge_replicates(different)) == 2


def test_a_seed_that_failed_does_not_count_and_is_mentioned():
    failed = CellResult(Path("sweep/2"), (), "failed", "no", finished(2, 0.0, seed=2).config, {}, {})
    (cell,) = merge_replicates([failed, finished(0, 1.0, seed=0), finished(1, 2.0, seed=1)])
    assert (cell.status, cell.error, len(cell.members)) == ("done", "no", 2)
    assert cell.metrics["fid/mnist_cnn"] == pytest.approx(1.5)
    assert merge_replicates([failed]) == [failed]


def sweep_over_seeds(folder: Path) -> Path:
    """euler is the better sampler on the mean over three seeds, and ddim has the best single run."""
    values = {"ddim": (1.0, 4.0, 4.3), "euler": (1.5, 1.6, 1.4)}
    for number, (name, seed) in enumerate((name, seed) for name in values for seed in range(3)):
        config = {"scheduler": {"name": name}, "steps": 10, "seed": seed}
        run = made_up_cell(folder, f"{number}_{name}_10", config, pictures=1)
        found = json.loads((run / "metrics.json").read_text()) | {"fid/mnist_cnn": values[name][seed]}
        (run / "metrics.json").write_text(json.dumps(found))
    return folder


def test_the_best_sampler_wins_not_the_best_seed(tmp_path: Path):
    report = Report(collect([sweep_over_seeds(tmp_path)]), tmp_path / "report.html")
    assert [axis.name for axis in report.placement.axes] == ["scheduler"]
    assert report.labels == ["ddim (3 seeds)", "euler (3 seeds)"]
    (answer,) = report.answers(FID)
    assert report.labels[answer.best] == "euler (3 seeds)"
    points = points_of(report.cells, FID, "nfe")
    assert (points[0].y, points[1].y) == (pytest.approx(3.1), pytest.approx(1.5))
    assert points[1].low == pytest.approx(1.5 - T_2 * 0.1 / math.sqrt(3), rel=1e-6)
    text = best_text(read_cells(tmp_path), "fid/mnist_cnn")
    assert text.startswith("best fid/mnist_cnn: 3_euler_10  ") and "(means over 3 seeds)" in text.splitlines()[0]


def test_cells_are_compared_seed_by_seed(tmp_path: Path):
    cells = merge_replicates(read_cells(sweep_over_seeds(tmp_path)))
    (found,) = compare(cells, read_all_halves(cells), FID, [(0, 1)])
    differences = [1.0 - 1.5, 4.0 - 1.6, 4.3 - 1.4]
    mean = sum(differences) / 3
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    assert found.difference == pytest.approx(mean)
    assert (found.low, found.high) == (pytest.approx(mean - T_2 * error), pytest.approx(mean + T_2 * error))
    assert 0.05 < found.p < 0.5


def test_without_two_common_seeds_halves_are_compared(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"x": 0, "seed": 0}, quality=1.0)
    made_up_cell(tmp_path, "1_a", {"x": 0, "seed": 1}, quality=1.1, noise=1)
    made_up_cell(tmp_path, "2_a", {"x": 1, "seed": 0}, quality=1.05)
    merged = merge_replicates(read_cells(tmp_path))
    (found,) = compare(merged, read_all_halves(merged), FID, [(0, 1)])
    first, second = (value_of(cell.runs[0], FID.name) for cell in merged)
    assert first and second and found.difference == pytest.approx(first.value - second.value)
    assert found.p_holm < 0.001


def test_the_table_says_how_many_seeds(tmp_path: Path):
    assert write_over_seeds(read_cells(sweep_over_seeds(tmp_path)), tmp_path / "over_seeds.csv")
    first, second = csv.DictReader((tmp_path / "over_seeds.csv").open())
    assert (first["scheduler"], first["seeds"], first["folders"]) == ("ddim", "3", "0_ddim_10 1_ddim_10 2_ddim_10")
    assert float(second["fid/mnist_cnn"]) == pytest.approx(1.5)
    assert float(second["fid/mnist_cnn/low"]) == pytest.approx(1.2516, abs=1e-3)


def test_a_sweep_without_replicates_has_no_such_table(tmp_path: Path):
    assert write_over_seeds(read_cells(made_up_sweep(tmp_path, ["a", "b"], [5])), tmp_path / "over_seeds.csv") is None
    assert not (tmp_path / "over_seeds.csv").exists()


def test_the_pictures_of_every_seed_are_on_the_page(tmp_path: Path):
    report = Report(collect([sweep_over_seeds(tmp_path)]), tmp_path / "report.html")
    data = page_data(report)
    assert data["samples"] == ("sample 0, seed 0", "sample 0, seed 1", "sample 0, seed 2")
    for cell, first in zip(data["cells"], (0, 3)):
        assert all(cell["pictures"]) and cell["seeds"] == 3
        assert [link.partition("_")[0] for link in cell["links"]] == [str(first), str(first + 1), str(first + 2)]
    assert "6 done" in " ".join(f"{count} {status}" for status, count in report.statuses)
    assert page_html(report).count("(3 seeds)") > 2


def test_a_tracker_is_told_how_many_seeds_a_row_has(tmp_path: Path):
    report = Report(collect([sweep_over_seeds(tmp_path)]), tmp_path / "report.html")
    comparison = comparison_of(report, tmp_path, tmp_path / "report.html", [])
    assert comparison.columns[:4] == ["cell", "scheduler", "seeds", "status"]
    assert [row[2] for row in comparison.rows] == [3, 3]


def test_a_sweep_over_seeds_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["model=gaussian", "tracker=none", "num_samples=8", "steps=3", "snapshot_every=0"]
    assert run_command(["-m", *words, "metric=[cost,wasserstein]", "seed=0,1,2", "hydra.sweep.dir=sweep"]) == 0
    printed = capsys.readouterr().out
    cells = [json.loads((folder / "metrics.json").read_text()) for folder in sorted((tmp_path / "sweep").glob("*_*_*"))]
    values = [cell["wasserstein2/samples"] for cell in cells]
    (row,) = csv.DictReader((tmp_path / "sweep" / "over_seeds.csv").open())
    assert row["seeds"] == "3" and float(row["wasserstein2/samples"]) == pytest.approx(sum(values) / 3)
    assert "means over seeds" in printed and "3 steps (3 seeds)" in printed
    assert len(list(csv.DictReader((tmp_path / "sweep" / "results.csv").open()))) == 3, "a row per cell, as ever"


def test_intervals_over_seeds_stay_within_the_range_of_the_metric():
    values = [{"fid/mnist_cnn": 0.1, "accuracy/mnist_cnn": 1.0, "kid/mnist_cnn": 0.1, "own": 0.1}]
    values.append({"fid/mnist_cnn": 2.0, "accuracy/mnist_cnn": 0.9, "kid/mnist_cnn": 2.0, "own": 2.0})
    found = mean_metrics(values)
    assert found["fid/mnist_cnn/low"] == 0.0 < found["fid/mnist_cnn/high"]
    assert found["accuracy/mnist_cnn/high"] == 1.0
    assert found["kid/mnist_cnn/low"] == found["own/low"] < -1
