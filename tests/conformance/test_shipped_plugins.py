"""The plugins in ``plugins/``: together they cover every kind, and the commands in their docstrings compose."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from diffexp.catalog.discover import Catalog, discover
from diffexp.catalog.kinds import KINDS
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session

FOLDER = Path(__file__).parents[2] / "plugins"
FILES = sorted(path for path in FOLDER.rglob("*.py") if not path.name.startswith("test_"))
TITLES = {path.relative_to(FOLDER).as_posix(): ast.get_docstring(ast.parse(path.read_text())) or "" for path in FILES}
TYPED = [(name, words) for name, title in TITLES.items() for words in re.findall("python -m diffexp (.*)", title)]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover()


@pytest.fixture(scope="module")
def preflight(catalog: Catalog) -> Preflight:
    with hydra_session(catalog) as hydra:
        return Preflight(hydra, catalog)


def test_every_kind_is_shown(catalog: Catalog) -> None:
    shown = {entry.kind for entry in catalog.entries.values() if entry.file.is_relative_to(FOLDER)}
    assert shown == set(KINDS)


def test_every_plugin_says_what_it_does_and_what_its_options_mean(catalog: Catalog) -> None:
    entries = [entry for entry in catalog.entries.values() if entry.file.is_relative_to(FOLDER)]
    assert len(entries) >= 8
    for entry in entries:
        assert entry.doc
        for option in entry.options:
            assert re.search(rf"\b{option.name}\b.*: ", entry.doc), f"{entry.name}: {option.name}"


def test_every_plugin_has_a_command_and_a_test() -> None:
    tested = {path.name for path in FOLDER.rglob("test_*.py")}
    for place in {path.relative_to(FOLDER).parts[0] for path in FILES}:
        assert f"test_{Path(place).stem}.py" in tested
        assert any(name.startswith(place) for name, _ in TYPED), place


@pytest.mark.parametrize(("name", "words"), TYPED)
def test_its_commands_can_be_typed(name: str, words: str, preflight: Preflight) -> None:
    given = shlex.split(words)
    preflight.check([word for word in given if word != "-m"], multirun="-m" in given)
