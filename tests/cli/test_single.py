"""Single runs by several processes: what the command line decides before it starts any."""

from typing import Any

import pytest

import diffexp
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.ranks import Ranks
from diffexp.cli.resume import resumed_words
from diffexp.cli.single import needs_workers, shared_work
from diffexp.errors import InputError
from diffexp.experiment.parts import Division, Parts, Worker
from diffexp.experiment.tally import Tally
from diffexp.files import write_json, write_text
from diffexp.sweeps.work import read_work
from tests.runs import told


def decided(catalog: Any, *words: str) -> bool:
    with hydra_session(catalog) as loader:
        config = Preflight(loader, catalog).check(words, multirun=False).config
        return needs_workers(task_config(config), config.hydra)


@pytest.mark.parametrize(
    ("words", "by_workers", "warning"),
    [
        ([], False, None),
        (["workers=1", "num_samples=500"], False, None),
        (["workers=2", "num_samples=500"], True, None),
        (["hydra/launcher=local", "num_samples=500"], True, None),
        (["workers=2"], False, "workers=2: the run is one batch of batch_size=64, and a batch is drawn by one worker"),
        (["workers=9", "num_samples=500"], True, "workers=9: the run consists of 8 batches of batch_size=64"),
    ],
)
def test_workers_are_started_for_several_batches(catalog, words, by_workers, warning, caplog):
    assert decided(catalog, *words) == by_workers
    assert [message.startswith(warning) for message in told(caplog)] == ([True] if warning else [])


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_workers_is_one_line(value):
    with pytest.raises(InputError, match=rf"workers={value}.* (must be at least 1|is not an integer)"):
        diffexp.run([f"workers={value}"])


def test_a_divided_run_is_continued_in_its_folder(tmp_path, catalog, compose):
    words = ["scheduler=euler", "num_samples=500", "workers=2"]
    write_text(tmp_path / ".hydra" / "overrides.yaml", str(words))
    write_json(tmp_path / "run.json", {"config": {}, "status": "interrupted"})
    resume, own = f"resume={tmp_path}", f"hydra.run.dir='{tmp_path}'"
    assert resumed_words([resume])[0] == [*words, resume], "no process has begun to share it"
    Parts(tmp_path, Division.of(500, 64, False, Tally()), Worker("here", 1, "cpu", None)).offer()
    assert resumed_words([resume])[0] == [*words, own, resume]
    assert resumed_words([resume, "workers=4"])[0] == [*words[:2], own, resume, "workers=4"]
    assert resumed_words([resume, "num_samples=900"])[0] == ["scheduler=euler", "workers=2", resume, "num_samples=900"]
    write_json(tmp_path / "run.json", {"config": {}, "status": "done"})
    assert resumed_words([resume])[0] == [*words, resume]


def test_every_attempt_has_a_number_and_a_new_run_none_of_the_files_before(tmp_path, catalog, compose):
    with hydra_session(catalog) as loader:
        settings = Preflight(loader, catalog).check(["num_samples=500"], multirun=False).config.hydra
    task = compose("num_samples=500")
    shared_work(task, settings, tmp_path, catalog).write()
    assert (read_work(tmp_path).attempt, read_work(tmp_path).is_run) == (1, True)
    shared_work(task | {"resume": str(tmp_path)}, settings, tmp_path, catalog).write()
    assert read_work(tmp_path).attempt == 2
    write_text(tmp_path / "samples" / "000000.png", "of another run")
    with pytest.raises(InputError, match="already contains samples/000000.png but no run.json"):
        shared_work(task, settings, tmp_path, catalog)
    write_json(tmp_path / "run.json", {"config": {}, "status": "done"})
    assert shared_work(task, settings, tmp_path, catalog).attempt == 1
    assert not (tmp_path / "samples" / "000000.png").exists()


def test_ranks_are_those_of_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert Ranks.of_environment() is None
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Ranks.of_environment() is None
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert Ranks.of_environment() == Ranks(3, 3)
    monkeypatch.setenv("LOCAL_RANK", "1")
    ranks = Ranks.of_environment()
    assert ranks is not None and ranks == Ranks(3, 1)
    assert ranks.words_of_sweep(["a=1"]) == ["a=1", "hydra/launcher=local", "workers=1"]
    assert ranks.words_of_sweep(["workers=2"]) == ["workers=2", "hydra/launcher=local"]
    monkeypatch.setenv("RANK", "first")
    with pytest.raises(InputError, match="RANK=first is not a number: start the ranks with torchrun"):
        Ranks.of_environment()
