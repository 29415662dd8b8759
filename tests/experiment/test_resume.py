"""Going on with a run that did not finish."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import yaml

from diffexp.cli.resume import Resumed, resumed_sweep, resumed_words
from diffexp.components.pixels import to_image
from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.experiment.run import run_experiment
from diffexp.files import write_json, write_text
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.record import SweepRecord, read_sweep
from tests.checkpoints import save_unet, tiny_digits_unet, tiny_unet
from tests.runs import (
    PICTURES,
    POINTS,
    files,
    images,
    metrics,
    network,
    points,
    raise_at,
    record,
    same_but_for_rounding,
)


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
    assert f"3 of 7 samples copied from {stopped}" in caplog.messages
    assert sizes == [2] * 10, "only four samples were drawn"
    found = images(folder)
    assert list(found) == list(range(7))
    assert all(same_but_for_rounding(found[index], whole[index]) for index in found)
    assert (record(folder)["status"], record(folder)["nfe"]) == ("done", 5)
    assert metrics(folder)["nfe"] == 5


def test_the_command_line_goes_on_as_the_run_was_started(tmp_path):
    words = ["scheduler=euler", "steps=5", "+model.more=1", "label=[3,8]"]
    write_text(tmp_path / ".hydra" / "overrides.yaml", yaml.safe_dump(words))
    write_text(tmp_path / "run.json", '{"config": {}}')
    resume = f"resume='{tmp_path}'"
    assert resumed_words([resume]) == ([*words, resume], None)
    more = ["steps=6", "model.more=2"]
    assert resumed_words([resume, *more]) == ([words[0], words[3], resume, *more], None)
    for others in (["steps=6"], ["resume=null", "steps=6"], ["resume=one,two"]):
        assert resumed_words(others) == (others, None)
    with pytest.raises(InputError, match="^resume=nowhere: no run.json there; give the folder of an earlier run"):
        resumed_words(["steps=6", "resume=nowhere"])


def test_metrics_of_a_resumed_run_are_those_of_a_whole_one(run, monkeypatch, tmp_path):
    """Also those that read what pictures cannot say: samples beyond white and between two of 256 values."""
    words = ("model=gaussian", "model.shape=[1,4,4]", "steps=5", "num_samples=40", "batch_size=20")
    words += ("metric=[wasserstein,trajectory_error]",)
    whole = metrics(run(*words).folder)
    with monkeypatch.context() as patch:
        network(patch, raise_at(6, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(*words)
    assert (tmp_path / "1" / ".unfinished").is_dir()
    resumed = run(*words, resume=str(tmp_path / "1")).folder
    assert metrics(resumed) == pytest.approx(whole, rel=1e-5)
    assert not (resumed / ".unfinished").exists(), "nothing of it is left once the run is done"


def test_of_a_finished_run_only_the_pictures_are_known(run, caplog):
    words = ("model=gaussian", "model.shape=[1,4,4]", "steps=5", "metric=[cost,trajectory_error]")
    whole = run(*words, num_samples=4).folder
    found = metrics(run(*words, num_samples=8, resume=str(whole)).folder)
    assert found["nfe"] == 5 and "trajectory_error" not in found
    assert "metric trajectory_error is skipped: of resumed samples" in caplog.text


def test_evaluations_of_a_loop_are_taken_over_too(run, tmp_path):
    to_image(torch.rand(1, 8, 8)).save(tmp_path / "picture.png")
    words = (*PICTURES, "loop=img2img", f"loop.image={tmp_path / 'picture.png'}", "loop.strength=0.4")
    whole = run(*words).folder
    assert record(run(*words, resume=str(whole)).folder)["nfe"] == record(whole)["nfe"] == 2


@pytest.mark.parametrize("name", ["picture.png", "prompts.txt"])
def test_resume_notices_other_files(run, name, tmp_path, checkpoint):
    """What the config only names."""
    (tmp_path / "prompts.txt").write_text("a zero\na one")
    to_image(torch.zeros(1, 8, 8)).save(tmp_path / "picture.png")
    words = (*PICTURES, "loop=img2img", f"loop.image={tmp_path / 'picture.png'}")
    if name == "prompts.txt":
        weights = save_unet(tmp_path / "digits", tiny_digits_unet())
        words = (f"model.weights={weights}", f"prompt=@{tmp_path / name}", "steps=2", "num_samples=2")
    earlier = run(*words).folder
    assert run(*words, resume=str(earlier)).status == "done"
    (tmp_path / "prompts.txt").write_text("a zero\na two")
    to_image(torch.ones(1, 8, 8)).save(tmp_path / "picture.png")
    with pytest.raises(InputError, match="inputs_sha256 was .* and is now .*, which gives other samples"):
        run(*words, resume=str(earlier))


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


def test_the_own_folder_may_be_written_with_a_tilde(catalog, compose, stopped, monkeypatch):
    monkeypatch.setenv("HOME", str(stopped.parent))
    with pytest.raises(InputError, match="this run's own folder"):
        run_experiment({**compose(*PICTURES, "seed=1"), "resume": f"~/{stopped.name}"}, stopped, catalog)
    assert len(images(stopped)) == 3


def test_resume_of_a_finished_run_draws_nothing(run, monkeypatch):
    whole = run(*PICTURES).folder
    network(monkeypatch, raise_at(1, AssertionError("nothing is left to draw")))
    folder = run(*PICTURES, f"resume={whole}").folder
    assert len(images(folder)) == 7
    assert record(folder)["status"] == "done"
    assert (folder / "grid.png").read_bytes() == (whole / "grid.png").read_bytes()


def test_resume_of_a_config_with_a_value_that_json_has_as_text_only(run):
    unlimited = (*POINTS, "scheduler=edm_stochastic", "scheduler.s_tmax=inf")
    whole = run(*unlimited).folder
    assert record(run(*unlimited, f"resume={whole}").folder)["status"] == "done"
    with pytest.raises(InputError, match="scheduler.s_tmax was inf and is now 50.0, which gives other samples"):
        run(*POINTS, "scheduler=edm_stochastic", f"resume={whole}")


def test_resume_takes_points_over_exactly(run, tmp_path, monkeypatch):
    whole = points(run(*POINTS).folder)
    with monkeypatch.context() as patch:
        network(patch, raise_at(8, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            run(*POINTS)
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    folder = run(*POINTS, resume=str(tmp_path / "1")).folder
    assert sum(sizes) == 4 * 5
    assert (points(folder) - whole).abs().max() < 1e-6
    assert torch.equal(points(folder)[:3], points(tmp_path / "1"))


# cells of a sweep, finished where they are


CELLS = [(*PICTURES, "steps=5"), (*PICTURES, "steps=5", "seed=1"), (*PICTURES, "steps=9", "scheduler=ddpm")]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """What tells whether a file was written again."""
    files = {path.name: path.stat() for path in (folder / "samples").iterdir()}
    return {name: (file.st_ino, file.st_mtime_ns) for name, file in files.items()}


@pytest.fixture
def halted(together, tmp_path, monkeypatch) -> Path:
    """A sweep of three cells with 3, 3 and 0 of their 7 samples, and nobody had time to say so."""
    with monkeypatch.context() as patch:
        network(patch, raise_at(8, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            together(*CELLS, batch=9)
    for number in range(3):
        folder = tmp_path / "sweep" / str(number)
        write_json(folder / "run.json", record(folder) | {"status": "running"})
        for name in ("metrics.json", "grid.png", "trajectory.png"):
            (folder / name).unlink(missing_ok=True)
        (folder / "samples" / ".000003-abcdefgh.png").touch()  # was being written
    return tmp_path / "sweep"


def test_a_sweep_goes_on_where_it_ended(run, together, halted, monkeypatch):
    before = [stamps(halted / str(number)) for number in range(3)]
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    folders = together(*CELLS, resumed=True, batch=9)
    assert sum(sizes) == 4 * 5 + 4 * 5 + 7 * 9, "no sample is drawn twice"
    for folder, words, old in zip(folders, CELLS, before):
        assert (record(folder)["status"], record(folder)["drawn"]) == ("done", 7)
        assert record(folder)["sampling_seconds"] > 0
        now = stamps(folder)
        assert {name: now[name] for name in old if not name.startswith(".")} == {
            name: stamp for name, stamp in old.items() if not name.startswith(".")
        }
        alone = run(*words).folder
        assert files(folder) == files(alone) | {"diffexp.log"}
        assert all(same_but_for_rounding(image, images(alone)[index]) for index, image in images(folder).items())


def test_cells_that_are_done_are_left_alone(together, monkeypatch):
    folders = together(*CELLS)
    before = [(stamps(folder), (folder / "run.json").stat().st_mtime_ns) for folder in folders]
    network(monkeypatch, raise_at(1, AssertionError("nothing is left to draw")))
    together(*CELLS, resumed=True)
    assert [(stamps(folder), (folder / "run.json").stat().st_mtime_ns) for folder in folders] == before


def test_a_cell_with_other_samples_is_refused_and_kept(together, halted, failures):
    changed = [(*CELLS[0], "model.std=0.5"), *CELLS[1:]]
    folders = together(*changed, resumed=True)
    assert [failure.message for failure in failures] == [
        f"resume={folders[0]}: model.std was 0.05 and is now 0.5, which gives other samples"
    ]
    assert [record(folder)["status"] for folder in folders] == ["running", "done", "done"]
    assert len(images(folders[0])) == 3
    together(*CELLS, resumed=True)
    assert record(folders[0])["status"] == "done"


def test_a_cell_whose_code_has_changed_is_refused_and_kept(together, halted, failures, catalog, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("diffexp.plan.table.Plan.sha256", property(lambda plan: "changed"))
        folders = together(*CELLS, resumed=True)
    assert all("plan_sha256 was" in failure.message for failure in failures)
    assert len(failures) == 3
    assert len(images(folders[0])) == 3
    together(*CELLS, resumed=True)
    assert [record(folder)["status"] for folder in folders] == ["done"] * 3


def test_the_twin_of_a_cell_that_is_done_is_not_drawn(together, monkeypatch):
    (done,) = together(CELLS[0])
    network(monkeypatch, raise_at(1, AssertionError("it was drawn already")))
    _, twin = together(CELLS[0], (*CELLS[0], "name=again"), resumed=True)
    assert record(twin)["same_as"] == done.name
    assert images(twin).keys() == images(done).keys()


# what a sweep knows of itself


def test_a_record_survives(tmp_path):
    kept = SweepRecord(["steps=1,2", "name=a b"], [["steps=1"], ["steps=2"]])
    kept.write(tmp_path)
    assert read_sweep(tmp_path) == kept
    resumed = resumed_sweep([f"resume='{tmp_path}'"])
    assert resumed is not None
    assert resumed.folder == tmp_path
    assert (resumed.record.overrides, resumed.record.attempts) == (kept.overrides, 2)
    assert resumed_sweep([f"resume={tmp_path}/other"]) is None
    assert resumed_sweep(["steps=3"]) is None


def test_a_sweep_is_finished_as_it_was_started_or_elsewhere(tmp_path):
    SweepRecord(["steps=1,2", "hydra/launcher=joblib"], [["steps=1"], ["steps=2"]]).write(tmp_path)
    with pytest.raises(InputError, match="remove seed=1"):
        resumed_sweep([f"resume={tmp_path}", "seed=1"])
    resumed = resumed_sweep([f"resume={tmp_path}", "hydra/launcher=batched", "hydra.launcher.batch=8"])
    assert resumed is not None
    assert resumed.record.overrides == ["steps=1,2", "hydra/launcher=batched", "hydra.launcher.batch=8"]


@pytest.mark.parametrize(
    ("cells", "now", "message"),
    [
        ([["steps=1"], ["steps=2"]], [["steps=1"], ["steps=3"]], "cell 1 was steps=2 and is now steps=3"),
        ([["steps=1"]], [["steps=1"], ["steps=2"]], "it had 1 cells and has now 2"),
        (None, None, "its sweeper chose the cells during the run"),
    ],
)
def test_a_sweep_of_other_cells_is_refused(tmp_path, cells, now, message):
    with pytest.raises(InputError, match=message):
        Resumed(tmp_path, SweepRecord([], cells)).check_cells(now, raise_unused)


def raise_unused(number: int, words: Sequence[str]) -> Cell:
    raise AssertionError("the cells differ already")


def test_a_sweep_has_one_process_at_a_time(tmp_path):
    with lock(tmp_path), pytest.raises(InputError, match="still running"), lock(tmp_path):
        pass
    with lock(tmp_path):
        pass


def test_a_resumed_sweep_notices_other_files_of_its_cells(run, tmp_path):
    """Also of the cells that are done, whose samples nobody generates again."""
    image = tmp_path / "picture.png"
    to_image(torch.zeros(1, 8, 8)).save(image)
    words = (*PICTURES, "loop=img2img", f"loop.image={image}")
    done = run(*words).folder
    resumed = Resumed(tmp_path, SweepRecord([], [list(words)]))
    cell = Cell(0, record(done)["config"], done)
    resumed.check_cells([list(words)], lambda number, overrides: cell)
    to_image(torch.ones(1, 8, 8)).save(image)
    with pytest.raises(InputError, match="inputs_sha256 was .* and is now .*"):
        resumed.check_cells([list(words)], lambda number, overrides: cell)
