"""``results.csv``: read back from what the cells wrote."""

import csv
import json
from pathlib import Path

from hypothesis import given, strategies as st

from diffexp.catalog.types import flat
from diffexp.experiment.configs import differing_keys
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import read_cells, write_results


def cell(sweep: Path, name: str, overrides: list[str], run: dict | None, metrics: dict | None = None) -> None:
    (sweep / name / ".hydra").mkdir(parents=True)
    (sweep / name / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
    if run is not None:
        (sweep / name / "run.json").write_text(json.dumps(run))
    if metrics is not None:
        (sweep / name / "metrics.json").write_text(json.dumps(metrics))


def test_a_row_per_cell_in_the_order_of_their_numbers(tmp_path):
    config = {"steps": 5, "seed": 0, "grid": {"sigmas": [2.0, 1.0]}, "metric": {}}
    cell(tmp_path, "10_b", ["steps=9"], {"status": "done", "config": {**config, "steps": 9}}, {"nfe": 9, "fid/x": 1.5})
    cell(tmp_path, "2_a", ["steps=5", "name=a b"], {"status": "failed", "error": "no, really", "config": config})
    cell(tmp_path, "11_c", ["steps=1"], None)
    (tmp_path / "multirun.yaml").touch()
    path = write_results(tmp_path)
    assert path is not None
    rows = list(csv.reader(path.open()))
    assert rows == [
        ["cell", "overrides", "steps", "status", "error", "nfe", "fid/x", "folder"],
        ["2", "steps=5 name=a b", "5", "failed", "no, really", "", "", "2_a"],
        ["10", "steps=9", "9", "done", "", "9", "1.5", "10_b"],
        ["11", "steps=1", "", "missing", "", "", "", "11_c"],
    ]


def test_cells_that_never_began_are_missing(tmp_path):
    cell(tmp_path, "1_b", ["steps=9"], {"status": "done", "config": {"steps": 9}}, {"nfe": 9})
    (tmp_path / "2_c" / ".hydra").mkdir(parents=True)  # ended before a file was written
    SweepRecord(["steps=5,9,7,8"], [["steps=5"], ["steps=9"], ["steps=7"], ["steps=8"]]).write(tmp_path)
    rows = list(csv.reader((write_results(tmp_path) or tmp_path).open()))
    assert rows[1:] == [
        ["0", "steps=5", "missing", "", "", ""],
        ["1", "steps=9", "done", "", "9", "1_b"],
        ["2", "", "missing", "", "", "2_c"],
        ["3", "steps=8", "missing", "", "", ""],
    ]


def test_a_config_key_that_a_column_is_called_already(tmp_path):
    for number in (0, 1):
        cell(tmp_path, f"{number}_a", [], {"status": "done", "config": {"status": number}}, {})
    assert "config.status" in (write_results(tmp_path) or tmp_path).read_text().splitlines()[0]


def test_broken_files_are_not_fatal(tmp_path):
    cell(tmp_path, "0_a", [], None)
    (tmp_path / "0_a" / "run.json").write_text("{")
    (tmp_path / "0_a" / "metrics.json").write_text("[1]")
    (found,) = read_cells(tmp_path)
    assert (found.status, found.metrics) == ("missing", {})


def test_a_cell_that_failed_before_it_began_has_the_config_that_hydra_wrote(tmp_path):
    cell(tmp_path, "0_a", ["steps=5"], {"status": "failed", "error": "no such model"})
    (tmp_path / "0_a" / ".hydra" / "config.yaml").write_text("steps: 5\nmodel: {name: none}\n")
    (found,) = read_cells(tmp_path)
    assert found.config == {"steps": 5, "model.name": "none"}
    assert found.record["error"] == found.error == "no such model"


def test_an_empty_sweep_has_no_table(tmp_path):
    assert write_results(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


nested = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3)
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), nested, max_size=4))
def test_flat_keeps_every_leaf(config):
    found = flat(config)
    for key, value in found.items():
        node = config
        for part in key.split("."):
            node = node[part]
        assert node == value
    assert differing_keys([found, found]) == []
