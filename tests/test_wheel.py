"""What users install: built as a release would be, run from another folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*command: str | Path, cwd: Path) -> str:
    """Run it away from the checkout; its output."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist, and a wheel built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of a venv that holds the wheel and borrows everything else from the venv of the tests."""
    folder = tmp_path_factory.mktemp("a place with spaces") / "venv"
    venv.create(folder)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    places = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", "venv", vars=places))
    # Lines of a .pth file only add folders: an editable diffexp in the borrowed one stays out of sight.
    (own / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--no-index", "--no-deps", "--quiet"]
    call(*pip, wheel, cwd=folder)
    return scripts


def test_the_wheel_has_what_the_package_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    needed = ("diffexp/components/models/weights", "diffexp/components/metrics/weights", "diffexp/report/templates")
    for folder, target in (("conf", "diffexp/conf"), *((folder, "") for folder in needed)):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and not path.name.startswith(".")]
        inside = {Path(target or folder, path.relative_to(ROOT / folder)).as_posix() for path in files}
        assert inside
        assert inside <= names
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "plugins/", "conf/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_finds_its_own_configs_and_weights(installed: Path, tmp_path: Path) -> None:
    code = "from diffexp.catalog.sources import conf_dir; import diffexp; print(conf_dir()); print(diffexp.__path__[0])"
    conf, package = (Path(line) for line in call(installed / "python", "-c", code, cwd=tmp_path).splitlines())
    assert conf == package / "conf"
    assert package.is_relative_to(installed.parent)
    assert (conf / "config.yaml").is_file()
    assert (package / "components" / "models" / "weights" / "mnist" / "scheduler_config.json").is_file()


def test_help_and_a_run_from_another_folder(installed: Path, tmp_path: Path) -> None:
    by_module = call(installed / "python", "-m", "diffexp", "--help", cwd=tmp_path)
    by_script = call(installed / "diffexp", "--help", cwd=tmp_path)
    assert "scheduler" in by_module
    assert "scheduler" in by_script
    call(installed / "diffexp", "model=gaussian", "steps=3", "num_samples=4", "tracker=none", cwd=tmp_path)
    assert list(tmp_path.glob("outputs/*/*/metrics.json"))
