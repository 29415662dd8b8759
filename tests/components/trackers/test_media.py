"""Videos and sounds in trackers, read back with what they wrote."""

import json
import wave
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from diffexp.components.media import Media
from diffexp.components.trackers.base import RunInfo
from diffexp.components.trackers.tensorboard import TensorBoardTracker
from diffexp.components.trackers.trackio import TrackioTracker
from diffexp.components.trackers.wandb import WandbTracker
from diffexp.experiment import media_files
from diffexp.experiment.media_files import write_media


@pytest.fixture
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """A video and a sound, by caption."""
    monkeypatch.setattr(media_files, "ffmpeg", lambda: None)
    write_media(tmp_path, 0, torch.rand(4, 3, 8, 8), Media("video", 5.0))
    write_media(tmp_path, 1, torch.linspace(-1, 1, 800).expand(2, -1), Media("sound", 800.0))
    return {"sample 0": tmp_path / "000000.gif", "sample 1": tmp_path / "000001.wav"}


def info(folder: Path) -> RunInfo:
    return RunInfo(folder, {"steps": 3}, "moving", None, "run", [], None, sweep=False)


def test_wandb_has_both(media: Mapping[str, Path], tmp_path: Path) -> None:
    tracker = WandbTracker()
    tracker.start(info(tmp_path))
    tracker.log_media(media)
    tracker.finish({}, "done")
    kept = {path.suffix: path for path in tmp_path.rglob("files/media/**/*") if path.is_file()}
    for path in media.values():
        assert kept[path.suffix].read_bytes() == path.read_bytes()


def test_trackio_has_a_panel_for_each(media: Mapping[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    from trackio.sqlite_storage import SQLiteStorage

    tracker = TrackioTracker(project="moving")
    tracker.start(info(tmp_path))
    tracker.log_media(media)
    tracker.finish({}, "done")
    (known,) = SQLiteStorage.get_run_records("moving")
    logs = SQLiteStorage.get_logs("moving", known["name"], run_id=known["id"])
    kinds = {name: json.dumps(row[name]) for row in logs for name in row if name.startswith("media/")}
    assert "trackio.video" in kinds["media/sample 0"] and "trackio.audio" in kinds["media/sample 1"]


def test_tensorboard_plays_sounds_and_has_a_slider_over_frames(media: Mapping[str, Path], tmp_path: Path) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tracker = TensorBoardTracker()
    tracker.start(info(tmp_path))
    tracker.log_media(media)
    tracker.finish({}, "done")
    board = reader.EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"images": 0, "audio": 0}).Reload()
    assert [event.step for event in board.Images("media/sample 0")] == [0, 1, 2, 3]
    (sound,) = board.Audio("media/sample 1")
    assert sound.sample_rate == 800
    heard = tmp_path / "heard.wav"
    heard.write_bytes(sound.encoded_audio_string)
    with wave.open(str(heard)) as file:
        assert (file.getnframes(), file.getnchannels(), file.getframerate()) == (800, 1, 800)
