"""What a person at the keyboard is told: one line, which names the place where a plugin failed."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import discover
from diffexp.catalog.sources import raised_at
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.errors import InputError, one_line
from diffexp.experiment.run import run_experiment
from diffexp.sweeps.failures import read_failures, record_failure

BASE = ("model=gaussian", "model.shape=[16]", "metric=cost", "tracker=none", "steps=2", "num_samples=2")
PLUGINS = {
    "scheduler": "def mine(denoise, x, levels, noise):\n    return denoise(x, levels[0]) / zero()\n",
    "grid": "def mine(schedule, steps):\n    return zero() / zero()\n",
    "loop": "def mine(batch):\n    return zero() / zero()\n",
}


def test_an_error_is_one_line() -> None:
    error = ValueError("two\n  lines")
    assert one_line(error) == "ValueError: two lines"
    error.add_note("mine.py:3")
    assert one_line(error) == "ValueError: two lines (mine.py:3)"
    assert one_line(InputError("steps=0 must be at least 1")) == "steps=0 must be at least 1"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


@pytest.mark.parametrize("kind", PLUGINS)
def test_an_error_in_a_plugin_names_its_file_and_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)
    head = f"from diffexp import {kind}\n\n\ndef zero():\n    raise LookupError('no zero')\n\n\n"
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "own.py").write_text(f"{head}@{kind}\n{PLUGINS[kind]}")
    catalog = discover()
    with hydra_session(catalog) as hydra:
        config = task_config(Preflight(hydra, catalog).check([*BASE, f"{kind}=mine"], multirun=False).config)
    folder = tmp_path / "run"
    with pytest.raises(LookupError) as caught:
        run_experiment(config, folder, catalog)
    told = "LookupError: no zero (plugins/own.py:5)"
    assert json.loads((folder / "run.json").read_text())["error"] == told
    assert record_failure(folder, caught.value).message == told


def test_only_the_files_asked_for_count() -> None:
    def fail(value: Any) -> None:
        value.missing()

    with pytest.raises(AttributeError) as caught:
        fail(None)
    here = Path(__file__)
    assert raised_at(caught.value, [here]).rpartition(":")[0].endswith("test_errors.py")
    assert raised_at(caught.value, [here.parent]) == raised_at(caught.value, [here])
    assert raised_at(caught.value, [here.with_name("other.py")]) == ""


def test_a_failure_without_a_record_is_reported_too(tmp_path: Path) -> None:
    """A folder on a full disk takes no file, but the command must not end as if nothing had failed."""
    recorded = record_failure(tmp_path / "0", ValueError("first"))
    (tmp_path / "1").touch()  # a file where the folder should be
    lost = record_failure(tmp_path / "1", ValueError("second"))
    assert read_failures(tmp_path) == [recorded]
    assert read_failures(tmp_path, [recorded, lost]) == [recorded, lost]
