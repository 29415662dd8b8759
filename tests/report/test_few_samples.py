"""Values of fewer samples than their metric needs: shown as such everywhere, ranked nowhere."""

import csv
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

import diffexp
from diffexp.components.metrics.traits import needed, needed_by
from diffexp.errors import InputError
from diffexp.experiment.result import RunResult
from diffexp.experiment.summary import brief_line, lacking, metrics_line
from diffexp.report.collect import collect
from diffexp.report.comparison import write_comparison
from diffexp.report.content import Report
from diffexp.report.page import page_html
from diffexp.report.page_data import page_data
from diffexp.report.ranking import Ranking, ranked_table
from diffexp.report.result_table import ResultTable
from diffexp.report.tracker import comparison_of
from diffexp.sweeps.results import write_results
from tests.made_up import made_up_cell

FID = "fid/mnist_cnn"


def sweep(folder: Path, samples: int) -> Report:
    for number, quality in enumerate((1.0, 6.0, 12.0)):
        made_up_cell(folder, f"{number}_a", {"steps": 5 + number, "num_samples": samples}, quality=quality)
    return Report(collect([folder]), folder / "report.html")


def printed(ranking: Ranking) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(ranked_table(ranking))
    return captured.get()


def test_metrics_declare_what_they_need():
    known = needed()
    assert needed_by(FID, known) == 64 and needed_by("fid/efficientnet_lite0", known) == 1280
    assert needed_by("kid/anything", known) == 32 and needed_by("somebodys/metric", known) == 0
    from diffexp.catalog.discover import discover

    shipped = {name for name, entry in discover().of_kind("metric").items() if "components" in entry.file.parts}
    assert shipped - {name for name in shipped if discover().get("metric", name).traits.get("needed")} == {"cost"}


def test_few_samples_are_not_ranked_but_others_are(tmp_path: Path):
    report = sweep(tmp_path, 24)
    assert [quality.name for quality in report.qualities] == ["psnr", FID]
    ranking = Ranking(report)
    assert ranking.is_ranked and ranking.qualities[0].name == "psnr"
    of_fid = Ranking(report, FID)
    assert not of_fid.is_ranked and not of_fid.marks(of_fid.qualities[0])
    assert all(row.rivals == 0 for row in of_fid.rows)
    found = {quality.name: differences for quality, differences in report.comparisons}
    assert found["psnr"] and not found[FID]
    assert report.answers(report.qualities[0]) and not report.answers(report.qualities[1])


def test_enough_samples_are_ranked(tmp_path: Path):
    report = sweep(tmp_path, 64)
    ranking = Ranking(report)
    assert ranking.qualities[0].name == FID and ranking.is_ranked and ranking.marks(ranking.qualities[0])
    assert report.answers(ranking.qualities[0]) and not page_data(report)["cells"][0]["few"]
    assert "few samples" not in printed(ranking)


def test_terminal_page_tables_and_trackers_say_so(tmp_path: Path):
    report = sweep(tmp_path, 24)
    text = printed(Ranking(report))
    assert f"few samples: {FID} is not ranked, it takes 64" in text and text.count("few samples") == 4
    assert page_data(report)["cells"][0]["few"] == [FID]
    assert "few samples" in page_html(report)
    texts = [text for row in ResultTable(report).rows for text in row]
    assert any(text.text.endswith("(few samples)") and not text.style for text in texts)
    results = write_results(tmp_path)
    assert results
    assert {row["few_samples"] for row in csv.DictReader(results.read_text().splitlines())} == {FID}
    write_comparison(tmp_path / "comparison.csv", report.cells, report.placement, report.comparisons)
    pairs = [*csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines())]
    assert {row["metric"] for row in pairs} == {"psnr"}
    logged = comparison_of(report, tmp_path, tmp_path / "report.html", [])
    assert f"{FID}/needed" in logged.columns and "psnr/needed" not in logged.columns


def test_the_best_run_has_enough_samples(tmp_path: Path):
    sweep(tmp_path / "few", 24)
    runs = diffexp.load(tmp_path / "few")
    with pytest.raises(InputError, match=f"{FID} is ranked from 64 samples on; the finished runs have at most 24$"):
        runs.best("fid")
    made_up_cell(tmp_path, "9_b", {"steps": 50}, quality=20.0)
    assert "9_b" in str(diffexp.load(tmp_path).best("fid")["folder"])


def test_lines_of_metrics():
    metrics = {FID: 2.5, f"{FID}/low": 2.0, f"{FID}/high": 3.0, "kid/mnist_cnn": 0.1}
    shown = metrics | lacking(metrics, 48)
    assert metrics_line(shown) == f"{FID}=2.5 (2..3) (few samples, it takes 64)  kid/mnist_cnn=0.1"
    assert brief_line(shown) == metrics_line(shown)
    assert lacking(metrics, 64) == {} and lacking(metrics, 0) == {}


@pytest.mark.parametrize(
    ("count", "line"),
    [
        (1, "1 sample is too few for fid/mnist_cnn, kid/mnist_cnn"),
        (3, "3 samples are few to compare by fid/mnist_cnn, kid/mnist_cnn; use num_samples=1000 or more"),
    ],
)
def test_a_run_says_so_in_one_line(
    run: Callable[..., RunResult], count: int, line: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        run(f"num_samples={count}", "steps=2", "tracker=none", "metric=[cost,fid,kid]")
    about = [record.getMessage() for record in caplog.records if "applicability" in record.name]
    assert about == [line]
