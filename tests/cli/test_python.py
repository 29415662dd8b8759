"""``diffexp.run`` and ``diffexp.sweep`` as a notebook calls them, and what they return."""

import asyncio
import json
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from PIL import Image

import diffexp
from diffexp.errors import InputError
from diffexp.experiment.progress import draws_bars
from tests.runs import network, raise_at

FAST: dict[str, Any] = {"model": "mixture", "num_samples": 6, "tracker": "none", "metric": ["cost"], "steps": 2}
PICTURES: dict[str, Any] = {**FAST, "model": {"name": "gaussian", "shape": [1, 8, 8]}}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@contextmanager
def unchanged() -> Iterator[None]:
    """Check that handlers and levels, Hydra, the working folder and the environment are left as they were."""

    def look() -> list[Any]:
        root = logging.getLogger()
        return [
            *(list(root.handlers), root.level, logging.getLogger("diffexp").handlers, Path.cwd(), dict(os.environ)),
            *(GlobalHydra.instance().hydra, HydraConfig.instance().cfg),
        ]

    before = look()
    yield
    assert look() == before


def test_a_run_and_a_sweep_in_an_event_loop_as_a_notebook_has_one() -> None:
    async def cell() -> tuple[diffexp.RunResult, diffexp.SweepResult]:
        return diffexp.run(["steps=9"], **FAST), diffexp.sweep(**FAST | {"steps": [2, 3]}, seed=range(2))

    with unchanged():
        result, swept = asyncio.run(cell())
    assert (result.status, result.metrics["nfe"]) == ("done", 2), "keywords override words"
    assert [run.metrics["nfe"] for run in swept.runs] == [2, 2, 3, 3]


def test_a_call_after_one_that_failed_or_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    with unchanged(), pytest.raises(InputError, match="did you mean 'ddim'"):
        diffexp.run(**FAST, scheduler="ddin")
    for call in (diffexp.run, diffexp.sweep):
        with monkeypatch.context() as patch:
            network(patch, raise_at(1, KeyboardInterrupt()))
            with unchanged(), pytest.raises(KeyboardInterrupt) as caught:
                call(**FAST)
            assert Path(str(caught.value)).is_dir(), "where it goes on"
    statuses = [json.loads(file.read_text())["status"] for file in Path("outputs").rglob("run.json")]
    assert statuses == ["interrupted"] * 2
    assert diffexp.run(**FAST).status == "done"


def test_somebody_elses_hydra_stays_theirs(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "config.yaml").write_text("answer: 42\n")
    with initialize_config_dir(str(place / "mine"), version_base=None):
        assert diffexp.run(**FAST).status == "done"
        assert compose("config").answer == 42


def test_the_result_of_a_run(place: Path) -> None:
    result = diffexp.run(**PICTURES, name="<b>&amp;", scheduler={"name": "ddim", "eta": 0.5})
    assert result.folder.is_relative_to(place)
    assert result.config["scheduler"]["eta"] == 0.5 and result.config["name"] == "<b>&amp;"
    assert result.record["seed"] == 0 and result.error is None
    assert len(result.images) == 6 and len(result.images[1:3]) == 2
    image = result.images[-1]
    assert isinstance(image, Image.Image) and image.size == (8, 8)
    assert image.tobytes() == Image.open(result.folder / "samples" / "000005.png").tobytes()
    assert result.samples[0].shape == (1, 8, 8)
    assert result.plan is not None and result.plan.nfe == 2
    again = diffexp.RunResult.read(result.folder)
    assert again == result and again.plan == result.plan, "compiled again"
    assert again.plan is not None and again.plan.sha256 == again.record["plan_sha256"]
    assert str(result.folder) in repr(result) and "nfe=2" in repr(result) and "\n" not in repr(result)


def test_points_have_no_images_and_a_direct_scheduler_no_plan(place: Path) -> None:
    (place / "plugins").mkdir()
    (place / "plugins" / "steep.py").write_text(
        "import torch\nfrom diffexp import scheduler\n\n\n@scheduler\ndef steep(denoise, x, levels, noise):\n"
        "    for here, there in levels.pairs():\n        x = torch.tanh(denoise(x, here))\n    return x\n"
    )
    result = diffexp.run(**FAST, scheduler="steep")
    assert result.plan is None and list(result.images) == [] and result.samples[0].shape == (2,)


class Checked(HTMLParser):
    """Well-formed HTML: every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_run_in_a_notebook(place: Path) -> None:
    folder = place / "a <b>&amp; folder"
    result = diffexp.run(**PICTURES | {"metric": ["cost", "wasserstein"]}, hydra={"run": {"dir": folder}})
    page = Checked(result._repr_html_())
    assert "img" in page.seen and str(folder) in page.texts and "b" in page.seen
    assert {"nfe", "2", "done"} <= {word for text in page.texts for word in text.replace("·", " ").split()}
    assert len(result._repr_html_()) < 200_000
    failed = place / "failed"
    failed.mkdir()
    (failed / "run.json").write_text(json.dumps({"status": "failed", "error": "ValueError: <script>"}))
    assert "ValueError: <script>" in Checked(diffexp.RunResult.read(failed)._repr_html_()).texts
    assert Checked(diffexp.RunResult.read(place / "nowhere")._repr_html_()).texts


def test_the_result_of_a_sweep() -> None:
    enough = {"metric": ["cost", "wasserstein"], "num_samples": 32}
    swept = diffexp.sweep(**FAST | enough, scheduler=["ddim", "heun"], seed=range(2))
    assert len(swept.runs) == 4 and not swept.failures and len(swept.table) == 4
    assert swept.report is not None and swept.report.is_file()
    best = swept.best("sliced_wasserstein2/samples", max_cost=2)
    assert (best["scheduler"], best["seeds"]) == ("ddim", 2)
    assert repr(swept) == f"<SweepResult of 4 cells (4 done), {swept.folder}>"


def test_a_cell_that_fails_costs_itself_alone() -> None:
    swept = diffexp.sweep(["-m"], **FAST | {"steps": [2, 5000]})
    assert [run.status for run in swept.runs] == ["done", "failed"]
    (failure,) = swept.failures
    assert "steps=5000" in failure.message and failure.message == swept.runs[1].error


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diffexp.sweep("steps=2"), 'give a list of words, as in diffexp.sweep(["steps=2"])'),  # pyright: ignore
        (lambda: diffexp.run({"steps": 2}), "or keywords, as in diffexp.run(steps=2)"),  # pyright: ignore
        (lambda: diffexp.run([2]), "or keywords, as in diffexp.run(steps=2)"),  # pyright: ignore
        (lambda: diffexp.run(["steps=2,3"]), "lists several values"),
        (lambda: diffexp.run(stepz=3), "did you mean 'steps'"),
        (lambda: diffexp.sweep(steps=[0, 2]), "steps=0"),
    ],
)
def test_a_mistake_is_one_line(call: Any, message: str, place: Path) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(place.iterdir()), "before anything has begun"


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let this process be taken for an application of IPython."""

    def pretend(application: str) -> None:
        module, shell = types.ModuleType("IPython"), types.SimpleNamespace(config={application: {}})
        monkeypatch.setattr(module, "get_ipython", lambda: shell, False)
        monkeypatch.setitem(sys.modules, "IPython", module)

    return pretend


def test_progress_is_shown_in_a_notebook(kernel: Callable[[str], None]) -> None:
    assert not draws_bars(), "neither a terminal nor a notebook"
    for application, shown in (("IPKernelApp", True), ("TerminalIPythonApp", False)):
        kernel(application)
        assert draws_bars() is shown


def test_a_notebook_shows_a_sweep_once(kernel: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    cells = FAST | {"steps": [2, 3]}
    diffexp.sweep(**cells)
    assert "passes" in capsys.readouterr().out, "a script prints the table of the cells"
    kernel("IPKernelApp")
    swept = diffexp.sweep(**cells)
    assert "passes" not in capsys.readouterr().out and "forward passes" in swept._repr_html_()


def test_a_mistake_is_one_line_in_a_notebook_too() -> None:
    with pytest.raises(InputError) as caught:
        diffexp.run(stepz=3)
    (line,) = caught.value._render_traceback_()  # what IPython shows instead of frames
    assert line.startswith("InputError: unknown key 'stepz'")


def test_warnings_reach_the_caller(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for handler in [*logging.getLogger().handlers]:  # those of pytest
        logging.getLogger().removeHandler(handler)
    with unchanged():
        result = diffexp.run(**FAST | {"model": "mnist", "metric": "fid"})
    message = "6 samples are few to compare by fid/mnist_cnn"
    assert message in capfd.readouterr().err and message in (result.folder / "diffexp.log").read_text()
