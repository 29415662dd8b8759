"""Going on with a run that did not finish."""

import logging
import shutil
from pathlib import Path

import pytest

from diffexp.errors import InputError
from diffexp.experiment import run_experiment
from tests.checkpoints import save_unet, tiny_unet
from tests.runs import PICTURES, images, metrics, network, raise_at, record, same_but_for_rounding


@pytest.fixture
def stopped(run, tmp_path, monkeypatch) -> Path:
    """A run with three of its seven samples."""
    with monkeypatch.context() as patch:
        network(patch, raise_at(8, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(*PICTURES)
    return tmp_path / "0"


def test_resume_finishes_a_run(run, stopped, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "diffexp")
    whole = images(run(*PICTURES).folder)
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    folder = run(*PICTURES, f"resume={stopped}", "batch_size=2").folder
    assert f"3 of 7 samples taken over from {stopped}" in caplog.messages
    assert sizes == [2] * 10, "only four samples were drawn"
    found = images(folder)
    assert list(found) == list(range(7))
    assert all(same_but_for_rounding(found[index], whole[index]) for index in found)
    assert (record(folder)["status"], record(folder)["nfe"]) == ("done", 5)
    assert metrics(folder)["nfe"] == 5


@pytest.mark.parametrize(
    ("word", "difference"),
    [
        ("seed=1", "seed was 0 and is now 1"),
        ("model.std=0.5", "model.std was 0.05 and is now 0.5"),
        ("scheduler=euler", "scheduler.name was ddim and is now euler"),
    ],
)
def test_resume_refuses_another_config(run, stopped, tmp_path, word, difference):
    with pytest.raises(InputError) as refused:
        run(*PICTURES, f"resume={stopped}", word)
    assert difference in str(refused.value)
    assert record(tmp_path / "1")["error"] == str(refused.value)


def test_resume_refuses_other_weights(run, checkpoint, tmp_path):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    words = ("model=hub", f"model.id={copy}", "steps=2", "num_samples=2")
    earlier = run(*words).folder
    save_unet(copy, tiny_unet(seed=1))
    with pytest.raises(InputError, match="weights_sha256 was .* and is now .*, which gives other samples"):
        run(*words, resume=str(earlier))


def test_resume_needs_a_run(run, tmp_path):
    with pytest.raises(InputError, match="nowhere: no run.json there"):
        run(*PICTURES, "resume=nowhere")


def test_resume_never_overwrites_the_run_it_reads(catalog, compose, stopped):
    before = (stopped / "run.json").read_text()
    with pytest.raises(InputError, match="this run's own folder"):
        run_experiment(compose(*PICTURES, "seed=1", f"resume={stopped}"), stopped, catalog)
    assert (stopped / "run.json").read_text() == before
    assert len(images(stopped)) == 3


def test_resume_of_a_finished_run_draws_nothing(run, monkeypatch):
    whole = run(*PICTURES).folder
    network(monkeypatch, raise_at(1, AssertionError("nothing is left to draw")))
    folder = run(*PICTURES, f"resume={whole}").folder
    assert len(images(folder)) == 7
    assert record(folder)["status"] == "done"
    assert (folder / "grid.png").read_bytes() == (whole / "grid.png").read_bytes()
