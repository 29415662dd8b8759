"""What decides how a sample of a text-to-image model looks, and what a run of one leaves behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffexp.catalog.discover import Catalog
from diffexp.components.models.base import Request
from diffexp.components.prompts import read_texts
from diffexp.errors import InputError
from diffexp.experiment.pictures.previews import latents_to_rgb
from diffexp.experiment.pictures.strips import Snapshot
from diffexp.plan.levels import Level
from diffexp.plan.noise import SampleNoise
from tests.pipeline_runs import COMMON, Draw, Tiny, by_diffusers, drawn, psnr, studio
from tests.runs import images, record

OTHER_GUIDANCE = {"name": "mine", "_target_": "diffexp.components.guidance.cfg.cfg"}


@pytest.fixture(scope="module")
def draw(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Draw:
    return studio(catalog, compose(*COMMON), tiny, tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("loop", ["denoise", "pipeline"])
@pytest.mark.parametrize("family", ["sd15", "sdxl", "kandinsky22"])
def test_a_sample_does_not_depend_on_its_batch(draw: Draw, family: str, loop: str) -> None:
    """With a stochastic scheduler, and Kandinsky's prior, which draws too."""
    chosen = {"scheduler": "ddpm", "loop": loop, "num_samples": 3, "steps": 3}
    together, alone = drawn(draw(family, batch_size=3, **chosen)), drawn(draw(family, batch_size=1, **chosen))
    assert psnr(together, alone) > 60
    assert psnr(together[0], together[2]) < 30  # the same prompt, another noise
    assert psnr(together, drawn(draw(family, batch_size=3, seed=1, **chosen))) < 30


@pytest.mark.parametrize("loop", ["denoise", "pipeline"])
def test_prompts_and_guidance_count(draw: Draw, loop: str) -> None:
    def sample(**changes: Any) -> torch.Tensor:
        return drawn(draw("sd15", loop=loop, **{"num_samples": 1, "prompt": "a cat"} | changes))

    plain = sample()
    assert psnr(plain, sample(prompt=["a cat", "a dog"])) > 100  # sample 1 would be the dog
    for changes in ({"prompt": "a dog"}, {"negative_prompt": "a dog"}, {"guidance_scale": 1.0}, {"guidance": "none"}):
        assert psnr(plain, sample(**changes)) < 45
    assert psnr(sample(guidance_scale=1.0), sample(guidance="none")) > 100


def test_negative_prompts_are_those_of_diffusers(draw: Draw, tiny: Tiny) -> None:
    call = {"negative_prompt": ["a tree", "a house"]}
    for family in ("sd15", "sdxl"):
        ours = drawn(draw(family, negative_prompt=["a tree", "a house"]))
        assert psnr(ours, by_diffusers(tiny(family), "DDIMScheduler", call=call)) > 50
    one, other = (drawn(draw("kandinsky22", negative_prompt="a tree", loop=loop)) for loop in ("denoise", "pipeline"))
    assert psnr(one, other) > 60 and psnr(one, drawn(draw("kandinsky22"))) < 45


def test_a_distilled_model_says_how_to_make_it_read_negative_prompts(draw: Draw, tiny: Tiny) -> None:
    with pytest.raises(InputError, match="FluxPipeline reads negative_prompt only with loop.true_cfg_scale above 1"):
        draw("flux", negative_prompt="a tree", loop="pipeline")
    ours = drawn(draw("flux", negative_prompt="a tree", loop={"name": "pipeline", "true_cfg_scale": 3.0}))
    call = {"negative_prompt": ["a tree"] * 2, "true_cfg_scale": 3.0}
    assert psnr(ours, by_diffusers(tiny("flux"), "FlowMatchEulerDiscreteScheduler", call=call)) > 50


def test_pictures_of_another_size(draw: Draw, tiny: Tiny, compose: Callable[..., dict[str, Any]]) -> None:
    model = compose(*COMMON)["model"] | {"id": str(tiny("sdxl")), "height": 48, "width": 24}
    for loop in ("denoise", "pipeline"):
        result = draw("sdxl", model=model, loop=loop, num_samples=1)
        assert images(result.folder)[0].shape == (3, 48, 24)


@pytest.mark.parametrize(
    ("family", "loop", "passes"),
    [("sd15", "denoise", 10), ("sd15", "pipeline", 10), ("sd3", "pipeline", 10), ("flux", "pipeline", 5)],
)
def test_forward_passes_of_a_pipeline_are_those_of_its_network(draw: Draw, family: str, loop: str, passes: int) -> None:
    """Flux takes the scale as an input; a negative prompt with another scale makes it guide as others do."""
    assert record(draw(family, loop=loop).folder)["forward_passes"] == passes
    if family == "flux":
        guided = draw(family, negative_prompt="a tree", loop={"name": loop, "true_cfg_scale": 3.0})
        assert record(guided.folder)["forward_passes"] == 10


@pytest.mark.parametrize("family", ["sd15", "sd3", "flux"])
def test_a_run_leaves_a_film_in_colour(draw: Draw, family: str) -> None:
    """Latents of four channels are shown as pictures, those that Flux packs too."""
    result = draw(family, loop="denoise" if family == "sd15" else "pipeline", snapshot_every=None)
    assert {"grid.png", "trajectory.png", "trajectory.gif", "plan.csv"} <= {p.name for p in result.folder.iterdir()}
    assert record(result.folder)["nfe"] == 5
    assert record(result.folder)["plan_sha256"]


def test_latents_become_the_colours_that_fit() -> None:
    torch.manual_seed(0)
    latents, colours = torch.randn(4, 4, 8, 8), torch.tensor([[0.1, 0.05, 0, 0], [0, 0, 0.1, 0], [0, 0.1, 0, 0.1]])
    small = torch.einsum("dc,nchw->ndhw", colours, latents)
    pictures = torch.nn.functional.interpolate(small, scale_factor=2) / 2 + 0.5
    level = Level(1.0, 1.0, 0.0)
    noisy, last = (Snapshot(step, 2, level, latents * (2 - step), latents) for step in (0, 1))
    shown = latents_to_rgb([noisy, last, Snapshot(2, 2, level, pictures, pictures)], pictures)
    torch.testing.assert_close(shown[1].x, small, atol=0.02, rtol=0.02)
    torch.testing.assert_close(shown[0].x, 2 * small, atol=0.05, rtol=0.02)
    assert shown[2].x is pictures
    assert latents_to_rgb([last], None) == [last]


def test_conditions_are_computed_once_for_a_prompt(draw: Draw, catalog: Catalog, tiny: Tiny) -> None:
    from diffexp.components.models.base import Runtime

    model = catalog.build("model", {"name": "pipeline", "id": str(tiny("sd15"))})(Runtime())
    condition = model.conditions(Request(prompt=["a cat", "a dog"]), range(3))
    assert condition.captions == ["a cat", "a dog", "a cat"]
    states = condition.positive["encoder_hidden_states"]
    assert states.shape[0] == 3 and torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])
    assert condition.negative is not None and condition.negative["encoder_hidden_states"].shape == states.shape
    assert condition.drawn(SampleNoise(0, [0], (1,)).generators) is condition


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": None}, 'needs a text: add prompt="'),
        ({"label": 3}, "label=3: .* takes no label; write prompt="),
        (
            {"guidance": OTHER_GUIDANCE, "loop": "pipeline"},
            "uses the guidance of the pipeline; guidance=mine needs loop=denoise",
        ),
        ({"loop": {"name": "pipeline", "strength": 0.5}}, "takes no strength; leave the loop's option out"),
        ({"loop": {"name": "pipeline", "mask": "mask.png"}}, "loop.mask needs loop.image"),
        ({"loop": {"name": "pipeline", "image": "nowhere.png"}}, "loop.image=nowhere.png: no such file"),
        ({"loop": {"name": "pipeline", "image": "a.png", "strength": 2}}, "loop.strength=2 must be greater than 0"),
        ({"loop": {"name": "pipeline", "image": "a.png", "strength": 0.1}}, "leaves no step; give at least 0.2"),
        ({"loop": {"name": "pipeline", "true_cfg_scale": 2.0}}, "StableDiffusionPipeline takes no true_cfg_scale"),
        (
            {"loop": {"name": "pipeline", "control_image": "x.png"}},
            "needs a model that reads it: add model.controlnet=",
        ),
        ({"loop": {"name": "pipeline", "ip_adapter_image": "x.png"}}, "that reads it: add model.ip_adapter="),
    ],
)
def test_what_cannot_be_asked(draw: Draw, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        draw("sd15", **changes)
    assert "\n" not in str(caught.value)


def test_a_solver_that_is_no_table_draws_with_the_whole_pipeline(draw: Draw) -> None:
    outside = drawn(draw("sd15", scheduler="curved", loop="pipeline", batch_size=1))
    assert psnr(outside, drawn(draw("sd15", scheduler="curved", batch_size=1))) > 60


def test_a_class_that_is_no_table_is_handed_over_itself(draw: Draw, tiny: Tiny) -> None:
    options = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}
    node = {"name": "diffusers/ddim", **options}
    outside = drawn(draw("sd15", scheduler=node, loop="pipeline"))
    assert psnr(outside, by_diffusers(tiny("sd15"), "DDIMScheduler", **options)) > 50
    assert psnr(outside, drawn(draw("sd15", scheduler=node))) > 50
    assert psnr(outside, drawn(draw("sd15"))) < 45


def test_texts_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("an astronaut\n\n  a horse, riding  \n")
    assert read_texts("prompt", f"@{file}") == ["an astronaut", "a horse, riding"]
    assert read_texts("prompt", "@@home") == "@home"
    assert read_texts("prompt", ["a", "b"]) == ["a", "b"]
    assert read_texts("prompt", None) is None
    file.write_text("\n")
    for value, message in ((f"@{file}", "is empty"), ("@nowhere.txt", "cannot be read: No such file")):
        with pytest.raises(InputError, match=message):
            read_texts("prompt", value)
