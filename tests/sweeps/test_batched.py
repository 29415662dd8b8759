"""Cells of a sweep that share a model: each as if it were alone, whatever the others do."""

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.catalog.discover import Catalog, discover
from diffexp.components.pixels import to_image
from diffexp.experiment.folder import RunFolder
from tests.checkpoints import save_unet, tiny_digits_unet
from tests.pipeline_runs import COMMON
from tests.runs import (
    PICTURES,
    PLUGINS,
    POINTS,
    files,
    images,
    metrics,
    network,
    raise_at,
    record,
    same_but_for_rounding,
)

PLUGIN = '''
"""What a batched sweep must put up with."""

import threading

import torch

from diffexp import loop, metric
from diffexp.components.models.base import Request


@loop
def denoise_in_a_thread(batch):
    from diffexp.components.loops.denoise import denoise

    told = []
    thread = threading.Thread(target=lambda: told.append(denoise(batch)))
    thread.start()
    thread.join()
    return told[0]


@loop
def silent(batch):
    return batch.noise()


@loop
def broken(batch, *, after: int = 2):
    x = batch.noise()
    for row in batch.sampler.rows[:after]:
        x = batch.network(x, row.level)
    raise ZeroDivisionError("broken")


@loop(alone=True)
def alone(batch):
    assert threading.current_thread() is threading.main_thread()
    return batch.noise()


@metric
class Asking:
    """Calls the model after everything is drawn."""

    def applies(self, model):
        return None

    def update(self, samples, images):
        self.samples = samples

    def compute(self, run):
        t = torch.full((len(self.samples),), 500.0)
        return {"asking": run.model.predict(self.samples, t, run.model.conditions(Request(), range(len(t)))).mean()}

'''


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """The built-in options, the plugins of tests/runs.py, and the ones above."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "careless.py").write_text(PLUGINS)
    (folder / "busy.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(folder))
        yield discover()


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """All samples of all runs from here on, by the run's folder, before they are rounded to 8 bits."""
    found: dict[str, Tensor] = {}
    save = RunFolder.save_samples

    def noted(self: RunFolder, indices: Sequence[int], samples: Tensor) -> None:
        key = str(self.folder)
        found[key] = torch.cat([found[key], samples]) if key in found else samples.clone()
        save(self, indices, samples)

    monkeypatch.setattr(RunFolder, "save_samples", noted)
    return found


def psnr(one: Tensor, other: Tensor) -> float:
    error = (one.double() - other.double()).square().mean()
    return float(-10 * torch.log10(error.clamp_min(1e-30)))


def test_the_same_pictures_as_alone(run, together, drawn, tmp_path):
    net = save_unet(tmp_path / "net", tiny_digits_unet())
    model = ("model=mnist", f"model.weights={net}", "num_samples=5", "batch_size=3", "dtype=float32")
    cells = [
        (*model, "scheduler=ddim", "steps=6"),
        (*model, "scheduler=ddpm", "steps=4", "guidance_scale=2.5"),
        (*model, "scheduler=euler", "steps=5", "label=3", "num_samples=7"),
        (*model, "scheduler=heun", "steps=3", "seed=1"),
        (*model, "scheduler=curved", "steps=4"),
        (*model, "scheduler=ddim", "steps=4", "grid=karras", "prompt=[one,two]", "negative_prompt=seven"),
    ]
    folders = together(*cells, batch=8)
    for words, folder in zip(cells, folders):
        alone = run(*words).folder
        assert psnr(drawn[str(folder)], drawn[str(alone)]) > 80
        assert record(folder)["status"] == "done"
        assert record(folder)["plan_sha256"] == record(alone)["plan_sha256"]
        assert files(folder) == files(alone) | {"diffexp.log"}
        assert metrics(folder)["nfe"] == metrics(alone)["nfe"]
        assert images(folder).keys() == images(alone).keys()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "kandinsky22"])
def test_text_to_image_cells_share_calls_too(run, together, drawn, tiny, monkeypatch, family):
    from diffexp.components.models.text_to_image.latent import LatentModel

    model = (*COMMON, f"model.id={tiny(family)}", "steps=3", "metric=none")
    cells = [
        (*model, "prompt='a cat'", "guidance_scale=3"),
        (*model, "prompt='a house in the snow'", "guidance_scale=1", "scheduler=euler"),
        (*model, "prompt=[cat,dog]", "negative_prompt=tree", "guidance_scale=2", "loop=pipeline"),
    ]
    predict, sizes = LatentModel.predict, list[int]()

    def noted(self: LatentModel, u: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(u))
        return predict(self, u, *rest)

    monkeypatch.setattr(LatentModel, "predict", noted)
    folders = together(*cells, batch=8)
    assert sizes[:3] == [2 * 2 + 2] * 3
    for words, folder in zip(cells, folders):
        assert psnr(drawn[str(folder)], drawn[str(run(*words).folder)]) > 80


def test_many_cells_cost_the_calls_of_the_longest(together, monkeypatch):
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    cells = [(*PICTURES, "batch_size=7", f"seed={seed}", f"steps={steps}") for seed, steps in enumerate((5, 9, 9, 9))]
    together(*cells, batch=28)
    assert len(sizes) == 9
    assert sizes[0] == 28
    assert sizes[-1] == 21


def test_one_failing_cell_takes_no_other_along(together, failures, caplog):
    good = (*PICTURES, "steps=6")
    bad = (*PICTURES, "loop=broken")
    impossible = (*POINTS, "steps=1001")
    first, broken, _, last = together(good, bad, impossible, (*good, "seed=1"))
    assert [record(folder)["status"] for folder in (first, last)] == ["done", "done"]
    assert len(images(first)) == len(images(last)) == 7
    told = {Path(failure.folder).name: failure for failure in failures}
    assert set(told) == {"1", "2"}
    assert re.fullmatch(r"ZeroDivisionError: broken \(.*busy.py:\d+\)", told["1"].message)
    assert record(broken)["error"] == told["1"].message
    assert not told["1"].input_error
    assert told["2"].input_error
    assert "ZeroDivisionError: broken" in (broken / "diffexp.log").read_text()
    assert "ZeroDivisionError" not in (first / "diffexp.log").read_text()


def test_an_error_in_the_model_is_its_cells_own(together, monkeypatch):
    def refuse(number: int, size: int) -> None:
        if size != 7:
            raise ValueError("seven only")

    network(monkeypatch, refuse)
    words = (*PICTURES, "batch_size=7")
    good, bad = together(words, (*words, "num_samples=3"))
    assert record(good)["status"] == "done"
    assert record(bad)["error"] == "ValueError: seven only"


def test_each_cell_has_its_own_log(together, caplog):
    caplog.set_level("INFO")
    folders = together(*[(*PICTURES, f"steps={steps}") for steps in (3, 4, 5)])
    for folder, steps in zip(folders, (3, 4, 5)):
        lines = (folder / "diffexp.log").read_text()
        assert lines.count("steps · 7 samples") == 1
        assert f"· {steps} steps ·" in lines
        assert f"nfe={steps} " in lines


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_log_that_cannot_be_written_costs_nothing_else(together, tmp_path, capfd):
    folder = tmp_path / "sweep" / "0"
    folder.mkdir(parents=True)
    (folder / "diffexp.log").symlink_to("/dev/full")
    together((*PICTURES, "steps=3"))
    assert record(folder)["status"] == "done"
    assert "Error" not in capfd.readouterr().err


def test_loops_and_metrics_of_every_kind(together, run):
    words = (*PICTURES, "steps=4")
    kinds = ["loop=denoise_in_a_thread", "loop=silent", "loop=alone", "loop=denoise"]
    folders = together(*[(*words, kind) for kind in kinds], (*words, "metric=asking", "seed=2"))
    assert [record(folder)["status"] for folder in folders] == ["done"] * 5
    nested, _, _, plain, asking = (images(folder) for folder in folders)
    assert all(same_but_for_rounding(nested[i], plain[i]) for i in range(7))
    assert "asking" in metrics(folders[4])
    assert metrics(folders[4]) == metrics(run(*words, "metric=asking", "seed=2").folder)
    assert len(asking) == 7


def test_a_cell_that_waits_for_the_processor_holds_up_nobody(together, monkeypatch, tmp_path):
    """Accurate solutions are computed by one cell while the others wait to do so: nobody waits for those."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    words = (*PICTURES, "num_samples=3", "metric=psnr", "scheduler=euler")
    cells = [(*words, f"steps={steps}") for steps in (5, 6, 7)]
    found: list[Path] = []
    sweep = threading.Thread(target=lambda: found.extend(together(*cells, straggler_seconds=1000.0)), daemon=True)
    sweep.start()
    sweep.join(120)
    assert not sweep.is_alive()
    assert all(metrics(folder)["psnr"] > 5 for folder in found) and len(found) == 3


def test_loops_that_make_other_plans_draw_for_themselves(together, run, tmp_path):
    """Two orders of the last step have the same table of 15 steps or more, but not of a part of it."""
    to_image(torch.rand(1, 8, 8)).save(tmp_path / "picture.png")
    words = (*PICTURES, "steps=15", "grid=karras", "scheduler=dpmpp_3m", "loop=img2img", "loop.strength=0.3")
    words += (f"loop.image={tmp_path / 'picture.png'}",)
    cells = [(*words, f"scheduler.lower_order_final={value}") for value in ("true", "false")]
    for cell, folder in zip(cells, together(*cells)):
        assert "same_as" not in record(folder)
        alone = images(run(*cell).folder)
        assert all(same_but_for_rounding(image, alone[index]) for index, image in images(folder).items())


def test_the_same_samples_are_drawn_once(together, monkeypatch):
    sizes: list[int] = []
    network(monkeypatch, lambda number, size: sizes.append(size))
    words = (*PICTURES, "batch_size=7", "model.prediction=epsilon")
    # At eta=0 DDIM has no noise to scale, whatever else it is called.
    folders = together((*words, "scheduler=ddim"), (*words, "scheduler=ddim", "name=again"), (*words, "scheduler=ddpm"))
    assert sum(sizes) == 7 * 5 * 2
    first, second, other = folders
    assert all(torch.equal(one, images(second)[index]) for index, one in images(first).items())
    twins = [record(folder).get("same_as") for folder in folders]
    assert twins in ([None, "0", None], ["1", None, None])
    assert metrics(first) == metrics(second)
    assert files(first) == files(second)
    assert (record(second)["status"], record(second)["nfe"]) == ("done", 5)
    assert not torch.equal(images(other)[0], images(first)[0])


def test_a_twin_of_a_failed_cell_draws_for_itself(together, monkeypatch):
    network(monkeypatch, raise_at(3, ValueError("once")))
    words = (*PICTURES, "batch_size=7")
    folders = together(words, (*words, "name=again"))
    assert sorted(record(folder)["status"] for folder in folders) == ["done", "failed"]


def test_an_interrupt_ends_all_cells_with_what_they_have(together, tmp_path, monkeypatch):
    # Three cells of 3 + 3 + 1 samples in 5 steps each, asked together: the second batch is interrupted.
    network(monkeypatch, raise_at(8, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        together(*[(*PICTURES, f"seed={seed}") for seed in range(3)], batch=9)
    for number in range(3):
        folder = tmp_path / "sweep" / str(number)
        assert (record(folder)["status"], record(folder)["error"]) == ("interrupted", None)
        assert list(images(folder)) == [0, 1, 2]
        assert metrics(folder)["nfe"] == 5


def test_a_cell_that_interrupts_itself_ends_the_sweep(together, monkeypatch):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffexp.experiment.run.run_facts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        together(PICTURES, (*PICTURES, "seed=1"))


def test_every_model_is_loaded_once(together, monkeypatch):
    loaded: list[str] = []
    build = Catalog.build

    def noted(self: Catalog, kind: str, node: Any) -> Any:
        if kind == "model":
            loaded.append(node["name"])
        return build(self, kind, node)

    monkeypatch.setattr(Catalog, "build", noted)
    together((*PICTURES,), ("model=gaussian", "steps=3"), (*PICTURES, "seed=1"), (*PICTURES, "loop=alone"))
    assert sorted(loaded) == ["gaussian", "mixture"]


def test_a_model_that_does_not_load_fails_its_own_cells(together, tmp_path):
    lost = ("model=mnist", f"model.weights={tmp_path}/lost")
    folders = together(lost, PICTURES, (*lost, "seed=1"))
    assert [record(folder)["status"] for folder in folders] == ["failed", "done", "failed"]
    assert len({record(folder)["error"] for folder in (folders[0], folders[2])}) == 1


def test_the_seconds_of_cells_add_up_to_the_time_it_took(together, monkeypatch):
    def slow(number: int, size: int) -> None:
        time.sleep(0.01)

    network(monkeypatch, slow)
    began = time.perf_counter()
    cells = [(*PICTURES, "steps=10", "batch_size=7", f"seed={seed}") for seed in range(4)]
    folders = together(*cells, batch=28)
    took = time.perf_counter() - began
    seconds = [record(folder)["sampling_seconds"] for folder in folders]
    assert 10 * 0.01 <= sum(seconds) <= took
    for folder in folders:
        assert record(folder)["model_seconds"] <= record(folder)["sampling_seconds"]
