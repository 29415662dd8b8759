"""Inversion: from a picture to the noise that it is drawn from, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import DDIMInverseScheduler
from PIL import Image
from torch import Tensor

import diffexp
from diffexp.catalog.discover import Catalog
from diffexp.components.loops.inversion import noised, visited
from diffexp.components.models.base import Request, Runtime
from diffexp.components.models.mixture import mixture
from diffexp.components.pixels import to_image
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult
from diffexp.plan.compile import sample
from diffexp.plan.execute import Network
from diffexp.plan.table import Plan
from tests.checkpoints import save_unet, tiny_digits_unet
from tests.pipeline_runs import COMMON, Tiny, drawn, psnr, studio
from tests.runs import images, metrics

Run = Callable[..., RunResult]
MODEL = mixture(Runtime(dtype=torch.float64), shape=[1, 8, 8])
TRUTH = MODEL.sample_truth(4, torch.Generator().manual_seed(0)).double()


def network_of(model: Any) -> Network:
    condition = model.conditions(Request(), range(len(TRUTH)))
    return lambda u, level: model.predict(u, torch.full((len(u),), level.timestep).to(u), condition)


def there_and_back(plan: Plan, iterations: int) -> tuple[Tensor, float]:
    """The noise that is found, and the largest difference of what is drawn from it to the picture."""
    network = network_of(MODEL)
    found = noised(network, MODEL.prediction, TRUTH, visited(plan), iterations)
    back = sample(plan, network, found / plan.rows[0].scale, lambda: torch.zeros_like(TRUTH))
    return found, float((back - TRUTH).abs().max())


@pytest.mark.parametrize(("scheduler", "rounding"), [("ddim", 1e-12), ("diffusers/euler", 1e-6)])
def test_the_implicit_equation_inverts_ddim(scheduler: str, rounding: float) -> None:
    """In the coordinates of VP and of sigma; diffusers' Euler keeps its sigmas in float32."""
    plan = diffexp.compile(scheduler, steps=200, model=MODEL, grid="trailing")
    errors = [there_and_back(plan, iterations)[1] for iterations in (1, 3, 20)]
    assert errors[0] > 10 * errors[1] > 1000 * errors[2] and errors[2] < rounding


def test_one_iteration_is_of_first_order() -> None:
    errors = [
        there_and_back(diffexp.compile("ddim", steps=steps, model=MODEL, grid="trailing"), 1)[1]
        for steps in (250, 1000)
    ]
    assert 3 < errors[0] / errors[1] < 5.5


def test_more_iterations_find_noise_that_is_more_like_noise() -> None:
    plan = diffexp.compile("ddim", steps=200, model=MODEL, grid="trailing")
    spreads = [float(there_and_back(plan, iterations)[0].std()) for iterations in (1, 20)]
    assert all(0.8 < spread < 1.3 for spread in spreads)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
def test_one_iteration_is_the_inversion_of_diffusers(spacing: Literal["trailing", "leading"]) -> None:
    theirs = DDIMInverseScheduler(timestep_spacing=spacing, clip_sample=False)
    theirs.set_timesteps(50)
    network, x = network_of(MODEL), TRUTH
    levels = []
    for t in theirs.timesteps:
        levels.append(MODEL.schedule.at(float(t)))
        x = theirs.step(network(x, levels[-1]), int(t), x, return_dict=False)[0]
    torch.testing.assert_close(noised(network, MODEL.prediction, TRUTH, levels, 1), x, rtol=1e-5, atol=1e-5)


def test_a_plan_visits_levels_once_from_the_least_noise_to_its_start() -> None:
    plan = diffexp.compile("heun", steps=6)
    levels = visited(plan)
    ratios = [level.ratio for level in levels]
    assert levels[-1] == plan.rows[0].level
    assert ratios == sorted(set(ratios)) and len(levels) == 6 < plan.nfe


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    (tmp_path / "picture.png").parent.mkdir(exist_ok=True)
    to_image(MODEL.decode(TRUTH[:1].float())[0]).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_a_run(run: Run, picture: Path) -> None:
    words = ("model=mixture", "model.shape=[1,8,8]", "loop=inversion", f"loop.image={picture}", "grid=trailing")
    words += ("num_samples=3", "batch_size=2", "steps=100", "metric=[cost,reconstruction]")
    found = {k: run(*words, f"loop.iterations={k}") for k in (1, 6)}
    for iterations, result in found.items():
        assert metrics(result.folder)["nfe"] == 100 * (1 + iterations)
    close = {k: metrics(result.folder)["reconstruction/psnr"] for k, result in found.items()}
    assert close[1] < close[6] and close[6] > 45
    table = (found[6].folder / "sample_metrics.csv").read_text().splitlines()
    assert table[0] == "index,reconstruction/psnr" and len(table) == 4
    assert (found[6].folder / "trajectory.png").is_file()


def test_cells_of_a_sweep_are_those_of_runs_alone(together: Callable[..., list[Path]], run: Run, picture: Path) -> None:
    words = ("model=mixture", "model.shape=[1,8,8]", "loop=inversion", f"loop.image={picture}", "num_samples=2")
    cells = [(*words, "steps=4"), (*words, "steps=6", "loop.iterations=2")]
    for cell, folder in zip(cells, together(*cells)):
        alone = images(run(*cell).folder)
        assert all((image - alone[index]).abs().max() < 1.5 / 255 for index, image in images(folder).items())


def test_the_source_is_what_the_picture_shows(run: Run, tmp_path: Path) -> None:
    """The prompt of the run is for the way back alone."""
    weights = save_unet(tmp_path / "digits", tiny_digits_unet())
    to_image(torch.rand(1, 32, 32)).save(tmp_path / "picture.png")
    words = (f"model.weights={weights}", "loop=inversion", f"loop.image={tmp_path / 'picture.png'}", "guidance=none")
    words += ("num_samples=1", "steps=3", "snapshot_every=0")

    def drawn(*more: str) -> Tensor:
        return images(run(*words, *more).folder)[0]

    same = drawn("label=3", "loop.source=three")
    assert torch.equal(same, drawn("label=3"))
    assert not torch.equal(same, drawn("label=3", "loop.source=four"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loop.image={picture}", "loop.iterations=0"], "loop.iterations=0 must be at least 1"),
        (["loop.image={picture}", "scheduler=curved"], "needs a scheduler that compiles to a table"),
        (["loop.image={picture}", "scheduler=edm_stochastic", "scheduler.s_tmax=inf"], "starts from noise alone"),
        (["loop.image=nowhere.png"], "loop.image=nowhere.png: no such file"),
        (["loop.image={picture}", "model.shape=[2]"], "model=mixture samples points, not images"),
    ],
)
def test_what_cannot_be_inverted_is_said(run: Run, picture: Path, words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run("model=mixture", "model.shape=[1,8,8]", "loop=inversion", *(w.format(picture=picture) for w in words))


@pytest.mark.parametrize(("loop", "frames"), [("inversion", 10), ("img2img", 10)])
def test_the_film_of_a_loop_goes_on_to_its_end(run: Run, picture: Path, loop: str, frames: int) -> None:
    """Snapshots are spread over what the loop takes, 40 and 16 evaluations, not over the 20 of the sampler."""
    words = ("model=mixture", "model.shape=[1,8,8]", f"loop.image={picture}", "num_samples=1")
    with Image.open(run(*words, f"loop={loop}", "steps=20").folder / "trajectory.gif") as film:
        assert getattr(film, "n_frames", 1) == frames


@pytest.mark.parametrize("family", ["sd15", "sdxl", "kandinsky22"])
def test_text_to_image_models_are_inverted_with_the_prompt_of_the_picture(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path: Path, family: str
) -> None:
    to_image(torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))).save(tmp_path / "picture.png")
    (tmp_path / "runs").mkdir()
    draw = studio(catalog, compose(*COMMON), tiny, tmp_path / "runs")

    def edited(source: str | None) -> Tensor:
        node = {"name": "inversion", "image": str(tmp_path / "picture.png"), "source": source, "iterations": 1}
        return drawn(draw(family, loop=node, prompt="a cat", scheduler="ddim", guidance_scale=3.0, steps=4))

    assert psnr(edited("two dogs"), edited("a bird")) < 45
    if family != "kandinsky22":  # whose prior would draw another embedding for the same words
        assert torch.equal(edited(None), edited("a cat"))
