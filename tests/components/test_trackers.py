"""Trackers: what arrives at W&B, and that nothing they do ends a run."""

import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from diffexp.catalog.discover import discover
from diffexp.components.trackers.base import RunInfo, SampleRow, Tracker
from diffexp.components.trackers.none import NoTracker
from diffexp.components.trackers.several import Guarded
from diffexp.components.trackers.wandb import TAKES_RUNS, WandbTracker
from diffexp.components.trackers.wandb_mode import choose_mode, server_reachable
from diffexp.errors import InputError
from diffexp.report import report_sweep
from diffexp.sweeps.results import write_results
from tests.made_up import made_up_cell, made_up_sweep

KEY = "a" * 40


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who never heard of W&B, with a home of their own."""
    import os

    for name in [name for name in os.environ if name.startswith("WANDB_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NETRC", str(home / ".netrc"))
    for name in ("DATA_DIR", "CACHE_DIR", "CONFIG_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(home / name))
    server_reachable.cache_clear()
    TAKES_RUNS.clear()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Something that accepts connections where the W&B server is expected."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield listening


def info(folder: Path, name: str = "run") -> RunInfo:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"steps": 5, "scheduler": {"name": "ddim", "eta": 0.0}}
    return RunInfo(folder, config, name, "sweep-1", "sample", ["mnist", "ddim"], "a note", sweep=True)


def inspect(folder: Path) -> dict[str, Any]:
    (run,) = folder.glob("wandb/offline-run-*")
    return inspected(run)


def inspected(run: Path) -> dict[str, Any]:
    """What wandb itself reads from the folder of a run."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(run)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def pictures(folder: Path) -> list[Path]:
    paths = [folder / f"{index:06d}.png" for index in range(3)]
    for shade, path in enumerate(paths):
        Image.new("L", (32, 32), 80 * shade).save(path)
    return paths


def test_an_offline_run_holds_everything(tmp_path: Path):
    tracker = Guarded(WandbTracker())
    tracker.start(info(tmp_path))
    for step in range(3):
        tracker.log_step(step, {"x_std": 1.0 - 0.1 * step})
    paths = pictures(tmp_path)
    animation = tmp_path / "trajectory.gif"
    Image.open(paths[0]).save(animation, save_all=True, append_images=[Image.open(paths[1])])
    tracker.log_images("pictures", {"grid": paths[0], "animation": animation})
    tracker.log_samples([SampleRow(index, str(index + 5), 17, path) for index, path in enumerate(paths)])
    tracker.finish({"fid/mnist_cnn": 1.5, "nfe": 5}, "done")

    run = inspect(tmp_path)
    assert run["run_id"] == tracker.run_id
    assert (run["name"], run["project"], run["notes"]) == ("run", "diffexp", "a note")
    assert run["tags"] == ["mnist", "ddim"]
    assert (run["state"], run["exit_code"]) == ("finished", 0)
    assert run["config"]["scheduler"] == {"name": "ddim", "eta": 0.0}
    summary = run["summary"]
    assert (summary["fid/mnist_cnn"], summary["nfe"], summary["status"]) == (1.5, 5, "done")
    assert (summary["steps/step"], summary["steps/x_std"]) == (2, pytest.approx(0.8))
    assert (summary["samples_table"]["nrows"], summary["samples_table"]["ncols"]) == (3, 4)
    assert summary["samples"]["captions"] == ["0: 5", "1: 6", "2: 7"]
    assert summary["pictures/animation"]["path"].endswith(".gif")
    assert summary["pictures/grid"]["path"].endswith(".png")
    assert len(list(tmp_path.rglob("files/media/images/**/*.png"))) == 4, "the images are in the run folder itself"


def test_runs_alive_side_by_side_stay_apart(tmp_path: Path):
    trackers = [WandbTracker(project="side"), WandbTracker(project="side")]
    for number, tracker in enumerate(trackers):
        tracker.start(info(tmp_path / str(number), name=f"run {number}"))
    for number, tracker in enumerate(trackers):
        tracker.log_step(0, {"x_std": float(number)})
    trackers[0].finish({}, "interrupted")
    trackers[1].finish({}, "failed")
    found = [inspect(tmp_path / str(number)) for number in range(2)]
    assert [run["name"] for run in found] == ["run 0", "run 1"]
    assert [run["summary"]["steps/x_std"] for run in found] == [0, 1]
    assert [run["summary"]["status"] for run in found] == ["interrupted", "failed"]
    assert [run["exit_code"] for run in found] == [255, 1]
    assert trackers[0].run_id != trackers[1].run_id


def test_points_have_a_table_without_images(tmp_path: Path):
    tracker = WandbTracker()
    tracker.start(info(tmp_path))
    tracker.log_samples([SampleRow(0, "", 0, None)])
    tracker.finish({}, "done")
    summary = inspect(tmp_path)["summary"]
    assert summary["samples_table"]["nrows"] == 1
    assert "samples" not in summary


def test_names_longer_than_wandb_takes_are_cut(tmp_path: Path):
    tracker = WandbTracker()
    tracker.start(info(tmp_path, name="steps=10," * 40))
    tracker.finish({}, "done")
    assert len(inspect(tmp_path)["name"]) == 128


def test_disabled_writes_nothing(tmp_path: Path):
    tracker = WandbTracker(mode="disabled")
    tracker.start(info(tmp_path))
    tracker.log_step(0, {"x_std": 1.0})
    tracker.finish({}, "done")
    assert not list(tmp_path.glob("wandb/*run*"))


# the mode


def test_without_a_key_it_is_offline():
    assert choose_mode("auto") == "offline"


def test_online_without_a_key_would_ask_a_question(caplog: pytest.LogCaptureFixture):
    assert choose_mode("online") == "offline"
    assert "no API key for api.wandb.ai" in caplog.text


def test_with_a_key_and_a_network_it_is_online(server: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert choose_mode("auto") == "online"


def test_a_key_in_netrc_counts_for_its_host_only(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    host = f"127.0.0.1:{server.getsockname()[1]}"
    netrc = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(netrc))
    netrc.write_text(f"machine elsewhere.example\n  login user\n  password {KEY}\n")
    assert choose_mode("auto") == "offline"
    netrc.write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    assert choose_mode("auto") == "online"


def test_a_key_but_no_network_is_offline_with_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port, where nobody listens
    assert choose_mode("auto") == "offline"
    assert caplog.messages == ["W&B: 127.0.0.1:9 cannot be reached, logging offline"]


def test_a_network_behind_a_proxy_is_a_network(server: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    assert choose_mode("auto") == "online"


@pytest.mark.parametrize("requested", ["auto", "online", "offline"])
def test_wandb_mode_always_wins(requested: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode(requested) == "disabled"


def test_unknown_mode_is_an_input_error():
    with pytest.raises(InputError, match=r"tracker\.mode=ofline: choose one of auto, online, offline, disabled"):
        WandbTracker(mode="ofline")


def test_a_server_that_refuses_leaves_an_offline_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("diffexp.components.trackers.wandb.choose_mode", lambda requested: "online")
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    tracker = WandbTracker()
    tracker.start(info(tmp_path))
    tracker.finish({}, "done")
    assert "logging offline" in caplog.text
    assert inspect(tmp_path)["exit_code"] == 0


def test_a_server_that_refuses_is_asked_once_by_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    asked: list[str] = []

    def init(project: str, entity: str | None, info: RunInfo, mode: str) -> Any:
        asked.append(mode)
        time.sleep(0.02)
        if mode == "online":
            raise TimeoutError("nobody there")
        return SimpleNamespace(define_metric=lambda *_, **__: None, disabled=True)

    monkeypatch.setattr("diffexp.components.trackers.wandb.init_run", init)
    monkeypatch.setattr("diffexp.components.trackers.wandb.choose_mode", lambda requested: "online")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: WandbTracker().start(info(tmp_path / str(number))), range(4)))
    assert sorted(asked) == ["offline"] * 4 + ["online"]
    assert caplog.messages == ["W&B cannot be reached or refuses the key, logging offline: nobody there"]


# the guard


class Broken(NoTracker):
    """Fails in one method and counts what it is still asked."""

    def __init__(self, method: str) -> None:
        self.run_id = "abc"
        self.calls = 0
        self.method = method

    def start(self, info: RunInfo) -> None:
        self._meet("start")

    def log_step(self, step: int, values: dict[str, float]) -> None:
        self._meet("log_step")

    def finish(self, summary: dict[str, float], status: str) -> None:
        self._meet("finish")

    def _meet(self, method: str) -> None:
        self.calls += 1
        if method == self.method:
            raise OSError("disk full")


def use(tracker: Tracker, folder: Path) -> None:
    tracker.start(info(folder))
    for step in range(3):
        tracker.log_step(step, {})
    tracker.finish({}, "done")


@pytest.mark.parametrize(("method", "calls"), [("start", 1), ("log_step", 5), ("finish", 5)])
def test_a_call_that_fails_costs_itself_alone_in_one_line(
    method: str, calls: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    broken = Broken(method)
    guarded = Guarded(broken)
    with caplog.at_level(logging.INFO):
        use(guarded, tmp_path)
    assert caplog.messages == [f"tracker Broken failed in {method}, the run goes on without it: OSError: disk full"]
    assert broken.calls == calls
    assert guarded.run_id == (None if method == "start" else "abc")


def test_wandb_finishes_with_a_summary_whatever_fails_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tracker = WandbTracker()
    guarded = Guarded(tracker)
    guarded.start(info(tmp_path))
    guarded.log_images("pictures", {"grid": tmp_path / "missing.png"})
    guarded.log_samples([SampleRow(0, "a", 1, tmp_path / "missing.png")])
    guarded.log_step(0, {"x_std": 2.0})
    guarded.finish({"nfe": 5}, "done")
    run = inspect(tmp_path)
    assert (run["state"], run["exit_code"]) == ("finished", 0)
    assert (run["summary"]["nfe"], run["summary"]["status"], run["summary"]["steps/x_std"]) == (5, "done", 2)


def test_wandb_finishes_without_a_summary(tmp_path: Path):
    tracker = WandbTracker()
    tracker.start(info(tmp_path))
    with pytest.raises(TypeError):
        tracker.finish({1: object()}, "failed")  # pyright: ignore[reportArgumentType]
    assert inspect(tmp_path)["exit_code"] == 1


@pytest.mark.parametrize("project", ["", "a/b", "a:b", "a" * 129])
def test_a_project_that_wandb_refuses(project: str):
    with pytest.raises(InputError, match="W&B takes 1 to 128 characters"):
        WandbTracker(project=project)


def test_an_interrupt_is_not_swallowed(tmp_path: Path):
    class Interrupted(NoTracker):
        def start(self, info: RunInfo) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded(Interrupted()).start(info(tmp_path))


@pytest.mark.parametrize("make", [NoTracker, lambda: Guarded(NoTracker())])
def test_no_tracker_does_nothing(make: Callable[[], Tracker], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    use(make(), tmp_path)
    assert make().run_id is None
    assert not caplog.messages
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


# comparisons of sweeps


def test_a_sweep_is_a_run_of_its_own_that_compares(tmp_path: Path):
    sweep = made_up_sweep(tmp_path / "sweep", ["euler", "ddim"], [5, 10])
    for file in sweep.glob("*/run.json"):
        Image.new("L", (64, 32)).save(file.parent / "grid.png")
        record = json.loads(file.read_text())
        record["config"] |= {"tracker": {"name": "wandb", "project": "compared"}, "tags": ["study"]}
        file.write_text(json.dumps(record))
    write_results(sweep)
    assert report_sweep(sweep, discover()) == sweep / "report.html"

    run = inspect(sweep)
    assert (run["name"], run["project"], run["tags"]) == ("comparison sweep", "compared", ["study"])
    assert run["config"]["axes"] == {"scheduler": ["euler", "ddim"], "steps": ["5", "10"]}
    summary = run["summary"]
    assert summary["results"]["nrows"] == summary["cells"] == 4
    assert summary["pictures"]["captions"] == [f"{name} · {n} steps" for name in ("euler", "ddim") for n in (5, 10)]
    assert [key for key in summary if "fid" in key]
    (page,) = sweep.glob("wandb/offline-run-*/files/media/html/*.html")
    assert page.read_text(encoding="utf-8") == (sweep / "report.html").read_text(encoding="utf-8")


def test_a_sweep_that_is_not_finished_is_not_compared_yet(tmp_path: Path):
    sweep = made_up_sweep(tmp_path, ["euler"], [5])
    made_up_cell(sweep, "1_x", {"steps": 9, "tracker": {"name": "wandb"}}, status="interrupted")
    assert report_sweep(sweep, discover()) == sweep / "report.html"
    assert not (sweep / "wandb").exists()


def test_a_report_that_cannot_be_made_costs_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    assert report_sweep(tmp_path, discover()) is None
    assert caplog.text == "", "where no cell has begun there is nothing to report"
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "run.json").write_text("{}")
    assert report_sweep(tmp_path, discover()) is None
    assert "no report: InputError" in caplog.text
