"""``stop=decided`` as a user runs it: workers over several looks, killed or interrupted in mid-batch, resumed."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffexp.experiment.rounds import samples_of
from diffexp.sweeps.race_record import RaceRecord, read_race
from tests.e2e.test_sweeps import command, finish, rows, start
from tests.e2e.test_workers import live, wait_for
from tests.runs import points, record
from tests.slow_loop import slow_loop

WORDS = (
    "-m model=gaussian scheduler=ddim,heun,unipc seed=0,1 max_nfe=12 num_samples=72 batch_size=16 "
    "tracker=none stop=decided metric=[cost,wasserstein] loop=slow"
).split()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a slow loop, and the race ``whole`` that nothing disturbed; no worker outlives the tests."""
    folder = tmp_path_factory.mktemp("races")
    (folder / "plugins").mkdir()
    (folder / "plugins" / "slow.py").write_text(slow_loop(0.0))
    code, _, errors = command(folder, *WORDS, "hydra.sweep.dir=whole")
    assert (code, errors) == (0, "")
    yield folder
    for sweep in ("killed", "interrupted", "shared"):
        for worker in live(folder / sweep):
            os.kill(worker.pid, signal.SIGKILL)


def raced(sweep: Path) -> RaceRecord:
    found = read_race(sweep)
    assert found is not None
    return found


def check_same(place: Path, sweep: Path) -> None:
    """The race has the same verdicts, and each cell the same samples, as the one that nothing disturbed."""
    whole, own = raced(place / "whole"), raced(sweep)
    for first, second in zip(whole.racers, own.racers, strict=True):
        assert (first.folders, first.samples, first.beaten_by) == (second.folders, second.samples, second.beaten_by)
        for name in first.folders:
            assert samples_of(record(sweep / name)) == first.samples
            assert (points(sweep / name) - points(place / "whole" / name)).abs().max() < 1e-5
    assert (own.decided, own.looks) == (whole.decided, whole.looks)
    assert own.p_values == pytest.approx(whole.p_values, rel=1e-3)
    assert {row["status"] for row in rows(sweep)} == {"done"}


def is_in_a_batch(place: Path, sweep: Path) -> bool:
    """Whether a batch of a round after the first look is being drawn."""
    race = read_race(sweep)
    if race is None or race.looks == 0 or all(racer.why for racer in race.racers):
        return False
    texts = [file.read_text() for file in place.glob("batches-*")]
    return any(text.count("begun") > text.count("finished") for text in texts)


def test_the_race_is_one_of_several_looks_with_seeds_as_replicates(place: Path):
    race = raced(place / "whole")
    assert race.looks >= 2 and [len(racer.cells) for racer in race.racers] == [2, 2, 2]
    assert race.decided and {racer.samples for racer in race.racers} > {32}


def test_workers_are_all_killed_in_mid_batch_and_others_go_on(place: Path):
    sweep = place / "killed"
    driver = start(place, *WORDS, "hydra.sweep.dir=killed", "workers=2", "loop.seconds=0.3")
    wait_for(lambda: is_in_a_batch(place, sweep), driver)
    for process in (driver.pid, *(worker.pid for worker in live(sweep))):
        os.kill(process, signal.SIGKILL)
    finish(driver)
    code, _, errors = command(place, "resume=killed", "workers=2")
    assert (code, errors) == (0, "")
    check_same(place, sweep)


def test_a_race_that_is_interrupted_in_mid_batch_goes_on(place: Path):
    for file in place.glob("batches-*"):
        file.unlink()
    sweep = place / "interrupted"
    running = start(place, *WORDS, "hydra.sweep.dir=interrupted", "loop.seconds=0.3")
    wait_for(lambda: is_in_a_batch(place, sweep), running)
    os.killpg(running.pid, signal.SIGINT)
    code, out, errors = finish(running)
    assert code == 130 and re.search(r"finish the sweep with: .* resume=", out), errors
    code, _, errors = command(place, "resume=interrupted")
    assert (code, errors) == (0, "")
    check_same(place, sweep)
