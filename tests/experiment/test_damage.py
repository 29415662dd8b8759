"""Files that a crash, a full disk or a user has damaged: drawn again, never believed, never a traceback."""

import logging
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from diffexp.cli.resume import resumed_words
from diffexp.errors import InputError
from diffexp.experiment.finished import finished_run
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.resume import read_run_or_raise
from diffexp.experiment.run import run_experiment
from diffexp.files import write_json, write_text
from diffexp.sweeps.record import read_sweep
from diffexp.sweeps.results import read_cells, write_results
from tests.runs import (
    PICTURES,
    POINTS,
    images,
    metrics,
    network,
    points,
    raise_at,
    record,
    same_but_for_rounding,
    told,
)

Spoil = Callable[[Path], object]


def torn(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    """Blocks that a crash has left unwritten."""
    content = path.read_bytes()
    path.write_bytes(content[:60] + bytes(len(content) - 60))


def flipped(path: Path) -> None:
    """One bit in the middle of the pixels."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def small(path: Path) -> None:
    Image.new("L", (4, 4)).save(path)


def coloured(path: Path) -> None:
    Image.new("RGB", (8, 8)).save(path)


def text(path: Path) -> None:
    path.write_text("no picture")


DAMAGES = [torn, empty, zeroed, flipped, small, coloured, text]
"""Of which a cell that is done is tried with some."""


@pytest.mark.parametrize("spoil", DAMAGES)
def test_a_damaged_image_is_drawn_again(run, monkeypatch, caplog, spoil):
    whole = run(*PICTURES).folder
    expected = images(whole)
    for index in (2, 5):
        spoil(whole / "samples" / f"{index:06d}.png")
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    folder = run(*PICTURES, f"resume={whole}").folder
    assert sizes == [2] * 5
    assert told(caplog) == [f"2 samples in {whole} are damaged and are drawn again: 2, 5"]
    found = images(folder)
    assert list(found) == list(range(7))
    assert all(same_but_for_rounding(found[index], expected[index]) for index in found)


def test_the_only_image_is_of_the_wrong_size(run):
    whole = run(*PICTURES, num_samples=1).folder
    expected = images(whole)[0]
    small(whole / "samples" / "000000.png")
    assert same_but_for_rounding(images(run(*PICTURES, f"resume={whole}", num_samples=1).folder)[0], expected)


@pytest.mark.parametrize("spoil", [torn, empty, small, Path.unlink])
def test_a_done_cell_with_a_damaged_sample_is_not_done(together, monkeypatch, spoil):
    (cell,) = together(PICTURES)
    expected = images(cell)
    assert finished_run(cell)
    spoil(cell / "samples" / "000003.png")
    assert finished_run(cell) is None
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    together(PICTURES, resumed=True)
    assert sizes == [1] * 5
    assert (record(cell)["status"], record(cell)["drawn"]) == ("done", 8)
    assert all(same_but_for_rounding(images(cell)[index], image) for index, image in expected.items())


def cut(path: Path) -> None:
    """In the middle of the last number, which would otherwise be another one."""
    path.write_text(path.read_text()[:-4])


def garbled(path: Path) -> None:
    path.write_text(path.read_text().replace("\n6,", "\n6,nonsense"))


@pytest.mark.parametrize("spoil", [cut, garbled, empty, Path.unlink])
def test_damaged_points_are_drawn_again(run, together, spoil):
    expected = points(run(*POINTS).folder)
    (cell,) = together(POINTS)
    spoil(cell / "samples" / "points.csv")
    assert finished_run(cell) is None
    together(POINTS, resumed=True)
    assert (points(cell) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("spoil", [torn, empty, Path.unlink, lambda path: path.write_text("[1, 2]")])
@pytest.mark.parametrize("name", ["metrics.json", "run.json"])
def test_a_done_cell_with_a_damaged_record_is_not_done(together, monkeypatch, name, spoil, failures):
    (cell,) = together(PICTURES)
    expected, found = metrics(cell), images(cell)
    spoil(cell / name)
    assert finished_run(cell) is None
    write_results(cell.parent)
    if name == "metrics.json":
        network(monkeypatch, raise_at(1, AssertionError("no sample is missing")))
    together(PICTURES, resumed=True)
    assert (record(cell)["status"], failures) == ("done", [])
    assert metrics(cell)["nfe"] == expected["nfe"]
    assert all(same_but_for_rounding(images(cell)[index], image) for index, image in found.items())


@pytest.mark.parametrize(
    "content", ['{"config": 3}', '{"config": {}, "status": "done"}', '{"status": ["done"], "config": {"loop": 1}}']
)
def test_records_of_the_wrong_form(together, failures, content):
    (cell,) = together(PICTURES)
    (cell / "run.json").write_text(content)
    read_cells(cell.parent)
    together(PICTURES, resumed=True)
    if failures:
        assert "which gives other samples" in failures[0].message
    else:
        assert record(cell)["status"] == "done"


NUMBERS = ("model=gaussian", "model.shape=[1,4,4]", "steps=5", "num_samples=40", "batch_size=20")
NUMBERS += ("metric=[wasserstein,trajectory_error]",)


@pytest.mark.parametrize("spoil", [torn, empty, text])
def test_damaged_numbers_of_an_unfinished_run_are_not_read(run, tmp_path, monkeypatch, spoil):
    with monkeypatch.context() as patch:
        network(patch, raise_at(6, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(*NUMBERS)
    for path in (tmp_path / "0" / ".unfinished").iterdir():
        spoil(path)
    resumed = run(*NUMBERS, resume=str(tmp_path / "0")).folder
    assert len(images(resumed)) == 40
    assert "trajectory_error" not in metrics(resumed)


def test_a_file_where_the_numbers_of_an_unfinished_run_belong(together, failures):
    (cell,) = together(NUMBERS)
    (cell / "samples" / "000000.png").unlink()
    (cell / ".unfinished").write_text("")
    together(NUMBERS, resumed=True)
    assert (record(cell)["status"], failures) == ("done", [])


@pytest.mark.parametrize("spoil", [torn, empty, lambda path: path.write_text("[a: b: c"), lambda p: p.write_text("a")])
@pytest.mark.parametrize("name", ["overrides.yaml", "hydra.yaml"])
def test_damaged_files_of_hydra(tmp_path, name, spoil):
    words = ["scheduler=euler", 'name="a b"', "steps=5"]
    write_text(tmp_path / ".hydra" / "overrides.yaml", yaml.safe_dump(words))
    write_text(tmp_path / ".hydra" / "hydra.yaml", yaml.safe_dump({"hydra": {"runtime": {"config_sources": []}}}))
    spoil(tmp_path / ".hydra" / name)
    command = shlex.join(["python", "-m", "diffexp", *words])
    write_json(tmp_path / "run.json", {"config": {}, "command": command})
    assert resumed_words([f"resume={tmp_path}"]) == ([*words, f"resume={tmp_path}"], None)


def test_without_the_words_of_a_run_its_damaged_file_is_named(tmp_path):
    write_text(tmp_path / ".hydra" / "overrides.yaml", "")
    write_json(tmp_path / "run.json", {"config": {}})
    with pytest.raises(InputError, match=r"overrides.yaml is damaged"):
        resumed_words([f"resume={tmp_path}"])


def test_damaged_counts_of_an_unfinished_cell(together, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        network(patch, raise_at(12, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            together(PICTURES)
    cell = tmp_path / "sweep" / "0"
    write_json(cell / "run.json", record(cell) | {"nfe": "many", "drawn": [3], "sampling_seconds": None})
    together(PICTURES, resumed=True)
    assert (record(cell)["status"], record(cell)["nfe"], len(images(cell))) == ("done", 5, 7)


def test_damaged_records_are_named(tmp_path):
    (tmp_path / "run.json").write_text('{"config": ')
    with pytest.raises(InputError, match=f"^resume={tmp_path}: its run.json is damaged"):
        read_run_or_raise(str(tmp_path))
    for content in ("", "{}", '{"overrides": ["a=1"], "cells": 3}', '{"overrides": "steps=1"}'):
        (tmp_path / "sweep.json").write_text(content)
        with pytest.raises(InputError, match=r"sweep.json is damaged"):
            read_sweep(tmp_path)


# an earlier run in the folder


def test_a_run_that_cannot_begin_leaves_the_earlier_one(run, catalog, compose):
    whole = run(*PICTURES).folder
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for word in ("steps=1001", "label=1"):
        with pytest.raises(InputError):
            run_experiment(compose(*PICTURES, word), whole, catalog)
        assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before
    run_experiment(compose(*PICTURES, "seed=1", "num_samples=2"), whole, catalog)
    assert (record(whole)["seed"], list(images(whole))) == (1, [0, 1])


def test_a_run_is_not_done_while_its_files_are_replaced(run, monkeypatch, compose, catalog):
    whole = run(*PICTURES).folder

    unlink = Path.unlink

    def crash(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".png":
            raise KeyboardInterrupt
        unlink(self, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", crash)
        folder = RunFolder(whole)
        folder.begin(compose(*PICTURES, "seed=1"))
        assert record(whole)["status"] == "done"
        with pytest.raises(KeyboardInterrupt):
            folder.replace()
    assert (record(whole)["status"], record(whole)["seed"]) == ("interrupted", 0)


def test_resume_notices_that_a_scheduler_has_become_linear(run, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    words = (*PICTURES, "scheduler=curved")
    whole = run(*words).folder
    assert record(whole)["plan_sha256"] is None
    with monkeypatch.context() as patch:
        patch.setattr(torch, "tanh", lambda x: x / 2)
        with pytest.raises(
            InputError, match=r"plan_sha256 was None and is now [0-9a-f]{64}, which gives other samples"
        ):
            run(*words, f"resume={whole}")
    assert run(*words, f"resume={whole}").status == "done"
