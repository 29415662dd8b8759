"""One check of config nodes, for the command line and for Python."""

import pytest

import diffexp
from diffexp.catalog.discover import discover
from diffexp.errors import InputError

PLUGIN = """
from diffexp import scheduler

@scheduler
def mine(denoise, x, levels, noise, *, gamma: float, order: int = 1, mode: str = 3):
    return x
"""


@pytest.fixture
def catalog(tmp_path, monkeypatch):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFEXP_PLUGINS", raising=False)
    return discover()


@pytest.mark.parametrize(
    ("kind", "node"),
    [
        ("scheduler", {"name": "mine", "gamma": 1, "mode": 3}),
        ("scheduler", {"name": "diffusers", "_target_": None, "anything": 1}),
        ("grid", {"name": "auto", "timesteps": [9.0], "sigmas": None}),
        ("grid", {"name": "karras", "timesteps": (9, 5)}),
        ("metric", {"name": "fid"}),
        ("guidance", {"name": "diffusers/apg", "use_original_formulation": True}),
    ],
)
def test_good_nodes(catalog, kind, node):
    catalog.check(kind, node)


@pytest.mark.parametrize(
    ("kind", "node", "path", "message"),
    [
        ("scheduler", {"name": "mime"}, None, "scheduler=mime is not known; did you mean 'mine'?"),
        ("scheduler", {"name": "mime"}, "scheduler", "scheduler.name=mime is not known; did you mean 'mine'?"),
        ("scheduler", {"name": "UniPCMultistepScheduler"}, None, "did you mean 'diffusers/unipc'?"),
        ("guidance", {"name": "pag"}, None, "PerturbedAttentionGuidance changes layers"),
        ("scheduler", {"name": "mine"}, None, "scheduler=mine needs scheduler.gamma=..."),
        ("scheduler", {"name": "mine", "gamma": "???"}, None, "scheduler=mine needs scheduler.gamma=..."),
        ("scheduler", {"name": "mine", "gama": 1}, None, "of scheduler=mine; did you mean 'scheduler.gamma'?"),
        ("scheduler", {"name": "mine", "gamma": 1, "order": True}, None, "scheduler.order=true is not an integer"),
        ("scheduler", {"name": "mine", "gamma": 1, "mode": 4}, None, "scheduler.mode=4 is not a string"),
        ("scheduler", {"name": "diffusers/ddim", "beta_start": 1}, None, "is how the model was trained"),
        ("grid", {"name": "auto", "sigmas": [1, "x"]}, "grid", "is not a list of float"),
        ("grid", {"name": "karras", "timestep": 3}, None, "did you mean 'grid.timesteps'?"),
        ("metric", {"name": "fid", "features": 3}, "metric.mine", "metric.mine.features=3 is not"),
        ("guidance", {"name": "diffusers", "_target_": "???"}, None, "guidance=diffusers needs guidance._target_=..."),
        ("scheduler", 3, "scheduler", "scheduler=3 is not a config of a scheduler: it has no name"),
    ],
)
def test_mistakes(catalog, kind, node, path, message):
    with pytest.raises(InputError) as caught:
        catalog.check(kind, node, path)
    assert message in str(caught.value)


def test_compile_needs_what_has_no_default(catalog):
    with pytest.raises(InputError, match=r"^scheduler=mine needs scheduler.gamma=...$"):
        diffexp.compile("mine", steps=2)


def test_the_same_catalog_until_a_file_changes(catalog, tmp_path):
    assert discover() is catalog
    (tmp_path / "plugins" / "mine.py").write_text(PLUGIN.replace("gamma", "delta"))
    changed = discover()
    assert "delta" in [option.name for option in changed.get("scheduler", "mine").options]
    (tmp_path / "plugins" / "new.py").write_text(PLUGIN.replace("mine", "new"))
    assert changed.find("scheduler", "new") is None
    assert discover().find("scheduler", "new")
