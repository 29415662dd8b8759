"""``stop=decided`` in a search: trials race together and against the best that was found before."""

import csv
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

import diffexp
from diffexp.errors import InputError
from diffexp.experiment.rounds import samples_of
from diffexp.sweeps.race_record import RaceRecord, read_look, read_race
from diffexp.sweeps.race_search import comparable_value
from tests.runs import metrics, record

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

WORDS = (
    "model=gaussian metric=[cost,wasserstein] num_samples=108 batch_size=50 stop=decided tracker=none "
    "objective=wasserstein2/samples hydra/sweeper=optuna hydra/sweeper/sampler=random hydra.sweeper.sampler.seed=2 "
    "hydra.sweeper.n_trials=6 hydra.sweeper.n_jobs=2"
).split()
SPACE = ("max_nfe=range(2,14)", "scheduler=choice(ddim,heun)")


def search(folder: Path, *words: str) -> Path:
    diffexp.sweep([*WORDS, *SPACE, f"hydra.sweep.dir={folder / 'sweep'}", *words])
    return folder / "sweep"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    home = tmp_path_factory.mktemp("search")
    with chdir(home):
        yield search(home)


def raced(sweep: Path) -> RaceRecord:
    found = read_race(sweep)
    assert found and found.open and found.metric == "wasserstein2/samples"
    return found


def test_cells_that_are_worse_than_the_best_so_far_leave(searched: Path):
    race = raced(searched)
    assert sum(len(racer.cells) for racer in race.racers) == 6 and race.tests == 15
    assert {racer.group for racer in race.racers} == {0}, "they race whatever they cost"
    left = [racer for racer in race.racers if racer.samples < 108]
    whole = [racer for racer in race.racers if racer.samples == 108]
    assert whole and left
    first_of = {racer.folders[0]: number for number, racer in enumerate(race.racers)}
    across = [(number, first_of[r.beaten_by]) for number, r in enumerate(race.racers) if r.beaten_by]
    assert any(race.racers[number].cells[0] // 2 > race.racers[other].cells[0] // 2 for number, other in across)
    for racer in race.racers:
        own = record(searched / racer.folders[0])
        assert (own["status"], samples_of(own)) == ("done", racer.samples)


def test_the_search_is_told_values_that_compare(searched: Path):
    race = raced(searched)
    best = min((r for r in race.racers if r.samples == 108), key=lambda r: value(searched, r.folders[0]))
    for racer in race.racers:
        folder = searched / racer.folders[0]
        told = comparable_value(folder)
        if racer.samples == 108:
            assert told is None
            continue
        look = read_look(searched, racer.samples)
        assert look and told
        expected = value(searched, best.folders[0]) + look.values[folder.name] - look.values[best.folders[0]]
        assert told == ("wasserstein2/samples", pytest.approx(expected, rel=1e-5))
    found = (searched / "optimization_results.yaml").read_text().partition("best_value: ")[2]
    assert float(found) == pytest.approx(value(searched, best.folders[0]), rel=1e-9)


def value(sweep: Path, name: str) -> float:
    return metrics(sweep / name)["wasserstein2/samples"]


def test_what_was_given_is_in_the_table(searched: Path):
    rows = [*csv.DictReader((searched / "results.csv").read_text().splitlines())]
    assert [(int(row["samples"]), row["left"]) for row in rows] == [(r.samples, r.why) for r in raced(searched).racers]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective=null"], "compares the cells of a search by a metric"),
        (["hydra.sweeper.direction=maximize"], "give hydra.sweeper.direction=minimize"),
        (["num_samples=63"], "needs num_samples=64 or more"),
    ],
)
def test_what_cannot_be_decided_is_refused_in_one_line(tmp_path: Path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        search(tmp_path, *words)
