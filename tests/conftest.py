"""Every test runs offline and on one thread; what is set here is inherited by the processes that tests start."""

import atexit
import os
import shutil
import signal
import tempfile

# Before torch is imported: idle OpenMP threads that spin make tiny networks a hundred times slower.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "passive"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share what the process that started them has set
    _scratch = tempfile.mkdtemp(prefix="diffexp-tests-")
    atexit.register(shutil.rmtree, _scratch, ignore_errors=True)
    os.environ["DIFFEXP_CACHE"] = os.path.join(_scratch, "cache")  # no plan of an earlier suite, nothing left to users
    os.environ["DIFFEXP_TESTS_FORK_SERVER"] = os.path.join(_scratch, "commands")
    os.environ["TRACKIO_DIR"] = os.path.join(_scratch, "trackio")  # read when trackio is imported
os.environ.pop("DIFFEXP_PLUGINS", None)

from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.experiment.context import RunContext
from diffexp.experiment.run import RunResult, SweepInfo, run_experiment
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.engines.local import cores
from diffexp.sweeps.failures import Failure
from diffexp.sweeps.runner import Runner
from tests.checkpoints import save_unet, tiny_unet
from tests.runs import PLUGINS

torch.set_num_threads(1)
# A suite started in the background ignores Ctrl-C, and so would the commands that it starts to interrupt them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
settings.register_profile("diffexp", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("diffexp")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors, because some tests wait for servers and clusters."""
    return cores() + 1


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    """The built-in options and the plugins of tests/runs.py."""
    file = tmp_path_factory.mktemp("plugins") / "careless.py"
    file.write_text(PLUGINS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(file.parent))
        yield discover()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unet(tmp_path_factory.mktemp("checkpoints") / "tiny", tiny_unet())


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The tiny checkpoint of a family (tests/families), made when it is first wanted."""
    home = tmp_path_factory.mktemp("pipelines")

    @cache
    def tiny(family: str) -> Path:
        from tests.families import FAMILIES  # takes seconds to import

        return FAMILIES[family].save(home / family)

    return tiny


@pytest.fixture(scope="module")
def compose(catalog: Catalog) -> Callable[..., dict[str, Any]]:
    """The config of a command line, without a tracker unless one is named."""

    @cache
    def compose(*overrides: str) -> dict[str, Any]:
        with hydra_session(catalog) as hydra:
            words = ["tracker=none", "metric=cost", *overrides]
            return task_config(Preflight(hydra, catalog).check(words, multirun=False).config)

    return compose


@pytest.fixture
def run(catalog: Catalog, compose: Callable[..., dict[str, Any]], tmp_path: Path) -> Callable[..., RunResult]:
    """Run a command line in the next of the folders 0, 1, ... of ``tmp_path``."""
    numbers = count()

    def run(*overrides: str, **changes: Any) -> RunResult:
        """``changes`` of top-level values spare composing the config anew."""
        return run_experiment(compose(*overrides) | changes, tmp_path / str(next(numbers)), catalog)

    return run


@pytest.fixture
def failures() -> list[Failure]:
    """Failures of the cells that ``together`` has run."""
    return []


@pytest.fixture
def together(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], failures: list[Failure], tmp_path: Path
) -> Callable[..., list[Path]]:
    """Run command lines as the cells of a sweep in ``tmp_path/sweep``; their folders."""
    sweep = tmp_path / "sweep"

    def run(
        *lines: tuple[str, ...],
        batch: int | None = None,
        resumed: bool = False,
        straggler_seconds: float = 20.0,
        **more: Any,
    ) -> list[Path]:
        """Cells wait long for each other, so that counts of calls do not depend on how busy the machine is."""

        def run_cell(cell: Cell, context: RunContext) -> None:
            run_experiment(cell.config, cell.folder, catalog, SweepInfo(sweep, cell.number, resumed), context)

        cells = [Cell(i, compose(*words), sweep / str(i)) for i, words in enumerate(lines)]
        failures.extend(Runner(run_cell, catalog, batch, straggler_seconds, **more).run(cells, resumed))
        return [cell.folder for cell in cells]

    return run
