"""The folders of cells, and the link to the last run or sweep."""

import json
import os
from pathlib import Path

import pytest

from diffexp.catalog.discover import discover
from diffexp.cli.check import Preflight
from diffexp.cli.composer import CellComposer
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.latest import link_latest
from diffexp.cli.launch import master_config, new_record
from diffexp.cli.resume import resumed_sweep, resumed_words
from diffexp.report.collect import collect
from diffexp.sweeps.cell import distinguishing_words
from diffexp.sweeps.record import SweepRecord
from tests.made_up import made_up_cell

NAMES = {
    "scheduler=ddim,euler steps=5,10": ["0_mnist_ddim_5", "1_mnist_ddim_10", "2_mnist_euler_5", "3_mnist_euler_10"],
    "seed=range(0,12)": [f"{seed:02d}_mnist_ddim_50_seed{seed}" for seed in range(12)],
    "scheduler.eta=0,0.5": ["0_mnist_ddim_50_eta0", "1_mnist_ddim_50_eta0.5"],
    "grid=auto,karras": ["0_mnist_ddim_50_grid-auto", "1_mnist_ddim_50_grid-karras"],
    "max_nfe=4,8 steps=20,30": [
        f"{i}_mnist_ddim_nfe{n}_steps{s}" for i, (n, s) in enumerate(((4, 20), (4, 30), (8, 20), (8, 30)))
    ],
    "label=3,null": ["0_mnist_ddim_50_label3", "1_mnist_ddim_50"],
    "guidance=cfg,cfg_pp guidance_scale=2": ["0_mnist_ddim_50_guidance-cfg", "1_mnist_ddim_50_guidance-cfg_pp"],
    "scheduler=diffusers scheduler._target_=diffusers.DDIMScheduler,diffusers.PNDMScheduler": [
        "0_mnist_DDIMScheduler_50",
        "1_mnist_PNDMScheduler_50",
    ],
    "grid.timesteps=[9,5,1],[9,1]": ["0_mnist_ddim_3_timesteps9-5-1", "1_mnist_ddim_2_timesteps9-1"],
}


def cells_of(words: list[str], record: SweepRecord | None = None):
    catalog = discover()
    with hydra_session(catalog) as loader:
        checked = Preflight(loader, catalog).check(words, multirun=True)
        record = record or new_record(loader, checked, None)
        composer = CellComposer(loader, master_config(loader, checked, record, Path("sweep")), catalog)
        assert checked.cells
        return [composer.compose(number, cell) for number, cell in enumerate(checked.cells)], record


@pytest.mark.parametrize(("words", "names"), NAMES.items(), ids=list(NAMES))
def test_cell_folders_sort_and_name_all_swept_keys(words: str, names: list[str]):
    found = [cell.folder.name for cell in cells_of(words.split())[0]]
    assert found == names == sorted(found)


def test_long_and_odd_values_make_short_valid_names():
    prompts = ["a red fox in the snow, 8k", "a red fox in the snow: at night?", "../..", "\N{FOX FACE}" * 99, "ß" * 999]
    cells, _ = cells_of(["prompt=" + ",".join(f"'{text}'" for text in prompts), "model=sd15", "seed=1,2"])
    names = [cell.folder.name for cell in cells]
    assert names[0] == "0_sd15_ddim_50_prompt-a-red-fox-in-the-snow-8k_seed1"
    assert len({*names}) == 10 and all(len(name.encode()) < 160 for name in names)
    assert not any(set(name) & set('/\\:*?"<>| ,') or name.endswith(".") for name in names)
    words = distinguishing_words(cells)
    assert words[2] == f"prompt='{prompts[1]}'", "what the name cuts"


def test_a_sweep_of_an_earlier_version_keeps_its_names(tmp_path: Path):
    words = ["seed=range(0,12)"]
    (tmp_path / "sweep.json").write_text(json.dumps({"overrides": words, "cells": [["seed=0"]], "attempts": 1}))
    resumed = resumed_sweep([f"resume={tmp_path}"])
    assert resumed and resumed.record.subdir is None
    cells, _ = cells_of(words, resumed.record)
    assert [cell.folder.name for cell in cells][1:11:9] == ["1_mnist_ddim_50", "10_mnist_ddim_50"]
    _, record = cells_of(words)
    record.write(tmp_path)
    resumed = resumed_sweep([f"resume={tmp_path}"])
    assert resumed and resumed.record.subdir == record.subdir


def test_a_given_subdir_is_kept():
    cells, record = cells_of(["seed=1,2", "hydra.sweep.subdir='${seed}'"])
    assert [cell.folder.name for cell in cells] == ["1", "2"] and record.subdir is None
    assert distinguishing_words(cells) == {0: "seed=1", 1: "seed=2"}


def test_a_search_names_what_it_searches():
    catalog = discover()
    words = ["experiment=search", "objective=nfe", "scheduler.eta=interval(0,1)"]
    with hydra_session(catalog) as loader:
        checked = Preflight(loader, catalog).check(words, multirun=True)
        subdir = new_record(loader, checked, None).subdir
    assert checked.cells is None and subdir
    assert subdir.startswith("${diffexp.number:3}_") and '"scheduler.eta"' in subdir


def test_latest_points_to_the_last_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    link = Path("outputs/latest")
    link_latest(tmp_path / "elsewhere")
    assert not Path("outputs").exists(), "nothing is put where no outputs are"
    for name in ("outputs/2026-11-30/a", "outputs/multirun/2026-11-30/b", "elsewhere"):
        Path(name).mkdir(parents=True)
        link_latest(tmp_path / name)
        assert link.resolve() == tmp_path / name
        assert not os.path.isabs(os.readlink(link)), "the tree can be moved"
        assert [path.name for path in link.parent.iterdir() if path.name.startswith(".")] == []
    link_latest(link.absolute())
    assert link.resolve() == tmp_path / "elsewhere", "not to itself"
    link.unlink()
    link.mkdir()
    link_latest(tmp_path / "elsewhere")
    assert link.is_dir() and not link.is_symlink(), "a folder of somebody is left alone"


def test_where_links_are_not_possible_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.chdir(tmp_path)
    Path("outputs/a").mkdir(parents=True)
    monkeypatch.setattr(Path, "symlink_to", refuse)
    link_latest(Path("outputs/a"))
    assert [path.name for path in Path("outputs").iterdir()] == ["a"]


def test_readers_count_the_run_behind_the_link_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = made_up_cell(tmp_path / "outputs", "mine", {"steps": 5})
    link_latest(folder)
    assert [cell.folder for cell in collect([Path("outputs")])] == [Path("outputs/mine")]
    assert [cell.folder for cell in collect([Path("outputs/latest")])] == [Path("outputs/latest")]


def test_resume_of_the_latest_means_the_folder_it_is_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    folder = made_up_cell(tmp_path / "outputs", "mine", {"steps": 5}, status="interrupted")
    link_latest(folder)
    words, _ = resumed_words(["resume=outputs/latest"])
    assert words[-1] == f"resume='{folder}'"
    SweepRecord(["steps=1,2"], [["steps=1"], ["steps=2"]]).write(folder)
    resumed = resumed_sweep(["resume=outputs/latest"])
    assert resumed and resumed.folder == folder
