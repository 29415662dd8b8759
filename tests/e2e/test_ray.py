"""Sweeps on a Ray cluster of two nodes as a user runs them: the driver dies, a node dies."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cluster_sweeps import SWEEP, Workplace, pictures, rows
from tests.ray_cluster import RayCluster

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
    driver = work.start(*cells, *engine)
    work.wait_for_draws(driver, workers=2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    driver = work.start("resume=sweep")
    work.wait_for_draws(driver, workers=2, after=len(work.notes("draw")))
    ray.kill_node()
    code, out, errors = work.finish(driver)
    assert (code, errors) == (0, ""), out
    assert f"node failure on {ray.host}" in out
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["done"] * 12
    assert len(work.notes("load")) <= 3
    drawn = work.drawn()
    assert {*drawn} == {f"{tag}:{index}" for tag in range(12) for index in range(4)}

    work.forget()
    code, out, errors = work.finish(work.start(*cells, "hydra.sweep.dir=whole"))
    assert (code, errors) == (0, ""), out
    found, wanted = pictures(tmp_path / "sweep"), pictures(tmp_path / "whole")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
