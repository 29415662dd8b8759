"""Sweeps on a Ray cluster of two nodes as a user runs them: the driver dies, a node dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffexp.files import read_json
from tests.cluster_sweeps import LIMIT, LONG, SWEEP, Workplace, pictures, rows
from tests.ray_cluster import RayCluster
from tests.runs import same_but_for_rounding
from tests.slurm_cluster import wait_for

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray() -> Iterator[RayCluster]:
    pytest.importorskip("ray")
    cluster = RayCluster()
    yield cluster
    cluster.stop()


def test_a_sweep_goes_on_after_a_dead_driver_and_a_dead_node(ray: RayCluster, tmp_path: Path):
    work = Workplace(tmp_path, dict(os.environ))
    cells = [*SWEEP.split(), "loop.tag=range(12)", "hydra.sweep.dir=sweep"]
    engine = ["hydra/launcher=ray", "hydra.launcher.jobs=2", f"hydra.launcher.address={ray.address}"]
    work.pace(LONG)
    driver = work.start(*cells, *engine)
    work.wait_for_draws(driver, workers=2)
    driver.send(signal.SIGKILL)
    driver = work.start("resume=sweep")
    wait_for(lambda: read_json(tmp_path / "sweep" / "work.json").get("attempt") == 2, "no second driver", LIMIT)
    ray.kill_node()
    wait_for(lambda: f" on {ray.host}): node failure" in driver.output(), "the dead node is not found", LIMIT)
    work.pace(0)
    code, out, errors = driver.finish()
    assert (code, errors) == (0, ""), out
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["done"] * 12
    assert len(work.notes("load")) <= 3
    drawn = work.drawn()
    assert {*drawn} == {f"{tag}:{index}" for tag in range(12) for index in range(4)}

    work.forget()
    code, out, errors = work.start(*cells[:-1], "hydra.sweep.dir=whole").finish()
    assert (code, errors) == (0, ""), out
    found, wanted = pictures(tmp_path / "sweep"), pictures(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    assert all(same_but_for_rounding(found[name], wanted[name]) for name in wanted)
