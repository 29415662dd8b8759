"""What the images of a run say about it."""

import io
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffexp.experiment.folder import RunFolder
from diffexp.experiment.image_text import again, run_texts, sample_texts, with_texts, without_texts
from diffexp.experiment.stores.base import decode, encode
from diffexp.experiment.stores.tar import TarStore
from tests.runs import PICTURES, record

RECORD = {
    "command": "python -m diffexp 'prompt=a fox, red' seed=7 hydra.run.dir=/there resume=old workers=2",
    "seed": 7,
    "versions": {"diffexp": "0.1.0"},
    "config": {
        "steps": 20,
        "prompt": ["a fox, red", "ein Fuchs \N{FOX FACE}\nzwei"],
        "negative_prompt": "blur",
        "guidance_scale": 7.5,
        "label": None,
        "scheduler": {"name": "ddim"},
        "grid": {"name": "karras"},
        "model": {"name": "sd15"},
    },
}


def texts(file: Path | io.BytesIO) -> dict[str, str]:
    with Image.open(file) as image:
        return {str(key): value for key, value in image.info.items() if isinstance(value, str)}


def test_a_sample_has_the_texts_that_other_programs_read():
    found = sample_texts(RECORD)(1)
    assert found["parameters"] == (
        "ein Fuchs \N{FOX FACE}\nzwei\nNegative prompt: blur\n"
        "Steps: 20, Sampler: ddim, Schedule type: karras, CFG scale: 7.5, Seed: 7, Model: sd15, "
        "Version: diffexp 0.1.0, Sample: 1"
    )
    assert found["command"] == "python -m diffexp 'prompt=a fox, red' seed=7", "nothing about the place of the run"
    assert (found["seed"], found["scheduler"], found["sample"]) == ("7", "ddim", "1")
    assert sample_texts(RECORD)(2)["parameters"].startswith("a fox, red\nNegative prompt: blur\n")
    assert "sample" not in run_texts(RECORD)


def test_texts_replace_texts_and_change_no_pixel():
    pixels = (torch.rand(3, 9, 7) * 255).to(torch.uint8)
    png = encode(pixels)
    first = with_texts(png, {"command": "a" * 3000, "seed": "1"})
    second = with_texts(first, sample_texts(RECORD)(1))
    assert torch.equal(decode(second), pixels)
    assert texts(io.BytesIO(second)) == sample_texts(RECORD)(1), "and none of the first"
    assert with_texts(second, {}) == second and without_texts(second) == png
    assert len(second) - len(png) < 1200 and second[-12:] == png[-12:]


@pytest.mark.parametrize("kind", ["png", "tar"])
def test_every_image_of_a_run_says_how_it_is_made(run, kind: str):
    folder = run(*PICTURES, "scheduler=euler", "seed=3", f"samples={kind}").folder
    expected = {"seed": "3", "scheduler": "euler", "command": again(record(folder)["command"])}
    files: list[Path | io.BytesIO] = [folder / "grid.png", folder / "trajectory.png"]
    if kind == "png":
        files += [folder / "samples" / "000005.png"]
    else:
        files += [io.BytesIO(TarStore(folder / "samples").png(5))]
    for file in files:
        found = texts(file)
        assert expected.items() <= found.items()
        assert "Steps: 5, Sampler: euler" in found["parameters"]
    assert texts(files[-1])["sample"] == "5"
    with Image.open(folder / "trajectory.gif") as film:
        assert film.info["comment"].decode() == expected["command"]


def test_copied_samples_have_the_texts_of_their_own_run(run, tmp_path: Path):
    first = run(*PICTURES, "seed=3").folder
    words = ["batch_size=7", f"resume={first}"]
    second = run(*PICTURES[:-1], "seed=3", *words).folder
    one, other = (folder / "samples" / "000002.png" for folder in (first, second))
    assert torch.equal(RunFolder(first).finished_images()[2], RunFolder(second).finished_images()[2])
    assert texts(one)["sample"] == texts(other)["sample"] == "2"
    assert texts(other)["command"] == again(record(second)["command"])


def test_a_command_with_an_open_quotation_is_kept():
    assert again("python -m diffexp 'prompt=a") == "python -m diffexp 'prompt=a"
    assert shlex.split(again("python -m diffexp 'prompt=it'\"'\"'s'"))[-1] == "prompt=it's"
