"""How a run ends when a plugin, the model, the memory or the user gets in its way."""

import shutil
from itertools import count
from pathlib import Path

import pytest
import torch

from diffexp.errors import InputError
from tests.runs import (
    PICTURES,
    POINTS,
    RUN_KEYS,
    files,
    frames,
    images,
    metrics,
    network,
    points,
    raise_at,
    record,
    same_but_for_rounding,
    told,
)

# plugins that fail


@pytest.mark.parametrize("where", ["applies", "update", "compute"])
def test_a_failing_metric_costs_only_itself(run, where, caplog):
    folder = run(*PICTURES, "metric=[careless,cost]", f"metric.careless.where={where}").folder
    assert record(folder)["status"] == "done"
    assert metrics(folder)["nfe"] == 5
    assert not [name for name in metrics(folder) if name.startswith("careless")]
    assert told(caplog) == ["metric careless failed and is dropped: ZeroDivisionError: careless"]


def test_a_metric_may_return_tensors(run):
    found = metrics(run(*PICTURES, "metric=careless").folder)
    assert found == {"careless/evaluations": 5.0, "careless/samples": 7}


def test_a_failing_tracker_costs_only_itself(run, caplog):
    folder = run(*PICTURES, "tracker=lost").folder
    assert (record(folder)["status"], record(folder)["wandb_id"]) == ("done", None)
    assert told(caplog) == ["tracker Lost failed in start, the run goes on without it: OSError: no space left"]


# runs that end early


def test_an_interrupt_keeps_the_finished_batches(run, tmp_path, monkeypatch, caplog):
    network(monkeypatch, raise_at(8, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(*PICTURES)
    folder = tmp_path / "0"
    stated = record(folder)
    assert (stated["status"], stated["error"], stated["nfe"]) == ("interrupted", None, 5)
    samples = {f"samples/{index:06d}.png" for index in range(3)}
    assert files(folder) == samples | {
        "run.json", "metrics.json", "plan.csv", "grid.png", "trajectory.png", "trajectory.gif",
    }  # fmt: skip
    assert metrics(folder)["nfe"] == 5
    assert told(caplog)[0] == "interrupted after 3 of 7 samples"


def test_an_interrupt_of_the_first_batch_leaves_a_record(run, tmp_path, monkeypatch):
    network(monkeypatch, raise_at(2, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(*PICTURES)
    assert record(tmp_path / "0")["status"] == "interrupted"
    assert files(tmp_path / "0") == {"run.json", "metrics.json", "plan.csv"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("bad")])
def test_finished_points_are_kept(run, tmp_path, monkeypatch, error):
    network(monkeypatch, raise_at(8, error))
    with pytest.raises(type(error)):
        run(*POINTS)
    assert points(tmp_path / "0").shape == (3, 2)


def test_a_failing_model_leaves_its_error_and_the_finished_batches(run, tmp_path, monkeypatch):
    network(monkeypatch, raise_at(8, ValueError("first line\n  second line")))
    with pytest.raises(ValueError, match="first line"):
        run(*PICTURES)
    stated = record(tmp_path / "0")
    assert (stated["status"], stated["error"]) == ("failed", "ValueError: first line second line")
    assert set(stated) == RUN_KEYS
    assert list(images(tmp_path / "0")) == [0, 1, 2]


def test_an_interrupt_while_a_picture_is_written_leaves_no_half_file(run, tmp_path, monkeypatch):
    write, calls = Path.write_bytes, count(1)

    def interrupted(self: Path, content: bytes) -> int:
        if self.suffix == ".png" and next(calls) == 5:
            write(self, content[: len(content) // 2])
            raise KeyboardInterrupt
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(*PICTURES)
    assert record(tmp_path / "0")["status"] == "interrupted"
    assert list(images(tmp_path / "0")) == [0, 1, 2, 3]
    assert not [name for name in files(tmp_path / "0") if Path(name).name.startswith(".")]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_a_batch_too_large_for_memory_is_halved(run, monkeypatch, caplog, error):
    whole = run(*PICTURES, "batch_size=5").folder

    def full(number: int, size: int) -> None:
        if number > 2 and size > 2:
            raise error

    network(monkeypatch, full)
    folder = run(*PICTURES, "batch_size=5").folder
    assert told(caplog) == ["a batch of 5 does not fit into memory, continuing with 2"]
    expected, found = images(whole), images(folder)
    assert list(found) == list(expected)
    assert all(same_but_for_rounding(found[index], expected[index]) for index in found)
    assert frames(folder) == frames(whole)
    assert record(folder)["nfe"] == 5


def test_a_single_sample_too_large_for_memory_ends_the_run(run, tmp_path, monkeypatch):
    def full(number: int, size: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network(monkeypatch, full)
    with pytest.raises(torch.OutOfMemoryError):
        run(*PICTURES)
    assert record(tmp_path / "0")["error"] == "OutOfMemoryError: CUDA out of memory."


# bad input


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["label=1"], "label=1: model=mixture is unconditional; leave label out"),
        (["prompt=seven"], "prompt=seven: model=mixture is unconditional; leave prompt out"),
        (["steps=1001"], "steps=1001"),
        (["grid.timesteps=[10,500]"], "timesteps"),
        (["grid.timesteps=[]"], "timesteps"),
        (["grid.sigmas=[1,2]"], "sigmas"),
        (["grid.timesteps=[500,10]", "grid.sigmas=[2,1]"], "give grid.timesteps or grid.sigmas, not both"),
        (["model.std=0"], "model.std=0 must be greater than 0"),
    ],
)
def test_bad_input_leaves_one_line(run, tmp_path, words, message):
    with pytest.raises(InputError) as refused:
        run(*POINTS, *words)
    assert message in str(refused.value)
    stated = record(tmp_path / "0")
    assert (stated["status"], stated["error"]) == ("failed", str(refused.value))
    assert "\n" not in stated["error"]
    assert files(tmp_path / "0") == {"run.json"}


def test_a_checkpoint_that_is_gone_leaves_one_line(run, tmp_path, checkpoint):
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    next(copy.glob("*.safetensors")).unlink()
    with pytest.raises(InputError):
        run("model=hub", f"model.id={copy}")
    assert record(tmp_path / "0")["status"] == "failed"
