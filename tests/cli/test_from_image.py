"""``--from-image``: the command that makes an image again."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffexp.catalog.discover import discover
from diffexp.cli import run_command
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.experiment.image_text import run_texts

A1111 = (
    "a (red:1.2) fox, 'quoted' \\(artist\\), ${not} [one|two]\nsecond line\nNegative prompt: blur, @low\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1234, Size: 512x768, "
    'Model hash: 6ce0161689, Model: v1-5-pruned, Clip skip: 2, Lora hashes: "a: 1, b: 2", Version: v1.10.1'
)
WORDS = [
    *("model=pipeline", "model.id=v1-5-pruned.safetensors", "scheduler=dpmpp_2m", "grid=karras"),
    *("model.width=512", "model.height=768", "steps=20", "guidance_scale=7.5", "seed=1234"),
]
GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5,
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "euler_ancestral",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["10", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 1024, "batch_size": 2}},
    "6": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["8", 0]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["4", 1]}},
    "8": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bottle, glass", "clip": ["4", 1]}},
    "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "x", "model": ["4", 0], "clip": ["4", 1]}},
}


def picture(file: Path, **texts: str) -> Path:
    info = PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    Image.new("RGB", (4, 4)).save(file, pnginfo=info)
    return file


def printed(file: Path, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """The words of the command after ``python -m diffexp``, and the notes."""
    assert run_command(["--from-image", str(file)]) == 0
    out, notes = capsys.readouterr()
    assert out.startswith("python -m diffexp ") and out.count("\n") == 1, "one line"
    return shlex.split(out)[3:], notes


def test_the_command_of_an_image_of_our_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = shlex.join(["python", "-m", "diffexp", "prompt='it\\'s; rm -rf /, ok'", "seed=3", "resume=old"])
    record = {"command": command, "seed": 3, "config": {"scheduler": {"name": "ddim"}}}
    file = picture(tmp_path / "x y.png", **run_texts(record))
    words, notes = printed(file, capsys)
    assert words == ["prompt='it\\'s; rm -rf /, ok'", "seed=3"] and notes == ""
    assert run_command([f"--from-image={file}"]) == 0
    assert shlex.split(capsys.readouterr().out)[3:] == words


def test_the_comment_of_a_gif(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Image.new("L", (4, 4)).save(tmp_path / "x.gif", comment=b"python -m diffexp steps=7")
    assert printed(tmp_path / "x.gif", capsys) == (["steps=7"], "")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_settings_of_automatic1111_are_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str):
    file = tmp_path / f"x{suffix}"
    if suffix == ".png":
        picture(file, parameters=A1111)
    else:
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + A1111.encode("utf-16-be")
        Image.new("RGB", (4, 4)).save(file, exif=exif)
    assert run_command(["--from-image", str(file)]) == 0
    out, notes = capsys.readouterr()
    assert out.count("\n") == 1 and out.startswith(f"python -m diffexp {shlex.join(WORDS)} ")
    assert "not translated: Clip skip: 2, Lora hashes: a: 1, b: 2" in notes and "not the same" in notes
    rest = out.removeprefix(f"python -m diffexp {shlex.join(WORDS)} ").strip()
    assert rest.startswith("$'prompt=") and rest.endswith("'negative_prompt='\"'\"'blur, @low'\"'\"''")
    assert "second line" in rest


def test_its_prompts_are_understood_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = A1111.replace("\nsecond line", "")
    words, _ = printed(picture(tmp_path / "x.png", parameters=text), capsys)
    with hydra_session(discover()) as loader:
        checked = Preflight(loader, discover()).check(["model=sd15", *words[2:]], multirun=False)
    assert checked.config.prompt == "a (red:1.2) fox, 'quoted' \\(artist\\), ${not} [one|two]"
    assert (checked.config.negative_prompt, checked.config.seed) == ("blur, @low", 1234)
    assert (checked.config.scheduler.name, checked.config.grid.name) == ("dpmpp_2m", "karras")


def test_a_graph_of_comfyui_is_translated(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words, notes = printed(picture(tmp_path / "x.png", prompt=json.dumps(GRAPH)), capsys)
    assert words == [
        *("model=pipeline", "model.id=sd_xl_base_1.0.safetensors", "scheduler=euler_ancestral", "grid=karras"),
        *("model.width=1024", "model.height=1024", "steps=25", "guidance_scale=6.5", "seed=5", "num_samples=2"),
        *("prompt='a bottle, glass'", "negative_prompt='watermark'"),
    ]
    assert "not translated" not in notes


SAMPLERS = {
    ("Euler a", ""): ["scheduler=euler_ancestral"],
    ("DPM++ 2M Karras", ""): ["scheduler=dpmpp_2m", "grid=karras"],
    ("DPM++ SDE", "Exponential"): ["scheduler=dpmpp_sde", "grid=exponential"],
    ("PLMS", "Automatic"): ["scheduler=pndm"],
    ("UniPC", "SGM Uniform"): ["scheduler=unipc", "grid=sgm_uniform"],
    ("DDIM", "Beta"): ["scheduler=ddim", "grid=beta"],
    ("DPM fast", ""): [],
}


@pytest.mark.parametrize(("names", "expected"), SAMPLERS.items(), ids=[" ".join(names) for names in SAMPLERS])
def test_samplers_of_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, str], expected: list[str]
):
    sampler, spacing = names
    text = f"fox\nSteps: 5, Sampler: {sampler}, " + (f"Schedule type: {spacing}, " if spacing else "") + "Seed: 1"
    words, notes = printed(picture(tmp_path / "x.png", parameters=text), capsys)
    assert words == [*expected, "steps=5", "seed=1", "prompt='fox'"]
    assert "add model=..." in notes
    assert (f"Sampler: {sampler}" in notes) == (not expected)


def broken(folder: Path) -> dict[Path, str]:
    whole = picture(folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[:45])
    (folder / "text.png").write_text("not an image")
    (folder / "empty.png").touch()
    picture(folder / "other.png", Software="GIMP", prompt="{not json", parameters="a fox", command="rm -rf /")
    picture(folder / "deep.png", prompt="[" * 100_000)
    picture(folder / "graph.png", prompt=json.dumps({"1": {"class_type": "KSampler", "inputs": []}, "2": 3}))
    return {
        folder / "none.png": "there is no such file",
        folder: "is a folder; give an image",
        folder / "text.png": "is not an image",
        folder / "empty.png": "is not an image",
        folder / "cut.png": "is damaged",
        folder / "other.png": "does not say how it was made",
        folder / "deep.png": "does not say how it was made",
        folder / "graph.png": "does not say how it was made",
    }


def test_other_files_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for file, told in broken(tmp_path).items():
        assert run_command(["--from-image", str(file)]) == 2, file
        out, error = capsys.readouterr()
        assert out == "" and error.count("\n") == 1 and error.startswith(f"error: {file}") and told in error, error
    for arguments in (["--from-image"], ["--from-image", "a.png", "steps=5"], ["steps=5", "--from-image=a.png"]):
        assert run_command(arguments) == 2
        assert "takes an image file and nothing else" in capsys.readouterr().err
