"""A run's trackers on the command line: one or several, with options under their names or, of the only one, without."""

from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import discover
from diffexp.cli import composer as composer_module
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.composer import CellComposer
from diffexp.cli.hydra_config import hydra_session
from diffexp.errors import InputError

PLUGIN = """
from diffexp import tracker
from diffexp.components.trackers.none import NoTracker

@tracker
class Notes(NoTracker):
    def __init__(self, *, path: str = "notes", project: str = "p"): ...
"""
TEAM = "defaults: [wandb]\nproject: team\n"
OLD = "name: notes\npath: elsewhere\n"
WANDB = {"name": "wandb", "project": "diffexp", "entity": None, "mode": "auto"}
NOTES = {"name": "notes", "path": "notes", "project": "p"}


@pytest.fixture(scope="module")
def preflight(tmp_path_factory: pytest.TempPathFactory) -> Any:
    plugins = tmp_path_factory.mktemp("plugins")
    (plugins / "notes.py").write_text(PLUGIN)
    conf = plugins / "conf" / "tracker"
    conf.mkdir(parents=True)
    (conf / "team.yaml").write_text(TEAM)
    (conf / "old.yaml").write_text(OLD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(plugins))
        catalog = discover()
        with hydra_session(catalog) as loader:
            yield Preflight(loader, catalog)


CHOSEN = {
    "": {"wandb": WANDB},
    "tracker=wandb tracker.project=x": {"wandb": WANDB | {"project": "x"}},
    "tracker.wandb.project=x": {"wandb": WANDB | {"project": "x"}},
    "tracker=[wandb,notes] tracker.wandb.project=x tracker.notes.path=y": {
        "wandb": WANDB | {"project": "x"},
        "notes": NOTES | {"path": "y"},
    },
    "tracker=[notes] tracker.path=y": {"notes": NOTES | {"path": "y"}},
    "tracker=none": {"none": {"name": "none"}},
    "tracker=team": {"wandb": WANDB | {"project": "team"}},
    "tracker=team tracker.project=x tracker.mode=offline": {"wandb": WANDB | {"project": "x", "mode": "offline"}},
    "tracker=old": {"notes": {"name": "notes", "path": "elsewhere"}},
    "tracker=[old,wandb]": {"notes": {"name": "notes", "path": "elsewhere"}, "wandb": WANDB},
}


@pytest.mark.parametrize(("words", "expected"), CHOSEN.items())
def test_trackers_that_are_chosen(preflight: Preflight, words: str, expected: dict[str, Any]) -> None:
    checked = preflight.check(words.split(), multirun=False)
    assert task_config(checked.config, preflight.catalog)["tracker"] == expected


MISTAKES = {
    "tracker=wanbd": "tracker=wanbd is not known; did you mean 'wandb'?",
    "tracker=wandb,notes": "tracker=wandb,notes: for several trackers write tracker=[wandb,notes]",
    "tracker=[wandb,nots]": "tracker=nots is not known; did you mean 'notes'?",
    "tracker=[]": "tracker needs a choice (available: ",
    "tracker.projct=x": "unknown option 'tracker.wandb.projct' of tracker=wandb; did you mean 'tracker.wandb.",
    "tracker.wandb.projct=x": "unknown option 'tracker.wandb.projct' of tracker=wandb; did you mean 'tracker.wandb.",
    "tracker=[wandb,notes] tracker.project=x": "unknown option 'tracker.project'; did you mean 'tracker.",
    "tracker=[wandb,notes] tracker.wandb.path=x": "unknown option 'tracker.wandb.path' of tracker=wandb",
    "tracker.notes.path=x": "tracker.notes has no effect without tracker=notes: choose tracker=[wandb,notes]",
    "tracker=none tracker.project=x": "unknown option 'tracker.none.project' of tracker=none",
    "tracker.project=[1]": "tracker.wandb.project=[1] is not a string",
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.items())
def test_a_mistake_is_one_line(preflight: Preflight, words: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        preflight.check(words.split(), multirun=False)
    assert str(caught.value).startswith(expected) and "\n" not in str(caught.value)
    with pytest.raises(InputError) as caught:  # each is found in a sweep too
        preflight.check(["steps=1,2", *words.replace("tracker=wandb,notes", "tracker=wanbd").split()], multirun=True)


def test_cells_with_other_trackers(preflight: Preflight, tmp_path: Path) -> None:
    """An option goes with the cells whose tracker has it."""
    words = ["tracker=none,[wandb,notes],wandb", "tracker.wandb.project=a,b", f"hydra.sweep.dir={tmp_path}"]
    checked = preflight.check(words, multirun=True)
    assert checked.cells == [
        ["tracker=none"],
        *(
            [f"tracker={chosen}", f"tracker.wandb.project={name}"]
            for chosen in ("[wandb,notes]", "wandb")
            for name in "ab"
        ),
    ]


def test_cells_that_differ_in_an_option_of_the_only_tracker(preflight: Preflight, tmp_path: Path) -> None:
    words = ["tracker.project=a,b,c", f"hydra.sweep.dir={tmp_path}"]
    checked = preflight.check(words, multirun=True)
    composer = CellComposer(preflight.loader, checked.config, preflight.catalog)
    cells = [composer.compose(number, cell) for number, cell in enumerate(checked.cells or ())]
    assert [cell.config["tracker"] for cell in cells] == [{"wandb": WANDB | {"project": name}} for name in "abc"]


def test_cells_are_not_composed_anew_for_an_option_of_the_only_tracker(
    preflight: Preflight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["seed=1,2,3", "tracker.project=a", f"hydra.sweep.dir={tmp_path}"]
    checked = preflight.check(words, multirun=True)
    composer, composed = CellComposer(preflight.loader, checked.config, preflight.catalog), []
    original = composer_module.compose_job
    monkeypatch.setattr(composer_module, "compose_job", lambda *given: composed.append(given) or original(*given))
    for number, cell in enumerate(checked.cells or ()):
        composer.compose(number, cell)
    assert len(composed) == 1
