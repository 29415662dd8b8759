"""``from diffexp import ...``: every public name, and nothing imported before it is used."""

import ast
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import diffexp

ROOT = Path(__file__).parents[2]
DOORS = {"diffexp", "diffexp.testing", "diffexp.plan.adapter", "diffexp.certify"}
"""Modules that plugins, their tests and the READMEs may import; the last has the name of a room."""
PLUGIN_FILES = sorted((ROOT / "plugins").rglob("*.py"))
READMES = sorted(path for path in ROOT.rglob("README.md") if not {".venv", "outputs"} & set(path.parts))


def imported(code: str) -> Iterator[str]:
    """The modules of diffexp that some code imports."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "diffexp")
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == "diffexp":
            yield node.module or ""


def declared() -> dict[str, str]:
    """Name to module, as type checkers read them."""
    (block,) = (
        node
        for node in ast.parse(Path(diffexp.__file__ or "").read_text()).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name)
    )
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == len(block.body)
    return {alias.asname or "": node.module or "" for node in imports for alias in node.names}


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    assert declared() == diffexp._HOMES
    assert set(vars(diffexp)["__all__"]) == set(declared()) <= set(dir(diffexp))


@pytest.mark.parametrize("name", sorted(diffexp._HOMES))
def test_every_name_resolves(name: str) -> None:
    home = getattr(getattr(diffexp, name), "__module__", "")
    assert not home.startswith("diffexp") or home.startswith(diffexp._HOMES[name])


def test_no_module_hides_a_name() -> None:
    assert not {module.name for module in pkgutil.iter_modules(diffexp.__path__)} & set(diffexp._HOMES)
    with pytest.raises(AttributeError, match="module 'diffexp' has no attribute 'nothing'"):
        diffexp.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import diffexp; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["diffexp"]


@pytest.mark.parametrize("file", PLUGIN_FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_plugins_and_their_tests_import_only_what_is_public(file: Path) -> None:
    assert set(imported(file.read_text())) <= DOORS


@pytest.mark.parametrize("file", READMES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_readmes_import_only_what_is_public(file: Path) -> None:
    for code in re.findall(r"^```python\n(.*?)^```", file.read_text(), re.DOTALL | re.MULTILINE):
        assert set(imported(code)) <= DOORS
