"""Runs that are logged online, to a server on this machine that speaks what wandb's client sends."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.experiment.context import RunContext
from diffexp.experiment.run import RunResult, SweepInfo, run_experiment
from diffexp.report import report_sweep
from diffexp.sweeps.results import write_results
from tests.wandb_server import WandbServer

PLUGIN = """
from diffexp import loop
from diffexp.plan.compile import sample

REACHED = []

@loop(solves_from_noise=True)
def halting(batch):
    '''Denoise; before the fourth evaluation of the first batch, call what a test has put into REACHED.'''
    network, calls = batch.network, 0

    def evaluate(u, level):
        nonlocal calls
        calls += 1
        if calls == 4 and REACHED:
            REACHED.pop()()
        return network(u, level)

    return sample(batch.sampler, evaluate, batch.noise() * batch.sampler.start_std, batch.noise)
"""
WORDS = "model=mixture model.shape=[1,8,8] steps=6 num_samples=6 batch_size=3 metric=[cost,wasserstein]".split()
W2 = "sliced_wasserstein2/samples"


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    file = tmp_path_factory.mktemp("plugins") / "halts.py"
    file.write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(file))
        yield discover()


def composed(catalog: Catalog, *words: str) -> dict[str, Any]:
    with hydra_session(catalog) as hydra:
        return task_config(Preflight(hydra, catalog).check([*WORDS, *words], multirun=False).config, catalog)


def halting(catalog: Catalog, then: Callable[[], None]) -> None:
    catalog.get("loop", "halting").load().__globals__["REACHED"][:] = [then]


def test_a_run_is_seen_while_it_samples(server: WandbServer, plugged: Catalog, tmp_path: Path) -> None:
    seen: list[int] = []

    def wait_for_history() -> None:
        assert server.wait_for(lambda: any(run.values("steps/x_std") for run in server.runs.values()), 60)
        seen.extend(len(run.history) for run in server.runs.values())

    halting(plugged, wait_for_history)
    folder = tmp_path / "run"
    config = composed(plugged, "loop=halting", "tracker.project=online", "tags=[mine]", "notes=remark")
    result = run_experiment(config, folder, plugged)
    record = json.loads((folder / "run.json").read_text())
    (run,) = server.runs.values()
    assert seen and seen[0] < len(run.history), "rows arrived before the sampling of the first batch had ended"
    assert (run.name, run.attributes["project"]) == (record["wandb_id"], "online")
    assert run.attributes["displayName"] == "mixture · ddim · 6 steps"
    assert run.attributes["tags"] == ["mine", "mixture", "ddim", "halting"]
    assert run.config["scheduler"]["name"] == "ddim"
    facts = run.config["facts"]
    assert facts["plan_sha256"] == record["plan_sha256"] and facts["device"] == record["device"]
    assert (facts["nfe"], facts["forward_passes"], facts["versions"]) == (6, 6, record["versions"])
    assert facts["plugins"][0]["used_for"] == ["loop=halting"]
    assert run.exit_code == 0
    # Scalars of every step, and previews of x0 over the same axis.
    rows = [row for row in run.history if "steps/x_std" in row]
    assert [row["steps/step"] for row in rows] == list(range(6))
    assert all({"steps/timestep", "steps/sigma", "steps/x0_change_rms"} <= row.keys() for row in rows[1:])
    assert [row["steps/step"] for row in run.history if "steps/x0" in row] == list(range(6))
    # Samples batch by batch; metrics in the history and in the summary.
    assert [row["samples_done"] for row in run.history if "samples" in row] == [3, 6]
    assert [caption.partition(":")[0] for row in run.values("samples") for caption in row["captions"]] == list("012345")
    assert run.values(W2)[-1] == pytest.approx(result.metrics[W2])
    assert run.summary[W2] == pytest.approx(result.metrics[W2])
    assert run.summary["status"] == "done"
    # Every image that the history names was uploaded, once.
    images = [name for name in run.files if name.endswith((".png", ".gif"))]
    named = [file for key in ("samples",) for row in run.values(key) for file in row["filenames"]]
    named += [row["path"] for key in ("steps/x0", "pictures/grid", "pictures/trajectory") for row in run.values(key)]
    assert {*named} < {*images} and len(images) == len({run.files[name] for name in images})
    # Artifacts: the table, the plan and the plugin.
    (table,) = server.artifacts_of(run.name, "run_table")
    (content,) = table.files.values()
    assert len(json.loads(content)["data"]) == 6
    (plan,) = server.artifacts_of(run.name, "plan")
    assert plan.files == {"plan.csv": (folder / "plan.csv").read_bytes()}
    (code,) = server.artifacts_of(run.name, "code")
    assert code.files == {"halts.py": PLUGIN.encode()}


def sweep_of(catalog: Catalog, folder: Path) -> Path:
    for number, steps in enumerate((3, 4)):
        info = SweepInfo(folder, number, swept=["steps"])
        run_experiment(composed(catalog, f"steps={steps}"), folder / f"{number}_cell", catalog, info, RunContext())
    write_results(folder)
    return folder


def test_a_sweep_is_a_group_with_a_comparison_and_a_workspace(
    server: WandbServer, plugged: Catalog, tmp_path: Path
) -> None:
    sweep = sweep_of(plugged, tmp_path / "2026-11-30" / "12-00-00")
    assert report_sweep(sweep, plugged)
    runs = list(server.runs.values())
    assert {run.attributes["groupName"] for run in runs} == {"2026-11-30/12-00-00"}
    assert [run.attributes["displayName"] for run in runs] == ["3 steps", "4 steps", "comparison 12-00-00"]
    assert [run.attributes["jobType"] for run in runs] == ["cell", "cell", "comparison"]
    assert [run.exit_code for run in runs] == [0, 0, 0]
    comparison = runs[2]
    assert {name: comparison.config[name] for name in ("model", "seed", "num_samples", "cells")} == {
        "model": "mixture",
        "seed": 0,
        "num_samples": 6,
        "cells": 2,
    }
    ((content,),) = [
        one.files.values() for one in server.artifacts_of(comparison.name, "run_table") if one.name.endswith("results")
    ]
    table = json.loads(content)
    assert len(table["data"]) == 2 and W2 in table["columns"]
    (files,) = server.artifacts_of(comparison.name, "comparison")
    assert {"report.html", "results.csv"} <= files.files.keys()
    (view,) = server.views
    spec = json.dumps(view)
    assert "2026-11-30/12-00-00" in spec and W2 in spec and "steps/x0_change_rms" in spec


def test_a_run_that_is_continued_is_one_run(server: WandbServer, plugged: Catalog, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    config, folder = composed(plugged, "loop=halting", "seed=1"), tmp_path / "sweep" / "0_cell"
    info = SweepInfo(folder.parent, 0, resumed=True)
    halting(plugged, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(config, folder, plugged, info)
    (run,) = server.runs.values()
    assert (run.exit_code, run.summary["status"]) == (255, "interrupted")
    run_experiment(config, folder, plugged, info)
    assert list(server.runs) == [run.name], "no second run"
    assert (run.exit_code, run.summary["status"]) == (0, "done")


def test_a_server_that_dies_in_mid_run_and_returns(server: WandbServer, plugged: Catalog, tmp_path: Path) -> None:
    halting(plugged, server.stop)
    import threading

    threading.Timer(3, server.start).start()
    result = run_experiment(composed(plugged, "loop=halting", "seed=2"), tmp_path / "run", plugged)
    (run,) = server.runs.values()
    assert run.exit_code == 0 and run.values("steps/step")
    assert run.summary[W2] == pytest.approx(result.metrics[W2])
    assert [row["samples_done"] for row in run.history if "samples" in row] == [3, 6]


def test_nothing_is_lost_where_the_server_does_not_return(
    server: WandbServer,
    plugged: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    from tests.components.test_trackers import inspected

    monkeypatch.setattr("diffexp.components.trackers.wandb.FINISH_SECONDS", 2.0)
    halting(plugged, server.stop)
    folder = tmp_path / "run"
    result = run_experiment(composed(plugged, "loop=halting", "seed=3"), folder, plugged)
    assert json.loads((folder / "run.json").read_text())["status"] == "done"
    (local,) = folder.glob("wandb/run-*")
    assert f"upload the rest with: wandb sync {local}" in caplog.text
    kept = inspected(local)
    assert kept["summary"][W2] == pytest.approx(result.metrics[W2])
    assert kept["summary"]["samples"]["count"] == 3
    began = time.monotonic()
    run_experiment(composed(plugged, "seed=4"), tmp_path / "next", plugged)
    assert list((tmp_path / "next").glob("wandb/offline-run-*")), "the next run does not wait for that server again"
    assert time.monotonic() - began < 60


def test_a_wrong_key_leaves_an_offline_run(
    server: WandbServer,
    plugged: Catalog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server, "key", "b" * 40)
    result: RunResult = run_experiment(composed(plugged, "seed=5"), tmp_path / "run", plugged)
    assert result.status == "done" and server.refused and not server.runs
    assert "W&B cannot be reached or refuses the key, logging offline" in caplog.text
    assert list((tmp_path / "run").glob("wandb/offline-run-*"))
