"""Loops that begin with a picture: image to image and inpainting, for any model and as diffusers does them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting
from PIL import Image

import diffexp
from diffexp.catalog.discover import Catalog
from diffexp.components.grids.choice import Grid
from diffexp.components.loops.img2img import first_step
from diffexp.components.pixels import to_image, to_tensor
from diffexp.components.sampler import Recipe
from diffexp.components.user_files import read_images, read_masks
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult
from diffexp.plan.levels import CLEAN
from diffexp.plan.schedules import VPSchedule
from diffexp.plan.table import Plan
from diffexp.plan.training import Training
from tests.pipeline_runs import COMMON, Draw, Tiny, by_diffusers, drawn, psnr, studio
from tests.runs import images

Run = Callable[..., RunResult]
TRAINING = Training(VPSchedule.from_betas())


@pytest.fixture(scope="module")
def draw(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Draw:
    return studio(catalog, compose(*COMMON), tiny, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 x 32, every colour."""
    ramp = torch.linspace(0, 1, 32)
    file = tmp_path_factory.mktemp("pictures") / "picture.png"
    to_image(torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T, 1 - ramp.expand(32, 32)])).save(file)
    return file


@pytest.fixture(scope="session")
def mask(picture: Path) -> Path:
    """The right half is to be drawn."""
    file = picture.with_name("mask.gif")
    image = Image.new("L", (32, 32))
    image.paste(255, (16, 0, 32, 32))
    image.save(file)
    return file


CLASSES = {
    "ddim": ("DDIMScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing"}),
    "diffusers/unipc": ("UniPCMultistepScheduler", {}),
}


@pytest.mark.parametrize("scheduler", [*CLASSES, "euler_ancestral"])
def test_image_to_image_is_that_of_diffusers(draw: Draw, tiny: Tiny, picture: Path, scheduler: str) -> None:
    """Also for methods that look back, of which the first steps are missing."""
    name, options = CLASSES.get(scheduler, ("EulerAncestralDiscreteScheduler", {}))
    chosen = {"scheduler": scheduler, "grid": "trailing" if options else "auto", "steps": 7}
    node = {"image": str(picture), "strength": 0.6}
    result = draw("sd15", loop={"name": "img2img", **node}, **chosen)
    inside = drawn(result)
    outside = drawn(draw("sd15", loop={"name": "pipeline", **node}, **chosen))
    call = {"image": [Image.open(picture)] * 2, "strength": 0.6, "num_inference_steps": 7}
    theirs = by_diffusers(tiny("sd15"), name, AutoPipelineForImage2Image, call=call, **options)
    assert psnr(inside, outside) > 60
    assert psnr(inside, theirs) > 50
    assert psnr(inside, drawn(draw("sd15", **chosen))) < 40


@pytest.mark.parametrize("strength", [1.0, 0.6])
@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "diffusers/unipc"])
def test_inpainting_is_that_of_diffusers(
    draw: Draw, tiny: Tiny, picture: Path, mask: Path, scheduler: str, strength: float
) -> None:
    name, options = CLASSES[scheduler]
    chosen = {"scheduler": scheduler, "grid": "trailing" if options else "auto", "steps": 7}
    node = {"image": str(picture), "mask": str(mask), "strength": strength}
    inside = drawn(draw("sd15", loop={"name": "inpaint", **node}, **chosen))
    outside = drawn(draw("sd15", loop={"name": "pipeline", **node}, **chosen))
    call = {"image": [Image.open(picture)] * 2, "mask_image": [Image.open(mask)] * 2, "strength": strength}
    call["num_inference_steps"] = 7
    theirs = by_diffusers(tiny("sd15"), name, AutoPipelineForInpainting, call=call, **options)
    assert psnr(inside, outside) > 50
    assert psnr(inside, theirs) > 50


FLOW = "FlowMatchEulerDiscreteScheduler"


@pytest.mark.parametrize(
    ("family", "scheduler", "name"),
    [
        ("sdxl", "euler", "EulerDiscreteScheduler"),
        ("kandinsky22", "ddim", "DDIMScheduler"),
        ("sd3", "euler", FLOW),
        ("flux", "euler", FLOW),
    ],
)
def test_other_families_begin_with_a_picture_too(
    draw: Draw, tiny: Tiny, picture: Path, family: str, scheduler: str, name: str
) -> None:
    node = {"image": str(picture), "strength": 0.6}
    outside = drawn(draw(family, loop={"name": "pipeline", **node}, scheduler=scheduler))
    call = {"image": [Image.open(picture)] * 2, "strength": 0.6}
    assert psnr(outside, by_diffusers(tiny(family), name, AutoPipelineForImage2Image, call=call)) > 50
    if family in ("sdxl", "kandinsky22"):
        assert psnr(outside, drawn(draw(family, loop={"name": "img2img", **node}, scheduler=scheduler))) > 60


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m", "diffusers/dpmsolver_multistep", "diffusers/heun"])
def test_a_part_begins_without_a_history(catalog: Catalog, scheduler: str) -> None:
    """Its table is that of the same levels alone, and the levels are those of the whole grid."""
    bound = catalog.build("scheduler", {"name": scheduler})
    recipe = Recipe(bound.func, 8, TRAINING, Grid("trailing", catalog.build("grid", {"name": "trailing"})))
    whole, part = recipe.sampler, recipe.part(5)
    assert isinstance(whole, Plan) and isinstance(part.sampler, Plan)
    rows = len(part.sampler.rows)
    assert [row.level for row in part.sampler.rows] == [row.level for row in whole.rows[-rows:]]
    assert part.sampler.rows[0].depth == 0
    assert part.end == CLEAN
    seen = part.start.scaled(part.sampler.rows[0].scale)
    assert (seen.alpha, seen.sigma) == pytest.approx(
        (TRAINING.schedule.at(part.sampler.rows[0].level.timestep).alpha, seen.sigma)
    )
    assert seen.alpha**2 + seen.sigma**2 == pytest.approx(1)


def test_parts_in_a_row_are_the_whole(catalog: Catalog) -> None:
    """Of a method without memory."""
    recipe = Recipe(catalog.build("scheduler", {"name": "euler"}).func, 6, TRAINING)
    whole = recipe.sampler
    assert isinstance(whole, Plan)
    rows = []
    for begin in (0, 2, 4):
        part = recipe.part(begin, begin + 2)
        assert isinstance(part.sampler, Plan)
        rows += part.sampler.rows
    assert Plan(tuple(rows), whole.start_std).difference(whole) < 1e-12


def test_a_finished_plan_cannot_begin_in_the_middle() -> None:
    with pytest.raises(InputError, match="cannot begin in the middle"):
        Recipe(diffexp.compile("ddim", steps=4), 4, TRAINING).part(2)


@pytest.fixture(scope="session")
def digit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "digit.png"
    image = Image.new("L", (32, 32))
    image.paste(255, (14, 6, 18, 26))
    image.save(file)
    return file


def test_a_little_noise_changes_little(run: Run, digit: Path) -> None:
    words = ["num_samples=2", "batch_size=2", "steps=10", "snapshot_every=0", "label=1", "loop=img2img"]
    picture = to_tensor([Image.open(digit)])
    errors = []
    for strength in (0.2, 0.5, 1.0):
        result = run(*words, f"loop.image={digit}", f"loop.strength={strength}")
        assert result.metrics["nfe"] == round(10 * strength)
        errors.append(float((torch.stack(list(images(result.folder).values())) - picture).square().mean()))
    assert errors == sorted(errors) and errors[0] < 0.02 < errors[-1]


@pytest.mark.parametrize("scheduler", ["ddpm", "heun", "curved"])
@pytest.mark.parametrize("resample", [1, 2])
def test_what_is_known_stays(run: Run, digit: Path, mask: Path, scheduler: str, resample: int) -> None:
    """With a stochastic scheduler, one of two evaluations a step, and one that is no table at all."""
    result = run(
        *("num_samples=3", "batch_size=2", "steps=6", "snapshot_every=0", "loop=inpaint", f"scheduler={scheduler}"),
        *(f"loop.image={digit}", f"loop.mask={mask}", f"loop.resample={resample}", "loop.jump=3"),
    )
    found = torch.stack([image for _, image in sorted(images(result.folder).items())])
    known = to_tensor([Image.open(digit)])[..., :16]
    assert (found[..., :16] - known).abs().max() < 1.5 / 255
    assert found[..., 16:].std() > 0.05
    if scheduler == "ddpm":
        assert result.metrics["nfe"] == 6 * resample


def test_resampling_brings_the_parts_to_agree(run: Run, tmp_path: Path) -> None:
    """Two pixels of a Gaussian with correlation 9/11, one of them given: the mean of the other is 9/11 of it."""
    to_image(torch.full((1, 1, 2), 0.9)).save(tmp_path / "known.png")
    hole = Image.new("L", (2, 1))
    hole.putpixel((1, 0), 255)
    hole.save(tmp_path / "hole.png")
    words = [
        *("model=gaussian", "model.shape=[1,1,2]", "model.variances=[0.1,0.01]", "scheduler=ddpm", "steps=50"),
        *("num_samples=200", "batch_size=200", "snapshot_every=0", "loop=inpaint", "loop.jump=2"),
        *(f"loop.image={tmp_path / 'known.png'}", f"loop.mask={tmp_path / 'hole.png'}"),
    ]
    errors = []
    for resample in (1, 8):
        found = torch.stack(list(images(run(*words, f"loop.resample={resample}").folder).values()))
        known, other = (found[:, 0, 0] * 2 - 1).mean(dim=0).tolist()
        errors.append(abs(other - 9 / 11 * known))
    assert 0.25 < errors[0] < 0.35 and errors[1] < 0.13


def test_pictures_are_fitted_and_taken_turns_with(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20), (255, 0, 0)).save(tmp_path / "b.png")
    Image.new("RGBA", (8, 8), (0, 255, 0, 255)).save(tmp_path / "a.webp")
    (tmp_path / "notes.txt").write_text("not a picture")
    found = to_tensor(read_images("loop.image", str(tmp_path), (3, 16, 12), range(3)))
    assert found.shape == (3, 3, 16, 12)
    assert found[:, :2, 8, 6].round(decimals=1).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert read_images("loop.image", str(tmp_path / "b.png"), (1, 4, 4), [5])[0].mode == "L"
    grey = Image.new("L", (2, 1))
    grey.putpixel((1, 0), 140)
    grey.save(tmp_path / "mask.png")
    mask, wide, square = (str(tmp_path / name) for name in ("mask.png", "b.png", "a.webp"))
    assert to_tensor(read_masks(mask, wide, (3, 1, 2), [0])).flatten().tolist() == [0, 1]
    with pytest.raises(InputError, match="is 40 x 20, which does not fit .* of 8 x 8"):
        read_masks(wide, square, (3, 1, 2), [0])


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_a_pixel_are_scaled(tmp_path: Path, suffix: str) -> None:
    """As depth maps and masks have them."""
    ramp = (torch.linspace(0, 1, 256).expand(4, 256) * 65535).to(torch.uint16)
    Image.fromarray(ramp.numpy()).save(tmp_path / f"depth.{suffix}")
    (found,) = to_tensor(read_images("loop.image", str(tmp_path / f"depth.{suffix}"), (1, 4, 256), [0]))
    torch.testing.assert_close(found[0, 0], torch.linspace(0, 1, 256), atol=0.006, rtol=0)


@pytest.mark.parametrize("words", [("loop=inversion",), ("loop=inpaint", "loop.mask={digit}", "loop.resample=3")])
def test_a_budget_holds_for_loops_that_take_more(run: Run, digit: Path, words: tuple[str, ...]) -> None:
    given = [word.format(digit=digit) for word in words]
    with pytest.raises(InputError, match="max_nfe=6: the loop takes (12|18) evaluations; give fewer steps"):
        run(*given, f"loop.image={digit}", "steps=6", "max_nfe=6", "num_samples=1")


@pytest.mark.parametrize("steps", [1, 3, 7, 9, 20, 30, 50, 333, 999])
def test_the_least_strength_that_is_named_is_enough(steps: int) -> None:
    """Rounded to the nearest, 1/7 would be 0.14, which leaves no step either."""
    with pytest.raises(InputError, match=r"give at least [0-9.]+$") as caught:
        first_step(0.9 / steps, steps)
    named = float(str(caught.value).split()[-1])
    assert first_step(named, steps) == steps - 1 and named <= 1.1 / steps


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loop=img2img", "loop.image=nowhere.png"], "loop.image=nowhere.png: no such file"),
        (["loop=img2img", "loop.image={text}"], "cannot be read as an image"),
        (["loop=img2img", "loop.image={folder}"], "is a folder without images"),
        (["loop=img2img", "loop.image={digit}", "loop.strength=0"], "loop.strength=0 must be greater than 0"),
        (["loop=img2img", "loop.image={digit}", "loop.strength=0.1"], "leaves no step; give at least 0.2"),
        (["loop=inpaint", "loop.image={digit}", "loop.mask={digit}", "loop.resample=0"], "must be at least 1"),
        (["loop=img2img", "loop.image={digit}", "model=mixture"], "model=mixture samples points, not images"),
        (["loop=pipeline"], "model=mnist is not a pipeline of diffusers"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, digit: Path, tmp_path: Path, words: list[str], message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("hello")
    places = {"digit": digit, "folder": tmp_path / "empty", "text": tmp_path / "text.png"}
    with pytest.raises(InputError, match=message) as caught:
        run(*(word.format(**places) for word in words), "steps=5", "num_samples=1", "batch_size=1")
    assert "\n" not in str(caught.value)
