"""What a run leaves of intervals and pairs, and the accurate solutions that samples are compared with."""

import csv
import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffexp.catalog.discover import discover
from diffexp.catalog.sources import conf_dir, default_choices
from diffexp.components.grids.choice import Grid
from diffexp.components.metrics.base import Finished, RunFacts
from diffexp.components.metrics.cost import Cost
from diffexp.components.metrics.psnr import PSNR
from diffexp.components.metrics.ssim import SSIM
from diffexp.components.metrics.trajectory_error import TrajectoryError
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.mixture import mixture
from diffexp.components.sampler import build_sampler
from diffexp.components.schedulers.ddim import ddim
from diffexp.components.schedulers.ddpm import ddpm
from diffexp.components.schedulers.heun import heun
from diffexp.errors import InputError
from diffexp.experiment.metric_suite import MetricSuite
from diffexp.experiment.per_sample import PER_SAMPLE, read_halves, write_per_sample
from diffexp.experiment.reference import Reference, Start, accurate_plan, start_of
from diffexp.plan.compile import sample
from diffexp.plan.levels import Level
from diffexp.plan.noise import SampleNoise
from diffexp.plan.predictions import DynamicThreshold, Prediction
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training


def facts(model: Any = None) -> RunFacts:
    unknown = dict.fromkeys(("scheduler_us_per_step", "peak_memory_mb", "plan"))
    return RunFacts(nfe=5, num_samples=8, seconds=1.0, model_seconds=1.0, model=model, **unknown)


# what a run leaves


class PerSample:
    """Values that samples have for themselves, and one for all."""

    def applies(self, model: Any) -> None:
        return None

    def update(self, samples: Tensor, images: Tensor) -> None:
        self.samples = [*getattr(self, "samples", []), samples]

    def compute(self, run: RunFacts) -> dict[str, Any]:
        values = torch.cat(self.samples).flatten()
        return {"own": values, "all": torch.tensor(3.5), "count": len(run.indices)}


def test_a_metric_with_a_value_a_sample_gets_mean_interval_and_a_file(tmp_path: Path):
    suite = MetricSuite({"per_sample": PerSample()}, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    order = [3, 1, 2, 0, *range(4, 20)]
    values = {index: index / 10 for index in order}
    for indices in (order[:3], order[3:]):
        batch = torch.tensor([[values[index]] for index in indices])
        suite.update(indices, batch, batch)
    told = suite.compute(facts())
    assert told["own"] == pytest.approx(0.95)
    assert told["own/low"] < 0.95 < told["own/high"]
    assert (told["all"], told["count"]) == (3.5, 20)
    assert "all/low" not in told
    suite.write(tmp_path)
    rows = list(csv.reader((tmp_path / PER_SAMPLE).open()))
    assert rows[0] == ["index", "own"]
    assert [(int(i), pytest.approx(float(v))) for i, v in rows[1:]] == sorted(values.items())
    assert set(read_halves(tmp_path)) == {"own"}

    shuffled = MetricSuite({"per_sample": PerSample()}, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    batch = torch.tensor([[values[index]] for index in range(20)])
    shuffled.update(range(20), batch, batch)
    assert shuffled.compute(facts())["own/low"] == pytest.approx(told["own/low"]), "halves go by index, not by order"


def test_a_value_that_is_no_number_costs_itself_alone(caplog: pytest.LogCaptureFixture):
    class Mixed(PerSample):
        def compute(self, run: RunFacts) -> dict[str, Any]:
            return {"many": torch.zeros(3), "word": "x", **super().compute(run)}

    suite = MetricSuite({"mixed": Mixed()}, SimpleNamespace())  # pyright: ignore[reportArgumentType]
    suite.update(range(8), torch.zeros(8, 1), torch.zeros(8, 1))
    assert {"own", "all", "count"} <= suite.compute(facts()).keys()
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("metric mixed: many is skipped, it is not one number per run or per sample: ")
    assert second.startswith("metric mixed: word is skipped")


def test_halves_that_cannot_be_read_are_none(tmp_path: Path):
    assert read_halves(tmp_path) == {}
    (tmp_path / "half_samples.safetensors").write_bytes(b"no")
    assert read_halves(tmp_path) == {}
    write_per_sample(tmp_path, [], {}, {"a": torch.empty(2, 0)})
    assert not (tmp_path / PER_SAMPLE).exists()


# against the accurate solution


class Solved:
    """Solutions as given: all zero."""

    missing: str | None = None

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = shape

    def __call__(self, indices: Sequence[int]) -> Tensor:
        return torch.zeros(len(indices), *self.shape)


def pictures(runtime: Runtime | None = None) -> Any:
    return mixture(runtime or Runtime(), shape=[1, 16, 16])


def test_distances_to_the_solution():
    model, level = pictures(), 0.25
    metrics: dict[str, Any] = {"psnr": PSNR(), "ssim": SSIM(), "trajectory_error": TrajectoryError()}
    suite = MetricSuite(metrics, model, Solved(model.shape))
    samples = torch.full((12, 1, 16, 16), level)
    suite.update(range(12), samples, model.decode(samples))
    found = suite.compute(facts(model))
    # Pixels are half as far apart as samples, and rounded to 8 bits.
    rounded = round((level / 2 + 0.5) * 255) / 255 - 0.5
    assert found["psnr"] == pytest.approx(-20 * math.log10(rounded), abs=1e-3)
    assert found["trajectory_error"] == pytest.approx(level)
    assert 0 < found["ssim"] < 1


def test_without_a_solution_the_metric_is_left_out_and_says_why(caplog: pytest.LogCaptureFixture):
    model, solved = pictures(), Solved((1, 16, 16))
    solved.missing = "the sampler draws noise"
    with caplog.at_level(logging.INFO):
        suite = MetricSuite({"psnr": PSNR()}, model, solved, in_sweep=True)
    assert [record.getMessage() for record in caplog.records] == ["metric psnr is skipped: the sampler draws noise"]
    suite.update(range(2), torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16))
    assert suite.compute(facts(model)) == {}
    with pytest.raises(InputError, match="metric=psnr does not apply: the sampler draws noise; write metric=none"):
        MetricSuite({"psnr": PSNR()}, model, solved)


def test_a_metric_that_was_asked_for_applies_or_is_an_error(caplog: pytest.LogCaptureFixture):
    points = mixture(Runtime())
    usual = [entry.strip("[],") for entry in (conf_dir() / "config.yaml").read_text().split("metric: ")[1].split()[:4]]
    assert usual == default_choices()["metric"]
    MetricSuite({name: PSNR() for name in usual}, points, Solved(points.shape))
    assert caplog.records == []
    for in_sweep in (False, True):
        with pytest.raises(InputError) as caught:
            MetricSuite({"psnr": PSNR(), "cost": Cost()}, points, Solved(points.shape), in_sweep=in_sweep)
        assert str(caught.value) == f"metric=psnr does not apply: {PSNR().applies(points)}; write metric=[cost]"


def test_a_solution_that_fails_costs_its_metrics_alone(caplog: pytest.LogCaptureFixture):
    class Broken(Solved):
        def __call__(self, indices: Sequence[int]) -> Tensor:
            raise ZeroDivisionError("no solution")

    model = pictures()
    metrics: dict[str, Any] = {"psnr": PSNR(), "per_sample": PerSample()}
    suite = MetricSuite(metrics, model, Broken((1, 16, 16)))
    suite.update(range(2), torch.zeros(2, 1), torch.zeros(2, 1, 16, 16))
    assert set(suite.compute(facts(model))) == {"own", "all", "count"}
    assert "metric psnr failed and is dropped: ZeroDivisionError: no solution" in caplog.text


def test_pictures_are_needed_and_not_too_small():
    points, small = mixture(Runtime()), mixture(Runtime(), shape=[1, 8, 8])
    assert PSNR().applies(points) and SSIM().applies(points)
    assert PSNR().applies(small) is None
    assert "11 pixels" in (SSIM().applies(small) or "")
    assert TrajectoryError().applies(points) is None


def test_identical_pictures_have_the_psnr_of_rounding():
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    batch = Finished(images, images)
    assert PSNR().compare(batch, batch)["psnr"].mean().item() == pytest.approx(58.9, abs=0.5)


# the solutions themselves


def parts(model: Any, sampler: Any = None, **other: Any) -> Any:
    sampler = sampler or build_sampler(ddim, steps=5, training=model.training)
    known = {"model": model, "sampler": sampler, "predict": model.predict, "guidance_scale": 1.0, "from_noise": True}
    return SimpleNamespace(**{**known, "stepwise": False, "code_sha256": (), "request": Request(), **other})


def config(**other: Any) -> dict[str, Any]:
    usual = {"seed": 0, "model": {"name": "mixture"}, "guidance": {"name": "cfg"}, "loop": {"name": "denoise"}}
    return usual | {"prompt": None, "negative_prompt": None, "label": None} | other


@pytest.mark.parametrize("schedule", ["vp", "ve", "edm", "flow"])
@pytest.mark.parametrize("scheduler", [ddim, heun])
def test_solutions_are_where_endless_steps_of_the_same_sampler_lead(schedule: str, scheduler: Any, tmp_path: Path):
    model: Any = mixture(Runtime(), schedule=schedule)  # pyright: ignore[reportArgumentType]
    start = {"vp": 901.0, "ve": 1.0, "edm": 1.0, "flow": 901.0}[schedule]
    errors = []
    for steps in (6, 48):
        visited = torch.linspace(start, model.schedule.timestep_range[0], steps + 1)[:-1].tolist()
        grid = Grid("given", timesteps=[float(round(t)) if start > 1 else t for t in visited])
        run = parts(model, build_sampler(scheduler, steps=steps, training=model.training, grid=grid))
        solutions = Reference(run, config(), tmp_path)(range(16))
        errors.append((drawn(run) - solutions).square().mean().sqrt().item())
    assert errors[1] < errors[0] / 4
    assert len(list(tmp_path.iterdir())) == 1, "the start is the same, so are the solutions"


def drawn(run: Any) -> Tensor:
    """The first 16 samples of a run."""
    model, plan = run.model, run.sampler
    noise = SampleNoise(0, range(16), model.shape, "cpu", torch.float64)
    condition = model.conditions(Request(), range(16))

    def network(u: Tensor, level: Level) -> Tensor:
        return model.predict(u, torch.full((len(u),), level.timestep, dtype=torch.float64), condition)

    return sample(plan, network, noise.draw() * plan.start_std, noise.draw).float()


def test_solutions_are_kept_one_by_one_and_found_again(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    model = mixture(Runtime())
    with caplog.at_level(logging.INFO, logger="diffexp"):
        first = Reference(parts(model), config(), tmp_path)([0, 1])
        again = Reference(parts(model, build_sampler(heun, steps=5, training=model.training)), config(), tmp_path)(
            [1, 2]
        )
    assert torch.equal(first[1], again[0])
    said = [record.getMessage() for record in caplog.records if "accurate" in record.getMessage()]
    assert [text.partition(",")[0] for text in said] == [
        "computing 2 accurate solutions",
        "computing 1 accurate solutions",
    ]
    assert len(list(tmp_path.glob("*/*.safetensors"))) == 3


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"label": 3}, {"guidance": {"name": "none"}}, {"model": {"name": "x"}}]
)
def test_what_solutions_depend_on_is_in_the_name_of_their_folder(change: dict[str, Any], tmp_path: Path):
    model = mixture(Runtime())
    for settings_of_a_run in (config(), config(**change)):
        Reference(parts(model), settings_of_a_run, tmp_path)([0])
    assert len(list(tmp_path.iterdir())) == 2


def test_solutions_of_other_code_and_other_files_are_others(tmp_path: Path):
    model, table = mixture(Runtime()), tmp_path / "points.csv"
    for code, text in ((), "1"), (("changed",), "1"), ((), "2"):
        table.write_text(text)
        own = config(model={"name": "mixture", "points": str(table)})
        Reference(parts(model, code_sha256=code), own, tmp_path / "cache")([0])
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_where_nothing_can_be_solved_the_reason_is_said(tmp_path: Path):
    model, expected = mixture(Runtime()), "there is no accurate solver from where the sampler begins: "
    lowest = Grid("given", timesteps=[model.schedule.timestep_range[0]])
    begins_at_the_end = build_sampler(ddim, steps=1, training=model.training, grid=lowest)
    assert (Reference(parts(model, begins_at_the_end), config(), tmp_path).missing or "").startswith(expected)
    thresholded = replace(model, training=replace(model.training, clip=DynamicThreshold()))
    told = Reference(parts(thresholded, parts(model).sampler), config(), tmp_path).missing
    assert told and told.startswith(expected) and "\n" not in told


def test_a_cache_that_cannot_be_written_or_read_does_no_harm(tmp_path: Path):
    model, file = mixture(Runtime()), tmp_path / "file"
    file.touch()
    expected = Reference(parts(model), config(), tmp_path / "good")([0])
    assert torch.equal(Reference(parts(model), config(), file / "below")([0]), expected)
    (kept,) = (tmp_path / "good").glob("*/*.safetensors")
    kept.write_bytes(b"half a fi")
    assert torch.equal(Reference(parts(model), config(), tmp_path / "good")([0]), expected)


def test_who_draws_noise_has_no_solution(tmp_path: Path):
    model = mixture(Runtime())
    noisy = build_sampler(ddpm, steps=5, training=model.training)
    assert Reference(parts(model), config(), tmp_path).missing is None
    assert "draws noise" in (Reference(parts(model, noisy), config(), tmp_path).missing or "")
    other = config(loop={"name": "img2img"})
    assert "img2img" in (Reference(parts(model, from_noise=False), other, tmp_path).missing or "")


def test_a_direct_sampler_is_tried():
    model = mixture(Runtime())

    def curved(denoise: Any, x: Tensor, levels: Any, noise: Any, *, noisy: bool = False) -> Tensor:
        for here, there in levels.pairs():
            x = there.alpha * torch.tanh(denoise(x, here)) + there.sigma * x
            x = x + noise() if noisy else x
        return x

    for noisy in (False, True):
        sampler = build_sampler(curved, steps=3, training=model.training, options={"noisy": noisy})
        assert not isinstance(sampler, Plan)
        start = start_of(sampler, model)
        assert start is not None and start.draws == (3 if noisy else 0)
        assert start.level.timestep > 600 and start.std == pytest.approx(1.0, rel=0.01)


def test_a_schedule_that_ends_in_pure_noise_has_a_solution_too():
    schedule = VPSchedule.from_betas(rescale_betas_zero_snr=True)
    plan = accurate_plan(Training(schedule, Prediction.V), Start(schedule.at(999), 1.0, 0))
    assert plan.deterministic
    assert plan.rows[0].level.alpha == 0


def test_which_way_is_up_is_registered():
    named = {entry.name: entry.traits.get("higher_is_better", ()) for entry in discover().of_kind("metric").values()}
    assert list(named["psnr"]) == ["psnr"]
    assert list(named["precision_recall"]) == ["precision", "recall"]
    assert list(named["fid"]) == []
