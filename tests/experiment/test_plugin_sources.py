"""The source of plugins as part of the record of a run."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import diffexp
from tests.runs import record

SCHEDULER = """
from diffexp import scheduler

@scheduler
def recorded(denoise, x, levels, noise, *, gain: float = 1.0):
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = there.alpha * x0 + gain * there.sigma * eps
    return x
"""
HELPER = "FACTOR = 2.0\n"
METRIC = """
from diffexp import metric
from .helper import FACTOR

@metric
class Twice:
    def applies(self, model): return None
    def update(self, samples, images): self.count = getattr(self, "count", 0) + len(samples)
    def compute(self, run): return {"twice": FACTOR * self.count}
"""
RUN = ["model=gaussian", "tracker=none", "steps=3", "num_samples=4", "snapshot_every=0"]

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs in a working folder of its own with the plugins ``recorded.py`` and the folder ``counting``."""
    plugins = tmp_path / "plugins"
    (plugins / "counting").mkdir(parents=True)
    (plugins / "recorded.py").write_text(SCHEDULER)
    (plugins / "counting" / "helper.py").write_text(HELPER)
    (plugins / "counting" / "twice.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)

    def run(*words: str) -> dict[str, Any]:
        folder = diffexp.run([*RUN, *words]).folder
        found = record(folder)
        for entry in found["plugins"]:
            copied = (folder / entry["copy"]).read_bytes()
            assert entry["sha256"] == hashlib.sha256(copied).hexdigest()
        return {**found, "folder": folder}

    return run


def test_path_hash_and_copy_of_a_plugin_are_recorded(run: Run, tmp_path: Path):
    found = run("scheduler=recorded", "metric=cost")
    (entry,) = found["plugins"]
    assert entry["used_for"] == ["scheduler=recorded"]
    assert entry["path"] == str(tmp_path / "plugins" / "recorded.py")
    assert entry["copy"] == "plugin_sources/recorded.py"
    assert (found["folder"] / entry["copy"]).read_text() == SCHEDULER
    assert found["code_sha256"] is None, "the plan stands for the scheduler"


def test_a_folder_is_copied_with_what_it_imports(run: Run):
    found = run("metric=[cost,twice]")
    assert {entry["copy"] for entry in found["plugins"]} == {
        "plugin_sources/counting/helper.py",
        "plugin_sources/counting/twice.py",
    }
    assert all(entry["used_for"] == ["metric=twice"] for entry in found["plugins"])


def test_what_ships_is_not_copied(run: Run):
    found = run("metric=cost", "scheduler=diffusers/euler")
    assert found["plugins"] == [] and not (found["folder"] / "plugin_sources").exists()


def test_the_copy_is_the_code_that_ran(run: Run, tmp_path: Path):
    """A plugin is loaded once per process: a change while a sweep runs counts for nobody."""
    run("scheduler=recorded", "metric=cost")
    (tmp_path / "plugins" / "recorded.py").write_text(SCHEDULER.replace("gain *", "0.5 * gain *"))
    found = run("scheduler=recorded", "metric=cost", "steps=4")
    assert (found["folder"] / "plugin_sources" / "recorded.py").read_text() == SCHEDULER


def test_a_class_named_by_its_path_is_recorded_if_it_is_no_installed_package(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "my_guidance.py").write_text("def plain(predict, scale):\n    return predict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = run("metric=cost", "guidance=none", "+guidance._target_=my_guidance.plain")
    (entry,) = found["plugins"]
    assert entry["used_for"] == ["guidance=my_guidance.plain"]
    assert Path(entry["path"]) == (tmp_path / "my_guidance.py").resolve()
    assert len(found["code_sha256"]) == 64
    sys.modules.pop("my_guidance")
    other = run("metric=cost", "scheduler=diffusers", "scheduler._target_=diffusers.DDIMScheduler")
    assert other["plugins"] == []


def test_two_plugins_of_one_name_have_a_copy_each(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "recorded.py").write_text(
        "from diffexp import guidance\n\n\n@guidance\ndef spared(predict, scale):\n    return predict\n"
    )
    monkeypatch.setenv("DIFFEXP_PLUGINS", f"{tmp_path / 'plugins'}:{other}")
    found = run("scheduler=recorded", "guidance=spared", "metric=cost")
    copies = [entry["copy"] for entry in found["plugins"]]
    assert len({*copies}) == 2 and all(copy.endswith("recorded.py") for copy in copies)
    assert json.dumps(found["code_sha256"]) != "null"
