"""One run as a whole: its files, its samples, its snapshots."""

import csv
import json
import logging

import pytest
import torch
from PIL import Image

import diffexp
from diffexp.components.models.base import fast_dtype
from diffexp.components.pixels import to_image
from diffexp.errors import InputError
from diffexp.experiment.monitor import snapshot_steps
from diffexp.experiment.run import run_experiment
from tests.checkpoints import save_unet, tiny_unet
from tests.runs import (
    PICTURES,
    POINTS,
    RUN_KEYS,
    files,
    frames,
    images,
    metrics,
    points,
    record,
    same_but_for_rounding,
    told,
)

# files


def test_a_run_of_pictures_writes_the_contract(run, checkpoint, caplog):
    caplog.set_level(logging.INFO, "diffexp")
    result = run("model=hub", f"model.id={checkpoint}", "steps=4", "num_samples=5", "batch_size=2", "scheduler=ddim")
    folder = result.folder
    samples = {f"samples/{index:06d}.png" for index in range(5)}
    overviews = {"grid.png", "trajectory.png", "trajectory.gif"}
    assert files(folder) == {"run.json", "metrics.json", "plan.csv"} | samples | overviews
    stated = record(folder)
    assert set(stated) == RUN_KEYS
    assert (stated["status"], stated["error"], stated["nfe"], stated["seed"]) == ("done", None, 4, 0)
    native = str(fast_dtype(torch.device("cpu"))).removeprefix("torch.")
    assert (stated["device"], stated["dtype"], stated["model_id"]) == ("cpu", native, str(checkpoint))
    assert stated["config"]["num_samples"] == 5
    assert stated["versions"]["torch"] == torch.__version__
    assert len(stated["weights_sha256"]) == len(stated["plan_sha256"]) == 64
    assert stated["seconds"] > 0
    assert metrics(folder) == result.metrics
    assert result.metrics["nfe"] == 4
    assert {"seconds_per_image", "images_per_second", "scheduler_us_per_step", "peak_memory_mb"} < set(result.metrics)
    for path in samples:
        with Image.open(folder / path) as image:
            assert (image.size, image.mode, image.format) == ((16, 16), "RGB", "PNG")
    assert f"{folder}\nnfe=4" in caplog.text


def test_a_run_of_points_writes_the_contract(run):
    folder = run(*POINTS).folder
    overviews = {"grid.png", "trajectory.png", "trajectory.gif"}
    assert files(folder) == {"run.json", "metrics.json", "plan.csv", "samples/points.csv"} | overviews
    assert points(folder).shape == (7, 2)
    assert set(record(folder)) == RUN_KEYS
    assert record(folder)["weights_sha256"] is None


def test_plan_csv_is_what_compile_gives(run):
    for scheduler in ("ddpm", "euler"):
        folder = run(*POINTS, f"scheduler={scheduler}").folder
        plan = diffexp.compile(scheduler, steps=5, model="mixture")
        assert (folder / "plan.csv").read_text() == plan.to_csv()
        assert record(folder)["plan_sha256"] == plan.sha256


def test_a_folder_used_again_holds_the_new_run_alone(catalog, compose, tmp_path):
    run_experiment(compose(*PICTURES), tmp_path, catalog)
    run_experiment(compose(*PICTURES, "num_samples=2", "snapshot_every=0"), tmp_path, catalog)
    assert files(tmp_path) == {
        "run.json", "metrics.json", "plan.csv", "grid.png", "samples/000000.png", "samples/000001.png"
    }  # fmt: skip


# samples


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm", "euler", "curved"])
def test_a_point_depends_on_seed_and_index_alone(run, scheduler):
    def draw(**changes: int) -> torch.Tensor:
        return points(run("model=mixture", "steps=6", "snapshot_every=0", f"scheduler={scheduler}", **changes).folder)

    whole = draw(num_samples=8, batch_size=8)
    for size in (1, 3):
        assert (draw(num_samples=8, batch_size=size) - whole).abs().max() < 1e-6
    assert (draw(num_samples=3, batch_size=8) - whole[:3]).abs().max() < 1e-6
    assert (draw(num_samples=8, batch_size=8, seed=1) - whole).abs().min() > 1e-6


@pytest.mark.parametrize("scheduler", ["ddim", "ddpm"])
def test_a_picture_depends_on_seed_and_index_alone(run, checkpoint, scheduler):
    words = ("model=hub", f"model.id={checkpoint}", "steps=3", f"scheduler={scheduler}", "snapshot_every=0")
    whole = images(run(*words, num_samples=8, batch_size=8).folder)
    assert not same_but_for_rounding(whole[0], whole[1])
    for size, number in ((1, 8), (3, 8), (8, 2)):
        found = images(run(*words, num_samples=number, batch_size=size).folder)
        assert list(found) == list(range(number))
        assert all(same_but_for_rounding(found[index], whole[index]) for index in found)


# snapshots


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["steps=20"], 10),
        (["steps=3"], 4),
        (["steps=10", "snapshot_every=3"], 5),
        (["steps=10", "snapshot_every=100"], 2),
        (["steps=20", "scheduler=curved", "num_samples=2"], 10),
    ],
)
def test_snapshots(run, words, expected):
    assert frames(run("model=mixture", "num_samples=4", "metric=none", *words).folder) == expected


def test_no_snapshots(run):
    assert not {"trajectory.png", "trajectory.gif"} & files(run(*POINTS, "snapshot_every=0").folder)


def test_snapshots_begin_at_the_start_and_are_spread_evenly():
    assert sorted(snapshot_steps(18, None)) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    assert sorted(snapshot_steps(7, 3)) == [0, 3, 6]
    assert snapshot_steps(0, None) == snapshot_steps(5, 0) == frozenset()


# progress


def test_progress_on_a_terminal_alone(run, monkeypatch, capsys):
    run(*PICTURES, "scheduler=curved")
    assert "sampling" not in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    run(*PICTURES, "scheduler=curved")
    shown = capsys.readouterr().err
    assert "0/15 [" in shown, "5 steps of 3 batches, as far as is known beforehand"
    assert "10/30 [" in shown, "once the first batch has told that a step takes two evaluations"


# schedulers that are no table


@pytest.mark.parametrize("every", ["null", "0"])
def test_a_scheduler_that_is_not_linear_runs_directly(run, every, caplog):
    folder = run(*PICTURES, "scheduler=curved", f"snapshot_every={every}").folder
    stated = record(folder)
    assert (stated["status"], stated["plan_sha256"], stated["nfe"]) == ("done", None, 10)
    assert metrics(folder)["nfe"] == 10
    assert metrics(folder)["scheduler_us_per_step"] > 0
    assert not (folder / "plan.csv").exists()
    assert len(images(folder)) == 7
    assert [text.partition(":")[0] for text in told(caplog)] == ["curved runs directly, uncompiled"]


def test_a_class_that_runs_directly_may_count_beyond_the_training_range(run):
    """As one that compiles may: its network sees the last level there is."""
    stated = record(run(*POINTS, "scheduler=beyond").folder)
    assert (stated["status"], stated["plan_sha256"], stated["nfe"]) == ("done", None, 5)


def test_dynamic_thresholding_runs_directly(run, tmp_path):
    folder = save_unet(tmp_path / "thresholding", tiny_unet(), thresholding=True)
    stated = record(run("model=hub", f"model.id={folder}", "steps=3", "num_samples=3", "batch_size=2").folder)
    assert (stated["status"], stated["plan_sha256"], stated["nfe"]) == ("done", None, 3)


def test_an_explicit_grid_decides_the_steps(run):
    folder = run(*POINTS, "grid.timesteps=[900,500,20]").folder
    assert record(folder)["nfe"] == record(folder)["config"]["steps"] == 3
    with (folder / "plan.csv").open() as file:
        assert [float(row["timestep"]) for row in csv.DictReader(file)] == [900, 500, 20]


def test_the_scheduler_of_the_checkpoint(run, checkpoint):
    """``checkpoint`` comes with a DDPMScheduler; an exact model comes with none."""
    words = [f"model.id={checkpoint}", "model=hub", "steps=4", "num_samples=2"]
    own, named = (images(run(*words, f"scheduler={name}").folder) for name in ("diffusers", "diffusers/ddpm"))
    assert all(torch.equal(own[index], named[index]) for index in named)
    with pytest.raises(InputError, match="model=mixture comes with no scheduler of its own: add scheduler._target_="):
        run("model=mixture", "scheduler=diffusers", "steps=4")


def test_samples_that_are_no_numbers_are_told(run, checkpoint, caplog):
    """A network that has diverged."""
    weights = {name: torch.full_like(value, torch.nan) for name, value in tiny_unet().state_dict().items()}
    broken = tiny_unet()
    broken.load_state_dict(weights)
    folder = save_unet(checkpoint.parent / "broken", broken)
    run("model=hub", f"model.id={folder}", "steps=3", "num_samples=3", "batch_size=2", "scheduler=ddim")
    assert "3 of 3 samples are not finite (NaN or infinity), for example sample 0" in caplog.text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["scheduler=ddim", "scheduler.eta=-1"], "scheduler.eta=-1 must be at least 0"),
        (["scheduler=ddim", "scheduler.eta=1e308"], "ddim cannot be computed with these options, steps and grid"),
        (["scheduler=lcm", "scheduler.timestep_scaling=0", "scheduler.sigma_data=0"], "lcm cannot be computed with"),
    ],
)
def test_options_that_give_no_numbers(run, words, expected):
    with pytest.raises(InputError, match=expected):
        run("model=mixture", "steps=3", *words)


def test_a_folder_of_other_things_is_not_cleaned(catalog, compose, tmp_path):
    photo = tmp_path / "samples" / "photo.png"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    with pytest.raises(InputError, match="already contains samples/photo.png but no run.json; choose another folder"):
        run_experiment(compose(*PICTURES), tmp_path, catalog)
    assert photo.read_bytes() == b"mine"


def test_infinite_options_are_json(run):
    folder = run(*PICTURES, "scheduler=diffusers/dpmsolver_multistep", "scheduler.lambda_min_clipped=-inf").folder

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    content = json.loads((folder / "run.json").read_text(), parse_constant=refuse)
    assert content["config"]["scheduler"]["lambda_min_clipped"] == "-inf"


@pytest.mark.parametrize("loop", ["denoise", "img2img"])
def test_what_the_plan_alone_would_give_is_said_of_loops_that_only_run_it(run, tmp_path, loop):
    to_image(torch.rand(1, 8, 8)).save(tmp_path / "picture.png")
    words = ("model=gaussian", "model.shape=[1,8,8]", "steps=5", "num_samples=4", "metric=wasserstein", f"loop={loop}")
    found = metrics(run(*words, *([f"loop.image={tmp_path / 'picture.png'}"] if loop == "img2img" else [])).folder)
    assert ("wasserstein2/exact" in found) == (loop == "denoise")
