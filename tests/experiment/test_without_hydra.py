"""A run, a sweep of cells and a report are made from plain configs in a process that cannot import Hydra.

Nor does one of an exact model and our own schedulers import diffusers, which takes longer than torch.
"""

import json
import subprocess
import sys
from pathlib import Path

from tests.runs import images, same_but_for_rounding

CODE = """
import json, sys
sys.modules["hydra"] = sys.modules["omegaconf"] = None  # importing them raises ImportError

from pathlib import Path
from diffexp.catalog.discover import discover
from diffexp.experiment.run import run_experiment
from diffexp.report import write_report
from diffexp.sweeps.cell import Cell
from diffexp.sweeps.runner import Runner

catalog, (exact, config) = discover(), json.loads(Path("configs.json").read_text())
run_experiment(exact, Path("exact").absolute(), catalog)
assert "diffusers.utils" not in sys.modules
run_experiment(config, Path("one").absolute(), catalog)
cells = [Cell(i, {**config, "seed": i}, Path("sweep", str(i)).absolute()) for i in range(2)]
def run_cell(cell, context):
    run_experiment(cell.config, cell.folder, catalog, context=context)


failures = Runner(run_cell, catalog, batch=None).run(cells, resumed=False)
assert not failures, failures
print(write_report([Path("sweep")]).name)
"""


def test_runs_sweeps_and_reports_need_no_hydra(run, tmp_path: Path) -> None:
    words = ("scheduler=euler", "steps=2", "num_samples=2", "batch_size=2")
    exact, usual = run("model=mixture", "metric=[cost,wasserstein]", *words).folder, run("model=mnist", *words).folder
    configs = [json.loads((folder / "run.json").read_text())["config"] for folder in (exact, usual)]
    (tmp_path / "configs.json").write_text(json.dumps(configs))
    done = subprocess.run([sys.executable, "-c", CODE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "report.html"), done.stderr
    expected = images(usual)
    for folder in (tmp_path / "one", tmp_path / "sweep" / "0"):
        found = images(folder)
        assert found.keys() == expected.keys()
        assert all(same_but_for_rounding(found[index], expected[index]) for index in expected)
    assert json.loads((tmp_path / "sweep" / "1" / "run.json").read_text())["status"] == "done"
