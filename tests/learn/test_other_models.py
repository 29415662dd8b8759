"""Learning for other networks and losses than the usual ones."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import diffexp
from diffexp.cli.learn import run_command
from diffexp.errors import InputError
from diffexp.plan.table import Plan
from tests.checkpoints import save_unet, tiny_digits_unet, tiny_unet

FEW = ["steps=3", "train=24", "valid=16", "batch=24", "iterations=3", "test=0"]


@pytest.fixture(scope="module", autouse=True)
def no_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def learned(words: list[str], out: Path) -> tuple[Plan, float, float]:
    """The plan, and its score at the start and at its best, in dB or as a distance of features."""
    assert run_command([*FEW, *words, f"out={out}"]) == 0
    plan = diffexp.load_plan(out)
    assert plan.origin is not None
    return plan, plan.origin["score"]["at_start"], plan.origin["score"]["best"]


def test_a_checkpoint_of_another_prediction_and_schedule(tmp_path: Path) -> None:
    """With velocities and cosine betas; in float32, whatever the processor prefers."""
    scheduler = {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"}
    folder = save_unet(tmp_path / "net", tiny_unet(), **scheduler)
    plan, before, after = learned(["model=hub", f"model.id={folder}", "device=cpu"], tmp_path / "out")
    assert after > before and plan.nfe == 3 and (plan.origin or {})["dtype"] == "float32"
    assert plan.sha256 != (plan.origin or {})["start"]["sha256"]


@pytest.mark.parametrize("method", ["gauss_newton", "endpoint"])
@pytest.mark.parametrize("loss", ["features", "distribution"])
def test_losses_in_the_features_of_the_metric(loss: str, method: str, tmp_path: Path, digits: Path) -> None:
    words = ["model=mnist", f"model.weights={digits}", f"loss={loss}", f"method={method}", "learning_rate=0.005"]
    plan, before, after = learned(words, tmp_path / "out")
    assert after < before  # a distance
    assert all(torch.tensor(row.m or row.d).isfinite().all() for row in plan.rows)
    assert (plan.origin or {})["settings"]["loss"] == loss


def test_a_learned_plan_cannot_begin_in_the_middle(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (32, 32)).save("digit.png")
    loop = {"name": "img2img", "image": "digit.png"}
    with pytest.raises(InputError, match="learned is a finished plan, which cannot begin in the middle"):
        diffexp.run(model="mnist", loop=loop, scheduler="learned", steps=3, metric="none", tracker="none")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A tiny network that takes what the shipped one takes."""
    return save_unet(tmp_path_factory.mktemp("net") / "net", tiny_digits_unet())
