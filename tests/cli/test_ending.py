"""What a sweep prints at its end, besides its table."""

from pathlib import Path

import pytest

from diffexp.catalog.discover import discover
from diffexp.cli.command import opens
from diffexp.cli.ending import end_sweep, sync_commands
from diffexp.sweeps.record import SweepRecord
from diffexp.sweeps.results import read_cells
from tests.made_up import made_up_cell

TRACKERS = """
from diffexp import tracker

class Base:
    run_id = None
    def start(self, info): pass
    def finish(self, summary, status): pass

@tracker
class Local(Base):
    @staticmethod
    def sync_command(sweep):
        return f"local sync {sweep.name}/*" if sweep.name == "sweep" else None

@tracker
class Plain(Base):
    pass

@tracker
class Rude(Base):
    @staticmethod
    def sync_command(sweep):
        raise RuntimeError("no")
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep whose cells have different trackers."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text(TRACKERS)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path / "plugins"))
    for number, name in enumerate(("local", "plain", "rude", "local", "gone")):
        config = {"scheduler": {"name": f"s{number}"}, "tracker": {name: {"name": name}}}
        made_up_cell(tmp_path / "sweep", f"{number}_a", config, quality=1 + number)
    return tmp_path / "sweep"


def test_one_command_uploads_all_cells(sweep: Path):
    assert [*sync_commands(sweep, read_cells(sweep), discover())] == ["local sync sweep/*"]
    assert [
        *sync_commands(sweep.rename(sweep.with_name("done")), read_cells(sweep.with_name("done")), discover())
    ] == []


def test_the_end_of_a_sweep_is_printed(
    sweep: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    end_sweep(sweep, SweepRecord([], [[]] * 5), discover(), "psnr")
    assert capsys.readouterr().out.startswith("5 cells ranked by psnr (higher is better)\n")
    assert "upload the runs of all cells with: local sync sweep/*" in caplog.messages
    assert {"results.csv", "report.html"} <= {path.name for path in sweep.iterdir()}


def test_how_to_open_the_report_depends_on_where_one_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    page = Path("/data/a b/report.html")
    server = "python -m diffexp.report --watch '/data/a b'"
    assert opens(page) == server
    monkeypatch.setenv("DISPLAY", ":0")
    assert opens(page) == "python -m webbrowser file:///data/a%20b/report.html"
    monkeypatch.setenv("SSH_CONNECTION", "1.2.3.4 5 6.7.8.9 22")
    assert opens(page) == server
