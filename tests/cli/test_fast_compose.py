"""Configs composed quickly are those that Hydra composes."""

import pickle
from typing import Any

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from diffexp.catalog.discover import discover
from diffexp.cli.fast_compose import CachedLoader
from diffexp.cli.hydra_config import CONFIG_NAME, hydra_session


@pytest.fixture(scope="module")
def loaders() -> tuple[ConfigLoader, ConfigLoader]:
    """Ours, and Hydra's own on the same configs."""
    with hydra_session(discover()) as loader:
        assert isinstance(loader, CachedLoader)
        return loader, ConfigLoaderImpl(loader.get_search_path())


def both(loaders: tuple[ConfigLoader, ConfigLoader], words: list[str], mode: RunMode = RunMode.RUN) -> tuple[Any, Any]:
    return tuple(loader.load_configuration(CONFIG_NAME, words, mode) for loader in loaders)  # pyright: ignore


LINES = [
    [],
    ["scheduler=ddim", "steps=7", "scheduler.eta=0.5"],
    ["steps=7", "scheduler.eta=0.5", "scheduler=ddim", "steps=8"],
    ["experiment=debug", "model=mixture", "model.shape=[1,8,8]", "name='a=b'"],
    ["metric=[fid,cost]", "metric.fid.features=mnist_cnn", "+scheduler.new=3", "++seed=4", "~tags"],
    ["hydra.sweep.dir=here", "hydra/launcher=basic", "seed=3", "hydra.job.chdir=false"],
    ["scheduler=diffusers", "scheduler._target_=a.B", "scheduler.order=2"],
]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_config_is_hydras(loaders, words):
    for _ in range(2):  # the second time from memory
        ours, theirs = both(loaders, words)
        assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(theirs)
        assert OmegaConf.is_struct(ours) == OmegaConf.is_struct(theirs)
        assert OmegaConf.get_type(ours, "hydra") == OmegaConf.get_type(theirs, "hydra")


def test_the_cells_of_a_sweep_are_hydras(loaders):
    words = ["scheduler=ddim,euler", "steps=5,6", "model=mixture", "hydra.sweep.dir=here"]
    ours, theirs = both(loaders, words, RunMode.MULTIRUN)
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(theirs)
    for cell in (["scheduler=ddim", "steps=5", "model=mixture"], ["scheduler=euler", "steps=6", "model=mixture"]):
        found = [loader.load_sweep_config(master, cell) for loader, master in zip(loaders, (ours, theirs))]
        assert OmegaConf.to_yaml(found[0]) == OmegaConf.to_yaml(found[1])
        assert found[0].hydra.sweep.dir == "here"


@pytest.mark.parametrize(
    "word", ["stepz=3", "hydra.job.name=[x]", "scheduler=nothing", "metric.etaa=1", "steps=1,2", "~nothing"]
)
def test_mistakes_are_hydras(loaders, word):
    errors = []
    for loader in loaders:
        with pytest.raises(HydraException) as error:
            loader.load_configuration(CONFIG_NAME, ["scheduler=ddim", word], RunMode.RUN)
        errors.append(error)
    assert type(errors[0].value) is type(errors[1].value)
    assert str(errors[0].value) == str(errors[1].value)


def test_what_is_changed_in_one_config_is_not_in_the_next(loaders):
    first, _ = both(loaders, ["steps=3"])
    first.scheduler.name = "changed"
    second, _ = both(loaders, ["steps=4"])
    assert (second.scheduler.name, second.steps) == ("ddim", 4)


def test_it_goes_to_worker_processes(loaders, monkeypatch):
    _, theirs = both(loaders, ["scheduler=euler"])
    there = pickle.loads(pickle.dumps(loaders[0]))
    with monkeypatch.context() as patch:
        patch.setattr(pickle, "dumps", refuse)
        found = there.load_configuration(CONFIG_NAME, ["scheduler=euler"], RunMode.RUN)
    assert OmegaConf.to_yaml(found) == OmegaConf.to_yaml(theirs)


def refuse(*_: Any) -> bytes:
    raise pickle.PicklingError("it's not the same object")
