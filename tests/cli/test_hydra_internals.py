"""What is private of Hydra is used in one file, with versions of it that were tried."""

import re
from importlib.metadata import version
from pathlib import Path

import diffexp
from diffexp.cli import hydra_internals

PACKAGE = Path(diffexp.__path__[0])
PRIVATE = re.compile(r"^\s*(from|import) (hydra\._|omegaconf\._)|\bhydra\._internal\b|\bomegaconf\._", re.MULTILINE)


def test_one_file_imports_what_is_private():
    files = [file for file in PACKAGE.rglob("*.py") if PRIVATE.search(file.read_text(encoding="utf-8"))]
    assert [file.relative_to(PACKAGE).as_posix() for file in files] == ["cli/hydra_internals.py"]


def test_the_installed_version_was_tried():
    assert version("hydra-core") in hydra_internals.TRIED


def test_each_use_has_a_reason():
    lines = (PACKAGE / "cli" / "hydra_internals.py").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"from (hydra|omegaconf)\._", line):
            before = [one for one in lines[:number] if not PRIVATE.match(one)]
            assert before[-1].startswith("# ") or lines[number - 1].startswith("from hydra._"), line
