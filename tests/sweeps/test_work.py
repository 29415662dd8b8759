"""The work file: what is written is read back, and what is wrong with it is one line."""

import math
from pathlib import Path

import pytest

from diffexp.errors import InputError
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.work import NAME, Work, read_work


def test_the_same_cells_are_read_back(tmp_path, compose):
    odd = {"table": {1: "one", 2.5: {"x": None}, "y": 2}, "limits": [-math.inf, 1e-17], "text": "ä\n"}
    cells = (
        Cell(0, compose("model=mixture", "steps=5"), tmp_path / "0_mixture_ddim_5", ("model=mixture", "steps=5")),
        Cell(7, odd, tmp_path / "7 odd name"),
    )
    plugins = (tmp_path / "plugins" / "mine.py",)
    work = Work(tmp_path, cells, Path.cwd(), 3, 16, ("steps",), plugins, more=True, resume="resume=here")
    work.write()
    assert read_work(tmp_path) == work
    assert not work.is_run


def test_one_run_is_its_own_cell(tmp_path):
    Work(tmp_path, (Cell(0, {"steps": 5}, tmp_path),), Path.cwd()).write()
    assert read_work(tmp_path).is_run


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "has no work.json: give the folder of a sweep that was started with workers=..."),
        ("{", "work.json is damaged; resume the sweep, which writes it anew"),
        ('{"cells": [{}]}', "work.json is damaged; resume the sweep, which writes it anew"),
        ('{"cells": [], "plugins": [], "cwd": "/", "swept": [], "novel": 1}', "work.json is damaged"),
    ],
)
def test_a_missing_or_damaged_file_is_one_line(tmp_path, content, told):
    if content is not None:
        (tmp_path / NAME).write_text(content)
    with pytest.raises(InputError, match=told):
        read_work(tmp_path)


def test_a_folder_that_does_not_exist_is_told(tmp_path):
    with pytest.raises(InputError, match="nowhere is not a folder; give the folder of a sweep"):
        read_work(tmp_path / "nowhere")
