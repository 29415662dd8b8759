"""What is private of Hydra is used in one file, with versions of it that were tried."""

import ast
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
    text = (PACKAGE / "cli" / "hydra_internals.py").read_text(encoding="utf-8")
    lines, reasoned = text.splitlines(), set[int]()
    imports = [node for node in ast.parse(text).body if isinstance(node, ast.ImportFrom)]
    for node in (node for node in imports if re.match(r"(hydra|omegaconf)\._", node.module or "")):
        # A comment stands above it, or above the import that it follows without a gap.
        assert lines[node.lineno - 2].startswith("# ") or node.lineno - 1 in reasoned, lines[node.lineno - 1]
        reasoned.add(node.end_lineno or node.lineno)
    assert len(reasoned) >= 5
