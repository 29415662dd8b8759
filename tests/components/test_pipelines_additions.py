"""What goes on top of a pipeline: ControlNet, LoRA, IP-Adapter; and what diffusers draws with the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image
from safetensors.torch import save_file

from diffexp.catalog.discover import Catalog
from diffexp.components.pixels import to_image
from diffexp.errors import InputError
from diffexp.experiment.run import run_experiment
from diffexp.plan.noise import sample_seed
from tests.families.stable_diffusion import load_ip_adapter, random_controlnet, save_ip_adapter
from tests.pipeline_runs import COMMON, PROMPTS, Tiny, drawn, psnr

Draw = Callable[..., torch.Tensor]


@pytest.fixture
def draw(catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path: Path) -> Draw:
    """A run of the SD checkpoint: options of the model as keywords."""

    def draw(loop: dict[str, Any] | None = None, **options: Any) -> torch.Tensor:
        config = compose(*COMMON)
        model = config["model"] | {"id": str(tiny("sd15"))} | options
        changes = {"model": model, "prompt": PROMPTS, "loop": {"name": "pipeline"} | (loop or {})}
        return drawn(run_experiment(config | changes, tmp_path / str(len(list(tmp_path.iterdir()))), catalog))

    return draw


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    to_image(torch.linspace(0, 1, 32).expand(3, 32, 32)).save(file)
    return file


def by_diffusers(pipe: Any, **call: Any) -> torch.Tensor:
    from diffusers import DDIMScheduler

    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    streams = [torch.Generator().manual_seed(sample_seed(0, i)) for i in range(2)]
    pictures = pipe(PROMPTS, num_inference_steps=5, generator=streams, output_type="np", **call).images
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def test_a_controlnet_is_shown_a_picture(draw: Draw, tiny: Tiny, tmp_path: Path, picture: Path) -> None:
    pipe = StableDiffusionPipeline.from_pretrained(tiny("sd15"), local_files_only=True)
    net = random_controlnet(pipe.unet)
    net.save_pretrained(tmp_path / "controlnet")
    node = {"control_image": str(picture), "control_scale": 0.7}
    ours = draw(node, controlnet=str(tmp_path / "controlnet"))
    theirs: Any = StableDiffusionControlNetPipeline(**pipe.components, controlnet=net, requires_safety_checker=False)
    shown = [Image.open(picture)] * 2
    expected = by_diffusers(theirs, image=shown, controlnet_conditioning_scale=0.7, height=32, width=32)
    assert psnr(ours, expected) > 50
    assert psnr(ours, draw()) < 45
    with pytest.raises(InputError, match="model.controlnet needs an image: add loop.control_image="):
        draw(controlnet=str(tmp_path / "controlnet"))


def test_an_ip_adapter_is_shown_a_picture(draw: Draw, tiny: Tiny, tmp_path: Path, picture: Path) -> None:
    pipe: Any = StableDiffusionPipeline.from_pretrained(tiny("sd15"), local_files_only=True)
    save_ip_adapter(tmp_path / "adapter" / "models", pipe.unet)
    options = {"ip_adapter": str(tmp_path / "adapter"), "ip_adapter_scale": 0.8}
    ours = draw({"ip_adapter_image": str(picture)}, **options)
    load_ip_adapter(pipe, tmp_path / "adapter")
    assert psnr(ours, by_diffusers(pipe, ip_adapter_image=Image.open(picture))) > 50
    with pytest.raises(InputError, match="model.ip_adapter needs an image: add loop.ip_adapter_image="):
        draw(**options)
    assert psnr(ours, draw()) < 45


@pytest.mark.parametrize("loop", ["pipeline", "denoise"])
def test_a_lora_changes_the_weights(draw: Draw, tiny: Tiny, tmp_path: Path, loop: str) -> None:
    pytest.importorskip("peft")
    pipe: Any = StableDiffusionPipeline.from_pretrained(tiny("sd15"), local_files_only=True)
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    for name, layer in pipe.unet.named_modules():
        if name.endswith(("attn1.to_q", "attn2.to_v")):
            weights[f"unet.{name}.lora_A.weight"] = torch.randn(2, layer.in_features)
            weights[f"unet.{name}.lora_B.weight"] = torch.randn(layer.out_features, 2) * 0.5
    (tmp_path / "lora").mkdir()
    save_file(weights, tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    ours = draw({"name": loop}, lora=str(tmp_path / "lora"), lora_scale=0.5)
    pipe.load_lora_weights(
        str(tmp_path / "lora"), weight_name="pytorch_lora_weights.safetensors", local_files_only=True
    )
    expected = by_diffusers(pipe, cross_attention_kwargs={"scale": 0.5})
    assert psnr(ours, expected) > 50
    assert psnr(ours, draw({"name": loop})) < 45


def test_a_checkpoint_made_for_inpainting(draw: Draw, tiny: Tiny, tmp_path: Path, picture: Path) -> None:
    mask = tmp_path / "mask.png"
    to_image((torch.arange(32) < 16).float().expand(1, 32, 32)).save(mask)
    made_for_it = {"id": str(tiny("sd_inpainting"))}
    shown = {"image": str(picture), "mask": str(mask)}
    ours = draw(shown | {"strength": 1.0}, **made_for_it)
    pipe = StableDiffusionInpaintPipeline.from_pretrained(tiny("sd_inpainting"), local_files_only=True)
    images = [Image.open(file) for file in (picture, mask)]
    expected = by_diffusers(pipe, image=[images[0]] * 2, mask_image=[images[1]] * 2, strength=1.0, height=32, width=32)
    assert psnr(ours, expected) > 50
    with pytest.raises(InputError, match="whose UNet takes 9 channels"):
        draw({"name": "inpaint"} | shown, **made_for_it)
    for loop in ({}, {"image": str(picture)}):
        with pytest.raises(InputError, match="is made for inpainting: add loop.image=... and loop.mask=..."):
            draw(loop, **made_for_it)


def test_large_pictures_are_decoded_in_tiles(draw: Draw) -> None:
    assert psnr(draw({"name": "denoise"}, vae_tiling=True, vae_slicing=True), draw({"name": "denoise"})) > 50
