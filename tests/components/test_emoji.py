"""``model=emoji``, the text-to-image model that ships: its own pipelines in diffusers draw what our loops draw."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image
from torch import Tensor

import diffexp
from diffexp.catalog.discover import Catalog
from diffexp.catalog.kinds import KINDS
from diffexp.experiment.run import RunResult, run_experiment
from diffexp.plan.noise import sample_seed
from tests.pipeline_runs import Kept, psnr
from tests.runs import images

CLASSES = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "dpm2_ancestral": "KDPM2AncestralDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
    "dpm2": "KDPM2DiscreteScheduler",
}
"""Ten schedulers, and the class of diffusers that is the same with the checkpoint's config."""
ONE_EVALUATION = ("ddim", "euler", "dpmpp_2m")
PROMPTS = ["red heart", "grinning face, noto"]
STEPS, SCALE = 6, 4.0
Draw = Callable[..., Tensor]


@pytest.fixture(scope="module")
def draw(catalog: Catalog, compose: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """Images (2, 3, 64, 64) of the two prompts by our loops."""
    config = compose("model=emoji", "num_samples=2", "batch_size=2", "snapshot_every=0", "dtype=float32")
    config |= {"prompt": PROMPTS, "steps": STEPS, "guidance_scale": SCALE}
    context, folder = Kept(), tmp_path_factory.mktemp("runs")

    def draw(**changes: Any) -> Tensor:
        nodes = {key: {"name": v} if isinstance(v, str) and key in KINDS else v for key, v in changes.items()}
        result = run_experiment(config | nodes, folder / str(len(list(folder.iterdir()))), catalog, context=context)
        return torch.stack([image for _, image in sorted(images(result.folder).items())])

    return draw


def theirs(kind: Any, scheduler: str, **call: Any) -> Tensor:
    """Images of the two prompts by a pipeline of diffusers, with the same noise."""
    pipe = kind.from_pretrained(diffexp.emoji_folder(), local_files_only=True, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    options = {"clip_sample": False} if scheduler in ("ddim", "ddpm") else {}
    pipe.scheduler = getattr(diffusers, CLASSES[scheduler]).from_config(pipe.scheduler.config, **options)
    # The inpainting pipeline takes only networks of 4 or 9 channels, whatever the latents have; it asks the config.
    pipe.unet.register_to_config(in_channels=4 if kind is StableDiffusionInpaintPipeline else 12)
    streams = [torch.Generator().manual_seed(sample_seed(0, i)) for i in range(2)]
    if "generator" in inspect.signature(pipe.scheduler.step).parameters:
        pipe.scheduler.step = partial(pipe.scheduler.step, generator=streams)
    call |= {"num_inference_steps": STEPS, "guidance_scale": SCALE, "output_type": "np", "generator": streams}
    return torch.from_numpy(pipe(PROMPTS, **call).images).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def apple(draw: Draw, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red apple drawn by the model itself, and a mask of its upper half beside it."""
    folder = tmp_path_factory.mktemp("apple")
    drawn = draw(scheduler="dpmpp_2m", prompt="red apple, noto", steps=12)[0]
    Image.fromarray(drawn.mul(255).round().byte().permute(1, 2, 0).numpy()).save(folder / "apple.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 64, 32))
    mask.save(folder / "mask.png")
    return folder / "apple.png"


@pytest.mark.parametrize("scheduler", CLASSES)
def test_inside_outside_and_diffusers_draw_the_same(draw: Draw, scheduler: str) -> None:
    chosen = {"scheduler": scheduler, "grid": "auto"}
    inside, outside = draw(**chosen), draw(loop="pipeline", **chosen)
    assert psnr(inside, outside) > 50
    assert psnr(inside, theirs(StableDiffusionPipeline, scheduler)) > 50


@pytest.mark.parametrize("scheduler", ONE_EVALUATION)
def test_image_to_image_as_diffusers_does_it(draw: Draw, apple: Path, scheduler: str) -> None:
    loop = {"name": "img2img", "image": str(apple), "strength": 0.7}
    given = [Image.open(apple)] * 2
    ours = draw(scheduler=scheduler, grid="auto", loop=loop)
    assert psnr(ours, theirs(StableDiffusionImg2ImgPipeline, scheduler, image=given, strength=0.7)) > 50


@pytest.mark.parametrize("scheduler", ONE_EVALUATION)
def test_inpainting_as_diffusers_does_it(draw: Draw, apple: Path, scheduler: str) -> None:
    mask = apple.with_name("mask.png")
    ours = draw(scheduler=scheduler, grid="auto", loop={"name": "inpaint", "image": str(apple), "mask": str(mask)})
    call = {"image": [Image.open(apple)] * 2, "mask_image": [Image.open(mask)] * 2, "strength": 1.0}
    assert psnr(ours, theirs(StableDiffusionInpaintPipeline, scheduler, height=64, width=64, **call)) > 50


def test_colours_are_those_of_the_prompt(draw: Draw) -> None:
    """A red heart is red in the middle, a blue one blue, a green one green; the corners are white."""
    prompts = ["red heart", "blue heart", "green heart"]
    drawn = torch.cat([draw(scheduler="dpmpp_2m", prompt=prompt, steps=12) for prompt in prompts])
    middle = drawn[:, :, 24:40, 24:40].mean(dim=(2, 3))
    assert middle.argmax(dim=1).tolist() == [0, 0, 2, 2, 1, 1]
    assert drawn[:, :, -4:, :4].mean() > 0.9


def test_a_negative_prompt_takes_away(draw: Draw) -> None:
    """What the negative prompt names is avoided: a heart that must not be red loses its red."""
    plain, without = (
        draw(scheduler="dpmpp_2m", prompt="heart", steps=12, negative_prompt=given) for given in (None, "red heart")
    )

    def redness(drawn: Tensor) -> float:
        middle = drawn[:, :, 24:40, 24:40].mean(dim=(2, 3))
        return float((middle[:, 0] - middle[:, 1:].mean(dim=1)).mean())

    assert redness(without) < redness(plain) - 0.1


def test_samples_of_either_style_differ(draw: Draw) -> None:
    noto, twemoji = (draw(scheduler="dpmpp_2m", prompt=f"grinning face, {style}") for style in ("noto", "twemoji"))
    assert 5 < psnr(noto, twemoji) < 30


def test_its_measures_choose_themselves(run: Callable[..., RunResult]) -> None:
    """Metrics of colour images and of text use the networks that ship for emoji; a right drawing scores better."""
    metric = "metric=[cost,fid,kid,mind,precision_recall,clip_score,retrieval]"
    common = ("model=emoji", metric, "scheduler=dpmpp_2m", "steps=8", "num_samples=8", "snapshot_every=0")
    prompts = "prompt=[red heart,grinning face,flag france,dog face]"
    good = run(*common, prompts, "guidance_scale=4").metrics
    for name in ("fid", "kid", "mind", "precision", "recall", "clip_score", "retrieval"):
        assert isinstance(good[f"{name}/emoji"], float)
    assert good["retrieval/emoji"] >= 0.5
    bad = run(*common, prompts, "guidance_scale=0").metrics  # the prompt does not count
    assert bad["clip_score/emoji"] < good["clip_score/emoji"] - 5
