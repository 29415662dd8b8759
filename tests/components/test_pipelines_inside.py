"""Every pipeline from inside: loops and solvers of ours evaluate it through its own call."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForText2Image, ChromaImg2ImgPipeline
from PIL import Image
from torch import Tensor

from diffexp.catalog.discover import Catalog
from diffexp.components.models.base import Runtime, mask_of
from diffexp.components.models.given import model_of
from diffexp.components.models.pipeline import pipeline
from diffexp.components.pixels import to_image, to_tensor
from diffexp.errors import InputError
from diffexp.plan.noise import sample_seed
from tests.pipeline_runs import COMMON, Draw, Tiny, by_diffusers, drawn, psnr, studio
from tests.runs import record


@pytest.fixture(scope="module")
def draw(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Draw:
    return studio(catalog, compose(*COMMON), tiny, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("family", ["sd3", "flux", "flux_terminal", "sd3_dynamic"])
def test_the_samples_are_those_of_the_pipeline(draw: Draw, tiny: Tiny, family: str) -> None:
    theirs = by_diffusers(tiny(family), "FlowMatchEulerDiscreteScheduler")
    for scheduler in ("euler", {"name": "diffusers", "_target_": None}):
        result = draw(family, scheduler=scheduler)
        assert psnr(drawn(result), theirs) > 60
        assert record(result.folder)["nfe"] == 5
        assert record(result.folder)["forward_passes"] == (5 if "flux" in family else 10)
    together = drawn(draw(family, scheduler="dpmpp_2m"))
    assert psnr(together, drawn(draw(family, scheduler="dpmpp_2m", loop="pipeline"))) > 50
    assert 10 < psnr(together, theirs) < 50


def test_pixart(draw: Draw, tiny: Tiny) -> None:
    call = {"height": 256, "width": 256}
    theirs = by_diffusers(tiny("pixart"), "DPMSolverMultistepScheduler", call=call)
    assert psnr(drawn(draw("pixart", size=256, scheduler="dpmpp_2m", grid="auto")), theirs) > 50


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_solvers_that_are_no_table_or_go_back_up(draw: Draw, family: str) -> None:
    """Two evaluations a step, noise of their own, levels chosen by what they find, other grids."""
    plain = drawn(draw(family, scheduler="euler"))
    for scheduler in ("heun", "restart", "euler_ancestral", "curved"):
        result = draw(family, scheduler=scheduler, snapshot_every=None, batch_size=1, num_samples=1)
        assert drawn(result).std() > 0.1 and 5 < psnr(drawn(result), plain[:1]) < 60
        assert (result.folder / "trajectory.gif").is_file()
    listed = draw(family, scheduler="euler", grid={"name": "auto", "sigmas": [0.9, 0.4]})
    assert record(listed.folder)["nfe"] == 2


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_images_are_changed_and_found_again(draw: Draw, tiny: Tiny, tmp_path: Path, family: str) -> None:
    """As far as the autoencoder, whose weights are random, gives an image back."""
    fine = {"scheduler": "euler", "guidance_scale": 1.0, "steps": 50, "num_samples": 1, "prompt": "a cat"}
    shown = {"image": str(draw(family, **fine).folder / "samples" / "000000.png")}
    model: Any = pipeline(Runtime(dtype=torch.float32), id=str(tiny(family)), height=32, width=32)
    encoded = model.encode(to_tensor([Image.open(shown["image"])]), [torch.Generator().manual_seed(sample_seed(0, 0))])
    original = model.decode(encoded)
    again = drawn(draw(family, loop={"name": "inversion", "iterations": 3} | shown, **fine))
    assert psnr(again, original) > (30 if family == "sd3" else 20)  # iterations converge slowly for the other
    errors = []
    for strength in (0.1, 0.5, 1.0):
        changed = draw(family, loop={"name": "img2img", "strength": strength} | shown, **fine | {"steps": 10})
        errors.append(psnr(drawn(changed), original))
    assert errors == sorted(errors, reverse=True) and errors[0] > errors[2] + 3
    mask = tmp_path / "mask.png"
    to_image((torch.arange(32) < 16).float().expand(1, 32, 32)).save(mask)
    half = drawn(draw(family, loop={"name": "inpaint", "mask": str(mask)} | shown, **fine | {"steps": 5}))
    assert psnr(half[..., 24:], original[..., 24:]) > psnr(half[..., :8], original[..., :8]) + 3
    known = (torch.arange(32) < 16).float().expand(1, 1, 32, 32)
    placed = model.laid_out(mask_of(model, known, encoded))
    assert placed.shape[2:] == (16, 16) and placed[..., :8].min() == 1 and placed[..., 8:].max() == 0


def test_what_a_pipeline_does_not_take(draw: Draw) -> None:
    with pytest.raises(InputError, match="is guided by its own pipeline, not by guidance=interval"):
        draw("sd3", guidance="interval")


def test_a_pipeline_made_for_images_is_its_own_task(tiny: Tiny) -> None:
    """Also where diffusers knows no way to it, as for Chroma."""
    pipe = ChromaImg2ImgPipeline.from_pretrained(tiny("chroma"), local_files_only=True)
    model: Any = model_of(pipe)(height=32, width=32)
    assert model.task("image-to-image") is pipe
    with pytest.raises(InputError, match="diffusers has no inpainting pipeline for ChromaImg2ImgPipeline"):
        model.task("inpainting")


def test_a_variance_that_the_network_predicts(draw: Draw, caplog: pytest.LogCaptureFixture, tiny: Tiny) -> None:
    """DDPM reads it in the pipeline's own call, and is else said not to."""
    few = {"steps": 5, "num_samples": 1, "batch_size": 1, "prompt": "a cat"}
    own = {"name": "diffusers", "_target_": None}

    def said(**changes: Any) -> tuple[Tensor, str]:
        caplog.clear()
        found = drawn(draw("kandinsky22", **few, **changes))
        return found, " ".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")

    pipe: Any = AutoPipelineForText2Image.from_pretrained(tiny("kandinsky22"), local_files_only=True)
    assert pipe.scheduler.config["variance_type"] == "learned_range"
    stream = [torch.Generator().manual_seed(sample_seed(0, 0))]
    size = {"height": 32, "width": 32, "output_type": "np"}
    images = pipe("a cat", generator=stream, num_inference_steps=5, **size).images
    theirs = torch.from_numpy(images).permute(0, 3, 1, 2)
    line = "the one that the network predicts (variance_type=learned_range) is not used"
    for scheduler in (own, "ddpm"):
        whole, warning = said(scheduler=scheduler, loop="pipeline")
        assert psnr(whole, theirs) > 60 and line not in warning
        direct, warning = said(scheduler=scheduler)
        assert psnr(direct, theirs) < 50 and f"{line}, so that" in warning and "loop=pipeline uses it" in warning
    assert line not in said(scheduler="ddim")[1]
    chosen = {"name": "ddpm", "variance": "fixed_small"}
    assert line in said(scheduler=chosen, loop="pipeline")[1]
