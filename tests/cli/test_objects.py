"""``diffexp.run(model=object)``: models of diffexp and pipelines of diffusers, as they are in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DiffusionPipeline

import diffexp
from diffexp.catalog.discover import discover
from diffexp.cli.command import run_command
from diffexp.errors import InputError
from tests.checkpoints import tiny_unet
from tests.runs import network, raise_at, same_but_for_rounding

FAST: dict[str, Any] = {"num_samples": 3, "tracker": "none", "metric": ["cost"], "steps": 2, "snapshot_every": 0}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mixture(**options: Any) -> diffexp.Model:
    return diffexp.mixture(diffexp.Runtime(), **options)


def samples(result: diffexp.RunResult) -> torch.Tensor:
    return torch.stack(list(result.samples.values()))


def test_a_model_object_draws_what_its_name_draws_and_is_recorded_as_an_object() -> None:
    known = set(discover().entries)
    result = diffexp.run(model=mixture(), **FAST)
    assert torch.equal(samples(result), samples(diffexp.run(model="mixture", **FAST)))
    node = result.config["model"]
    assert node["name"].startswith("object-MixtureModel-") and node["class"].endswith(".mixture.MixtureModel")
    assert result.record["model_id"] == "mixture" and result.plan is not None
    assert set(discover().entries) == known, "the name ends with the call"


def test_an_object_is_no_name_for_later(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = diffexp.run(model=mixture(), **FAST)
    name = first.config["model"]["name"]
    for words in ([f"model={name}"], [f"resume={first.folder}"]):
        assert run_command(words) == 2
        error = capsys.readouterr().err
        assert f"model={name} is an object from Python" in error and error.count("\n") == 1
    again = diffexp.run(model=mixture(), resume=first.folder, **FAST)
    assert torch.equal(samples(again), samples(first)), "the same object under the same name"
    with pytest.raises(InputError, match=r"model\.name was .* and is now .*, which gives other samples"):
        diffexp.run(model=mixture(schedule="ve"), resume=first.folder, **FAST)


def test_a_sweep_over_objects_and_names() -> None:
    swept = diffexp.sweep(model=[mixture(), "mixture", mixture(schedule="flow")], scheduler=["ddim", "heun"], **FAST)
    assert [run.status for run in swept.runs] == ["done"] * 6
    one, name, other = (samples(run) for run in swept.runs[::2])
    assert torch.equal(one, name) and not torch.equal(one, other)
    assert len({run.config["model"]["name"] for run in swept.runs}) == 3


def test_a_sweep_over_objects_is_resumed_with_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        network(patch, raise_at(2, KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt) as stopped:
            diffexp.sweep(model=[mixture(), mixture(schedule="flow")], hydra={"launcher": {"batch": 3}}, **FAST)
    folder = Path(str(stopped.value))
    with pytest.raises(InputError, match="is an object from Python"):
        diffexp.sweep(resume=folder)
    swept = diffexp.sweep(model=[mixture(), mixture(schedule="flow")], resume=folder)
    assert swept.folder == folder and [run.status for run in swept.runs] == ["done"] * 2


def test_a_users_model_and_its_file() -> None:
    class Whole(type(mixture())):
        @property
        def weights_sha256(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
            return "f" * 64

    fields = mixture()
    whole = Whole(**{name: getattr(fields, name) for name in fields.__dataclass_fields__})  # pyright: ignore
    result = diffexp.run(model=whole, **FAST)
    assert result.config["model"]["name"] == "object-Whole-ffffffff"
    assert result.record["weights_sha256"] == "f" * 64
    (plugin,) = result.record["plugins"]
    assert Path(plugin["path"]) == Path(__file__) and (result.folder / plugin["copy"]).is_file()


def test_an_unconditional_pipeline(checkpoint: Path) -> None:
    pipe = DDPMPipeline(unet=tiny_unet(), scheduler=DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    result = diffexp.run(model=pipe, scheduler="ddim", **FAST)
    assert result.config["model"]["class"].endswith(".DDPMPipeline")
    assert len(result.record["weights_sha256"]) == 64 and len(result.images) == 3
    assert isinstance(pipe.scheduler, DDPMScheduler), "it is left as it was"
    changed = DDPMPipeline(unet=tiny_unet(), scheduler=DDPMScheduler())
    with torch.no_grad():
        next(changed.unet.parameters()).add_(1.0)
    other = diffexp.run(model=changed, scheduler="ddim", **FAST)
    assert other.record["weights_sha256"] != result.record["weights_sha256"]


@pytest.mark.parametrize("loop", ["denoise", "pipeline"])
def test_a_text_to_image_pipeline_draws_as_its_checkpoint(loop: str, tiny: Callable[[str], Path]) -> None:
    pipe = DiffusionPipeline.from_pretrained(tiny("sd15"), local_files_only=True)
    words = {**FAST, "num_samples": None, "prompt": ["a cat, sitting", "a dog"], "loop": loop}
    ours = diffexp.run(model=pipe, **words)
    theirs = diffexp.run(model={"name": "pipeline", "id": tiny("sd15")}, **words)
    assert len(ours.images) == 2
    assert same_but_for_rounding(samples(ours), samples(theirs))


def test_any_pipeline_is_evaluated_through_its_own_call(tiny: Callable[[str], Path]) -> None:
    pipe = DiffusionPipeline.from_pretrained(tiny("flux"), local_files_only=True)
    stock, words = pipe.scheduler, FAST | {"num_samples": 1, "prompt": "a cat"}
    model = {"name": pipe, "height": 32, "width": 32}
    results = [diffexp.run(model=model, scheduler="unipc", loop=loop, **words) for loop in ("denoise", "pipeline")]
    assert same_but_for_rounding(*map(samples, results)) and results[0].images[0].size == (32, 32)
    assert pipe.scheduler is stock, "it is left as it was"
    longer = diffexp.run(model=model, scheduler="unipc", pipe={"max_sequence_length": 7}, **words)
    assert longer.config["pipe"] == {"max_sequence_length": 7}
    with pytest.raises(InputError, match="pipe.max_sequence_lenght: FluxPipeline takes no .*'max_sequence_length'"):
        diffexp.run(model=model, pipe={"max_sequence_lenght": 7}, **words)
    with pytest.raises(InputError, match="pipe.sigmas is not free: write grid.sigmas=..."):
        diffexp.run(model=model, pipe={"sigmas": [1.0]}, **words)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"model": torch.nn.Linear(1, 1)}, "a Linear is neither a pipeline of diffusers nor a model of diffexp"),
        ({"model": object()}, "is no value of a config"),
        ({"scheduler": DDIMScheduler()}, "which only model= takes; register it with @diffexp.scheduler"),
        ({"model": mixture(), "workers": 2, "batch_size": 1}, "a model object cannot be handed to other processes"),
        ({"model": mixture(), "hydra/launcher": "local"}, "a model object cannot be handed to other processes"),
        ({"model": mixture(), "dtype": "float32"}, "dtype=float32 has no effect on a model object"),
        ({"model": {"name": mixture(), "heigth": 3}}, "model.heigth"),
    ],
)
def test_what_cannot_be_a_model(keywords: dict[str, Any], message: str, place: Path) -> None:
    with pytest.raises(InputError) as caught:
        diffexp.run(**FAST | keywords)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(place.glob("outputs/*/*/run.json"))
