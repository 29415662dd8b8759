"""``stop=decided`` in this process: cells draw samples in rounds, and leave when it is clear how they compare."""

import csv
import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

import diffexp
from diffexp.errors import InputError
from diffexp.experiment.finished import finished_run
from diffexp.experiment.rounds import Round, samples_of
from diffexp.report.collect import collect
from diffexp.report.content import Report
from diffexp.report.ranking import Ranking
from diffexp.sweeps.race_record import read_look, read_race
from tests.runs import metrics, points, record

WORDS = ("model=gaussian", "steps=5", "num_samples=108", "tracker=none", "stop=decided", "batch_size=50")
SCHEDULERS = "scheduler=ddim,euler,heun,dpmpp_2m"
"""The first two are the same method; Heun's method costs more."""


def sweep(folder: Path, *words: str) -> Path:
    diffexp.sweep([*WORDS, *words, f"hydra.sweep.dir={folder}"])
    return folder


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("race")
    with chdir(home):
        yield sweep(home / "sweep", SCHEDULERS, "max_nfe=5")


def cells(folder: Path) -> dict[str, Path]:
    return {record(own)["config"]["scheduler"]["name"]: own for own in sorted(folder.glob("[0-9]*"))}


def test_the_best_beats_the_others_with_fewer_samples(raced: Path):
    race = read_race(raced)
    assert race and race.metric == "wasserstein2/samples" and race.tests == 6
    by_name = {racer.folders[0]: racer for racer in race.racers}
    assert all(racer.why for racer in race.racers)
    heun = by_name[cells(raced)["heun"].name]
    assert heun.beaten_by and heun.samples < 108
    assert race.decided["2-3"] == heun.samples
    assert "0-1" not in race.decided  # the same method


def test_each_cell_has_the_samples_that_it_was_given(raced: Path):
    race = read_race(raced)
    assert race
    for racer in race.racers:
        own = record(raced / racer.folders[0])
        assert (own["status"], own["config"]["num_samples"], samples_of(own)) == ("done", 108, racer.samples)
        assert Round.of(own) == Round(racer.samples, True, [], racer.why)
        assert own["drawn"] == len(points(raced / racer.folders[0])) == racer.samples
        assert {"wasserstein2/exact", "seconds_per_image"} <= metrics(raced / racer.folders[0]).keys()
        assert finished_run(raced / racer.folders[0])


def test_samples_do_not_depend_on_rounds(raced: Path):
    whole = diffexp.run(["model=gaussian", "scheduler=heun", "max_nfe=5", "num_samples=20", "tracker=none"])
    found = points(cells(raced)["heun"])[:20]
    assert (found - points(whole.folder)).abs().max() < 1e-5


def test_what_was_given_is_in_the_tables_and_on_the_page(raced: Path):
    race = read_race(raced)
    assert race
    rows = [*csv.DictReader((raced / "results.csv").read_text().splitlines())]
    assert [(int(row["samples"]), row["left"]) for row in rows] == [(one.samples, one.why) for one in race.racers]
    report = Report(collect([raced]), raced / "report.html")
    assert [given for given, _ in report.given] == [one.samples for one in race.racers]
    html = (raced / "report.html").read_text()
    assert all(one.why.replace(">", "&gt;") in html for one in race.racers)
    ranking = Ranking(report)
    assert ranking.rows[0].ranks[0] == 1 and report.labels[ranking.rows[-1].cell].startswith("heun")


def test_pairs_are_compared_at_the_samples_that_both_have(raced: Path):
    race = read_race(raced)
    assert race
    rows = [*csv.DictReader((raced / "comparison.csv").read_text().splitlines())]
    own = [row for row in rows if row["metric"] == race.metric]
    assert len(own) == 6
    counts = {one.folders[0]: one.samples for one in race.racers}
    for row in own:
        assert int(row["samples"]) == min(counts[row["first"]], counts[row["second"]])
        look = read_look(raced, int(row["samples"]))
        assert look
        difference = look.values[row["first"]] - look.values[row["second"]]
        assert float(row["difference"]) == pytest.approx(difference, rel=1e-4, abs=1e-9)
    beaten = {(one.beaten_by, one.folders[0]) for one in race.racers if one.beaten_by}
    assert beaten <= {(row["better"], row[side]) for row in own for side in ("first", "second")}


def test_a_race_that_was_interrupted_goes_on(raced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from diffexp.sweeps import race as module

    monkeypatch.chdir(tmp_path)
    looks = module.Race._look

    def interrupt(self: module.Race) -> None:
        if self.record.looks == 1:
            raise KeyboardInterrupt
        looks(self)

    monkeypatch.setattr(module.Race, "_look", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path / "sweep", SCHEDULERS, "max_nfe=5")
    begun = read_race(tmp_path / "sweep")
    assert begun and begun.looks == 1
    waiting = [own for own in cells(tmp_path / "sweep").values() if record(own)["status"] == "waiting"]
    assert waiting and all(samples_of(record(own)) == 48 for own in waiting)
    monkeypatch.setattr(module.Race, "_look", looks)
    diffexp.sweep([f"resume={tmp_path / 'sweep'}"])
    whole, resumed = (json.loads((folder / "race.json").read_text()) for folder in (raced, tmp_path / "sweep"))
    assert_same(whole, resumed)
    assert {record(own)["status"] for own in cells(tmp_path / "sweep").values()} == {"done"}


def assert_same(whole: dict[str, Any], resumed: dict[str, Any]) -> None:
    assert resumed.keys() == whole.keys()
    for key, value in whole.items():
        if key == "p_values":
            assert resumed[key] == pytest.approx(value, rel=1e-3)
        else:
            assert resumed[key] == value


def test_seeds_race_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = sweep(tmp_path / "sweep", "scheduler=ddim,dpmpp_2m", "seed=0,1,2", "num_samples=64")
    race = read_race(folder)
    assert race and [len(racer.cells) for racer in race.racers] == [3, 3]
    for racer in race.racers:
        assert {samples_of(record(folder / name)) for name in racer.folders} == {racer.samples}
    assert race.racers[0].beaten_by == race.racers[1].folders[0]
    report = Report(collect([folder]), folder / "report.html")
    assert len(report.cells) == 2 and len(Ranking(report).rows) == 2


def test_cells_of_different_costs_do_not_race(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = sweep(tmp_path / "sweep", "steps=3,4", "num_samples=64")
    assert [samples_of(record(own)) for own in sorted(folder.glob("[0-9]*"))] == [64, 64]
    shown = capsys.readouterr().out
    assert "no two cells have the same cost" in shown and "no report" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("steps=5",), "one has one; give several values"),
        (("steps=5,6", "num_samples=63"), "needs num_samples=64 or more"),
        (("steps=5,6", "metric=none"), "compares cells by a metric"),
        (("steps=5,6", "hydra.sweeper.max_batch_size=1"), "leave out hydra.sweeper.max_batch_size"),
        (("steps=5,6", "stop=soon"), "stop=soon is not known"),
        (("steps=5,6", "metric=cost"), "decides by a metric with an interval"),
        (("steps=5,6", "objective=wasserstein2/exact"), "objective=wasserstein2/exact has none"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_one_line(tmp_path: Path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        sweep(tmp_path / "sweep", *words)


def test_a_single_run_has_nothing_to_race_against(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is for sweeps"):
        diffexp.run([*WORDS])
