"""Plugin folders without ``__init__.py``: the same in Python, in a run and in its workers."""

import os
from pathlib import Path

import pytest

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.sources import VARIABLE, resolved_paths
from diffexp.cli.python import run

HELPER = "SCALE = {scale}\n"
SCHEDULER = """
from diffexp import scheduler
from .helper import SCALE
from . import deep

@scheduler
def {name}(denoise, x, levels, noise, *, share: float = 1.0):
    assert deep.helper.SCALE is SCALE
    for here, there in levels.pairs():
        x0, eps = denoise.predict(x, here)
        x = there.alpha * x0 + SCALE * there.sigma * eps
    return x
"""


def fill(folder: Path, name: str, scale: float) -> None:
    folder.mkdir(parents=True)
    (folder / "helper.py").write_text(HELPER.format(scale=scale))
    (folder / "deep.py").write_text("from . import helper\n")
    (folder / "solver.v2.py").write_text(SCHEDULER.format(name=name))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose ``plugins/`` has two folders with the same file names."""
    fill(tmp_path / "plugins" / "first", "half", 0.5)
    fill(tmp_path / "plugins" / "second", "whole", 1.0)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scales(catalog: Catalog) -> list[float]:
    return [catalog.get("scheduler", name).load().__globals__["SCALE"] for name in ("half", "whole")]


def test_a_worker_finds_what_the_command_has_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = discover()
    paths = resolved_paths(found.plugin_paths)
    assert all(path.is_file() for path in paths)
    monkeypatch.setenv(VARIABLE, os.pathsep.join(map(str, paths)))
    monkeypatch.chdir("/")
    again = discover()
    modules = [catalog.get("scheduler", "half").source.module for catalog in (found, again)]
    assert modules[0] == modules[1]
    assert scales(found) == scales(again) == [0.5, 1.0]


@pytest.mark.parametrize("named", ["plugins/first", "plugins/first/solver.v2.py"])
def test_a_folder_or_its_file_may_be_named(folder: Path, monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv(VARIABLE, named)
    catalog = discover()
    assert catalog.get("scheduler", "half").load().__globals__["SCALE"] == 0.5
    assert catalog.find("scheduler", "whole") is None


def test_a_run_has_relative_imports(folder: Path) -> None:
    words = ["model=mixture", "steps=2", "num_samples=2", "tracker=none", "metric=cost"]
    assert run([*words, "scheduler=half"]).status == "done"


def test_the_init_of_a_folder_runs_for_the_folder_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is named by itself is no part of a package."""
    (folder / "plugins" / "second" / "__init__.py").write_text("raise ZeroDivisionError('init')\n")
    monkeypatch.setenv(VARIABLE, "plugins/second/solver.v2.py")
    assert discover().get("scheduler", "whole").load().__globals__["SCALE"] == 1.0
