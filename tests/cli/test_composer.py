"""Cells composed from one another are those that Hydra composes."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.errors import HydraException
from hydra.types import RunMode
from hypothesis import given, settings, strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffexp.catalog.discover import discover
from diffexp.cli.cells import cell_subdir, compose_job
from diffexp.cli.composer import CellComposer
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME, hydra_session
from diffexp.cli.hydra_internals import current_config
from diffexp.errors import InputError

LINKED = """# @package _global_
defaults:
  - override /scheduler: euler
name: ${scheduler.name}-${steps}
batch_size: ${num_samples}
label: ${oc.env:DIGIT,7}
"""
PLAIN = """# @package _global_
steps: 12
notes: plain
"""
SUBDIR = "'${hydra.job.num}_${diffexp.cell:}_${seed}_${hydra.job.override_dirname}_${diffexp.unique:}'"
CHOICES = [
    ["experiment=linked", "experiment=plain", "experiment=debug"],
    ["model=mixture", "model=mnist"],
    ["scheduler=ddim", "scheduler=euler", "scheduler=diffusers/UniPC"],
]
VALUES = [
    ["steps=5", "steps=7", "steps=7.5", "steps=${seed}", "++steps=9", "++steps=10", "~steps=5", "+steps=4"],
    ["seed=0", "seed=1", "seed='2'", "seed=true", "seed=-1", "seed={a:1}"],
    ["scheduler.eta=0", "scheduler.eta=0.5", "scheduler.eta=1.0", "+scheduler.eta=0.25", "scheduler.eta=???"],
    ["+scheduler.new=3", "+scheduler.new=4", "++scheduler.new=a", "~scheduler.eta", "~scheduler.name"],
    ["metric=cost", "metric=[cost]", "metric.fid.features=inception", "~metric.fid", "~metric"],
    ["name=a", "name='b, c'", "name=null", "name=${seed}", "name=${hydra:job.num}", "name=é", 'name="${steps}"'],
    ["guidance_scale=1", "guidance_scale=2", "guidance_scale=2.5", "guidance_scale=nan", "guidance_scale=null"],
    ["grid.timesteps=[9,5,1]", "grid.timesteps=null", "grid.timesteps.0=3", "grid=karras", "grid=none"],
    ["num_samples=4", "num_samples=5", "num_samples=null", "num_samples=x"],
    ["tags=[a]", "tags=[a,b]", "tags=[]", "notes=${hydra.job.num}", "notes=1e3", "label=3", "label=four"],
]
MADE = ("number", "config", "folder", "overrides", "place", "content")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("configs") / "experiment"
    folder.mkdir()
    (folder / "linked.yaml").write_text(LINKED)
    (folder / "plain.yaml").write_text(PLAIN)
    with hydra_session(discover(), folder.parent) as loader:
        yield loader


@st.composite
def sweeps(draw: st.DrawFn) -> list[list[str]]:
    """The words of a few cells that set the same keys, most of them."""
    kinds = draw(st.lists(st.sampled_from(CHOICES), unique_by=id, max_size=2))
    kinds += draw(st.lists(st.sampled_from(VALUES), unique_by=id, min_size=1, max_size=4))
    fixed = [draw(st.sampled_from(kind)) for kind in kinds]
    cell = st.tuples(*(st.just(word) | st.sampled_from(kind) for word, kind in zip(fixed, kinds)))
    return [list(words) for words in draw(st.lists(cell, min_size=2, max_size=5))]


def master_of(loader: CachedLoader, *words: str) -> DictConfig:
    given = ["hydra.sweep.dir=there", *(words or [f"hydra.sweep.subdir={SUBDIR}"])]
    master = loader.load_configuration(CONFIG_NAME, given, RunMode.MULTIRUN)
    _ = master.hydra.sweep.dir
    return master


def outcome(compose: Any) -> Any:
    """What a cell is made of, or the error; the folder without what differs from one composition to the next."""
    try:
        cell = compose()
    except (HydraException, InputError, OmegaConfBaseException) as error:
        return type(error), str(error)
    assert cell.folder == Path(cell.composed.hydra.runtime.output_dir)
    with current_config(cell.composed):
        assert cell.folder.name == cell.composed.hydra.sweep.subdir
    unique = cell.folder.name.rpartition("_")[2]
    made = repr([getattr(cell, name) for name in MADE]).replace(unique, "")
    return made, OmegaConf.to_yaml(cell.composed).replace(unique, ""), cell.content == cell.unresolved()


OWN = cell_subdir(12, {"seed", "scheduler.eta", "grid.timesteps.0", "name", "label", "notes", "tags", "num_samples"})


@settings(max_examples=60)
@given(sweeps(), st.booleans())
def test_a_cell_is_that_of_hydra(session, cells, own):
    """With a name that refers to all kinds of things, and with that of a sweep."""
    catalog = discover()
    master = master_of(session, f"hydra.sweep.subdir='{OWN}'") if own else master_of(session)
    composer = CellComposer(session, master, catalog)
    for number, words in enumerate(cells):
        found = outcome(partial(composer.compose, number, words))
        assert found == outcome(partial(compose_job, session, master, number, words, catalog)), words


def test_cells_of_one_form_are_composed_once(session, monkeypatch):
    master, theirs = master_of(session, "hydra.sweep.subdir='${hydra.job.num}_${seed}'"), ConfigLoaderImpl
    cells = [["scheduler=ddim", f"seed={seed}", f"scheduler.eta={seed / 4}", f"name=a{seed}"] for seed in range(4)]
    own = CellComposer(session, master, discover())
    first = own.compose(0, cells[0])
    with monkeypatch.context() as patch:
        patch.setattr(CachedLoader, "load_sweep_config", None)
        rest = [own.compose(number, words) for number, words in enumerate(cells) if number]
        assert [cell.config["scheduler"]["eta"] for cell in (first, *rest)] == [0.0, 0.25, 0.5, 0.75]
        assert [cell.folder.name for cell in rest] == ["1_1", "2_2", "3_3"]
        assert [cell.content["hydra"]["job"]["num"] for cell in (first, *rest)] == [0, 1, 2, 3]
    slow = compose_job(theirs(session.get_search_path()), master, 3, cells[3], discover())
    assert (slow.config, slow.content) == (rest[-1].config, rest[-1].content)
    rest[0].config["scheduler"]["eta"] = 9  # each has its own
    assert rest[1].config["scheduler"]["eta"] == 0.5


def test_each_cell_draws_its_own_unique_name(session):
    composer = CellComposer(session, master_of(session), discover())
    cells = [composer.compose(number, [f"seed={number}"]) for number in range(3)]
    names = {cell.folder.name.rpartition("_")[2] for cell in cells}
    assert len(names) == 3
    assert [cell.composed.hydra.sweep.subdir for cell in cells] == [cell.folder.name for cell in cells]
