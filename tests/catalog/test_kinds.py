"""What differs between kinds is read from their records."""

import inspect
from pathlib import Path

import pytest

import diffexp
from diffexp.catalog.discover import discover
from diffexp.catalog.kinds import KINDS, TARGET


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_kind_has_a_folder_and_a_decorator(kind):
    folder = Path(inspect.getfile(diffexp)).parent / "components" / kind.folder
    assert (folder / "__init__.py").is_file()
    assert {entry.file.parent for entry in discover().of_kind(kind.name).values() if entry.built_in} == {folder}
    assert getattr(diffexp, kind.name).kind == kind.name


def test_where_options_stand():
    assert {kind.path("x") for kind in KINDS.values()} == {*KINDS} - {"metric", "tracker"} | {"metric.x", "tracker.x"}
    assert KINDS["grid"].reserved == ("name", TARGET, "timesteps", "sigmas")
    assert KINDS["loop"].reserved == ("name", TARGET)
