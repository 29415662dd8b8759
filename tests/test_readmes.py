"""Every command and every Python block of every README.md, read from the file and run.

A ```bash block is run in a working folder of its own, with the shipped plugins, some images and tiny checkpoints
under the hub's names; runs are cut down to two samples and a few steps. Blocks whose first line is the name of a file,
as in ``# plugins/mine.py``, are written there first. The Python blocks of a file share one namespace.
"""

import inspect
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image, ImageDraw

from diffexp.catalog.discover import discover
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.experiment import reference
from tests import fork_server
from tests.checkpoints import put_in_cache, save_pipeline, tiny_unet
from tests.clip_checkpoint import save_clip
from tests.emoji_packages import save_packages
from tests.pipeline_runs import Tiny
from tests.readmes import READMES, ROOT, Block, blocks, commands, environment, shortened
from tests.single_files import save_single_file, save_vae_file

FAMILIES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "sd15",
    "stable-diffusion-v1-5/stable-diffusion-inpainting": "sd_inpainting",
    "stabilityai/stable-diffusion-xl-base-1.0": "sdxl",
    "kandinsky-community/kandinsky-2-2-prior": "kandinsky22_prior",
    "kandinsky-community/kandinsky-2-2-decoder": "kandinsky22_decoder",
    "black-forest-labs/FLUX.1-schnell": "flux",
}
PRESETS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / "model").glob("*.yaml")}
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")
BASH = [
    pytest.param(readme, block, id=f"{readme}:{block.line}")
    for readme in READMES
    for block in blocks(readme)
    if block.language == "bash"
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the commands of the READMEs take for granted."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for workers
    monkeypatch.setattr(subprocess, "Popen", fork_server.Popen)  # and these are forked
    for variable in ("DIFFEXP_PLUGINS", "PYTHONSAFEPATH"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(reference, "STEPS", 5)  # "accurate" solutions in a twelfth of the time
    shutil.copytree(ROOT / "plugins", tmp_path / "plugins", ignore=shutil.ignore_patterns("__pycache__", "test_*"))
    picture, mask = Image.new("RGB", (32, 32), "teal"), Image.new("L", (32, 32))
    ImageDraw.Draw(picture).ellipse((6, 8, 24, 28), fill="orange")
    ImageDraw.Draw(mask).rectangle((0, 0, 15, 31), fill=255)
    picture.save("photo.png")
    mask.save("mask.png")
    Path("prompts.txt").write_text("a cat, sitting\na dog\n")
    Path("points.csv").write_text("0,1\n1,0\n-1,0.5\n")
    Path("own/experiment").mkdir(parents=True)
    Path("own/experiment/mine.yaml").write_text("# @package _global_\nsteps: 3\n")
    return tmp_path


def bring_checkpoints(text: str, tiny: Tiny, cache: Path) -> None:
    """The checkpoints that a text names, by id or by preset, under the hub's names."""
    words = set(re.split(r"[\s=,\"'`]+", text))
    named = [preset for name, preset in PRESETS.items() if name in words]
    for id in words | {preset.get(key) for preset in named for key in ("id", "prior")}:
        if id in FAMILIES:
            put_in_cache(cache, id, tiny(FAMILIES[id]))
        elif id and id.startswith("google/ddpm-"):
            put_in_cache(cache, id, save_pipeline(cache / "made" / id, tiny_unet()))
    if "clip_score" in text:
        (cache / "made" / "clip").mkdir(parents=True)
        put_in_cache(cache, "openai/clip-vit-base-patch16", save_clip(cache / "made" / "clip"))
    for key, file in re.findall(r"model\.(id|vae)=(\w+\.safetensors)", text):
        (save_single_file if key == "id" else save_vae_file)(tiny("sd15"), Path(file))


def write_files(readme: Path) -> None:
    """The files whose content the README shows."""
    for block in blocks(readme):
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.code)


def run_module(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """``python -m module arguments`` in this process; its exit code."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return 0


@pytest.mark.parametrize(("readme", "block"), BASH)
def test_its_commands_run(
    readme: Path, block: Block, place: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    bring_checkpoints(block.code, tiny, place / "hub")
    write_files(readme)
    for words in commands(block):
        variables, command = environment(words)
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            code = perform(command, patch)
        assert code == 0, f"{shlex.join(words)}\n{capfd.readouterr().err}"


def perform(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run one command, shortened, or check it where it would install or build something; the exit code."""
    match words:
        case ["time", *rest]:
            return perform(rest, monkeypatch)
        case ["python", "-m", "pytest", *files] | ["pytest", *files]:
            return int(not all((ROOT / file).exists() for file in files if not file.startswith("-")))
        case ["python", "-m", "diffexp", *rest] if {"hydra/launcher=slurm", "hydra/launcher=ray"} & {*rest}:
            return check(rest)  # there is no cluster
        case ["python", "-m", "diffexp", *rest] | ["diffexp", *rest]:
            return run_module("diffexp", shortened(rest), monkeypatch)
        case ["torchrun", "--nproc-per-node", "2", "-m", "diffexp", *rest]:  # with ranks: tests/e2e/test_shared_runs.py
            return run_module("diffexp", shortened(rest), monkeypatch)
        case ["python", script] if script.endswith(".py"):
            runpy.run_path(script)
            return 0
        case ["python", "-m", "diffexp.certify", *rest]:
            few = ["scheduler=euler" if word == "scheduler=all" else word for word in rest]
            return run_module("diffexp.certify", few, monkeypatch)
        case ["python", "-m", "diffexp.learn", *rest]:
            few = ["train=2", "valid=2", "batch=2", "test=0", "iterations=1"]
            return run_module("diffexp.learn", [*rest, *few], monkeypatch)
        case ["python", "-m", "diffexp.train", *_]:
            return train(words[3:], monkeypatch)
        case ["python", "-m", module, *rest] if module.startswith("tests.benchmarks"):
            return benchmark(module, rest, monkeypatch)
        case ["python", "-m", module, *rest]:
            return run_module(module, rest, monkeypatch)
        case ["make", *rest]:
            return make(rest, monkeypatch)
        case ["pip", "install", *rest]:
            return pip(rest)
        case ["git", "clone", *_] | ["cd", *_] | ["wandb", "sync", *_]:
            return 0
        case ["eval", completion]:
            inner = re.fullmatch(r"\$\((.*)\)", completion)
            assert inner
            return perform(shlex.split(inner[1]), monkeypatch)
    pytest.fail(f"no test knows how to run {shlex.join(words)}")


def check(words: list[str]) -> int:
    """Check the words of a run or a sweep as the command does before it starts; raises what is wrong."""
    catalog = discover()
    with hydra_session(catalog) as loader:
        Preflight(loader, catalog).check([word for word in words if word != "-m"], multirun="-m" in words)
    return 0


def train(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """On 60 images of noise, or on 44 simple drawings."""
    if any(word.startswith("task=emoji") for word in words):
        return train_emoji(words, monkeypatch)
    if "task=reference" in words:
        Path("photos").mkdir(exist_ok=True)
        for number in range(3):
            Image.new("RGB", (80, 64), (90 * number, 20, 60)).save(f"photos/{number}.png")
        return run_module("diffexp.train", words, monkeypatch)
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 255, (60, 28, 28), np.uint8), np.arange(60) % 10
    np.savez("mnist.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    short = ["digit_features.epochs=1", "digit_features.batch_size=30", "digit_features.reference_samples=20"]
    short += [f"{task}.{key}" for task in ("denoiser", "polish") for key in ("steps=2", "batch_size=2")]
    return run_module("diffexp.train", [*words, *short], monkeypatch)


def train_emoji(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    if not Path("unicode-emoji-json").exists():
        save_packages(Path())
        Path("unicode-emoji-json").mkdir()
        Path("unicode-emoji-json", "data-by-emoji.json").write_text('{"\U0001f600": {"name": "red disc"}}')
    tasks = ("emoji_vae", "emoji_decoder", "emoji", "emoji_features")
    short = [f"{task}.{key}" for task in tasks for key in ("steps=2", "batch_size=2")]
    return run_module("diffexp.train", [*words, *short, "emoji.previews=[red heart]"], monkeypatch)


def benchmark(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """One that takes seconds, shortened; of the others, whether they take these arguments."""
    if module.endswith("bench_sampling"):
        return run_module(module, ["2", "2"], monkeypatch)
    if words or not module.endswith("benchmarks"):
        inspect.signature(import_module(module).main).bind(*words)
    return 0


def make(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The target exists, and what ``ARGS`` hands on runs."""
    target, *rest = words
    assert re.search(rf"^{target}:.* ## ", (ROOT / "Makefile").read_text(), re.MULTILINE), f"make has no {target}"
    for word in rest:
        assert word.startswith("ARGS=")
        arguments = shlex.split(word.removeprefix("ARGS="))
        if target == "run":
            return perform(["python", "-m", "diffexp", *arguments], monkeypatch)
        assert all((ROOT / argument).exists() for argument in arguments if "/" in argument)
    return 0


def pip(words: list[str]) -> int:
    """What it installs from exists, and so do the extras."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words:
        wanted = re.fullmatch(r"(?:diffexp|\.)\[([\w,]+)\]", word)
        if wanted:
            assert set(wanted[1].split(",")) <= set(extras), word
        else:
            assert word in ("-c", "-e", ".", "diffexp") or (ROOT / word).is_file(), word
    return 0


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_its_python_runs(readme: Path, place: Path, tiny: Tiny) -> None:
    found = [block for block in blocks(readme) if block.language == "python"]
    if not found:
        return
    bring_checkpoints("".join(block.code for block in found), tiny, place / "hub")
    write_files(readme)
    names: dict[str, object] = {"__name__": "readme"}
    for block in found:
        padding = "\n" * block.line  # tracebacks show the line of the README
        exec(compile(padding + block.code, str(ROOT / readme), "exec"), names)


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_its_links_lead_somewhere(readme: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", (ROOT / readme).read_text()):
        assert target.startswith("https://") or (ROOT / readme.parent / target).exists(), target
    text = (ROOT / readme).read_text()
    assert not re.search(r"^    (?:python|make|pip|diffexp) ", text, re.MULTILINE), "commands stand in bash blocks"


@pytest.mark.parametrize("readme", READMES, ids=str)
def test_the_modules_and_folders_that_it_names_exist(readme: Path) -> None:
    places = [ROOT / readme.parent, ROOT, ROOT / "diffexp", ROOT / "diffexp" / "components"]
    files = [path for place in ("diffexp", "plugins", "tests") for path in (ROOT / place).rglob("*.py")]
    modules = {path.name for path in files} | {f"{path.parent.name}/" for path in files}
    written = {block.file for block in blocks(readme)}
    for name in set(re.findall(r"`([\w/-]+(?:\.py|/))`", (ROOT / readme).read_text())) - written:
        there = any((place / name).exists() for place in places)
        assert there or name in modules or name.startswith(("outputs/", "wandb/", "plugin_sources/")), name


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
