"""Videos and sounds: their files, the images that stand for them, and what a run does with both."""

import logging
import stat
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffexp.catalog.discover import Catalog, discover
from diffexp.components.media import STRIP_FRAMES, spectrogram, stills
from diffexp.components.pixels import image_to_pixels
from diffexp.errors import InputError
from diffexp.experiment import media_files
from diffexp.experiment.result import RunResult
from tests.media_models import PLUGIN
from tests.runs import files, metrics, record

CLIPS = ("model=clips", "steps=3", "num_samples=3", "batch_size=2")
TONES = ("model=tones", "steps=3", "num_samples=2")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    folder = tmp_path_factory.mktemp("media")
    (folder / "moving.py").write_text(PLUGIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(folder))
        yield discover()


@pytest.fixture
def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media_files, "ffmpeg", lambda: None)


def frames_of(gif: Path) -> tuple[int, tuple[int, int], int]:
    with Image.open(gif) as image:
        return getattr(image, "n_frames", 1), image.size, image.info["duration"]


def samples(folder: Path) -> set[str]:
    return {path.name for path in (folder / "samples").iterdir()}


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_video_is_a_gif_and_a_strip_of_its_frames(run: Callable[..., RunResult]) -> None:
    result = run(*CLIPS)
    assert samples(result.folder) == {f"00000{i}.{suffix}" for i in range(3) for suffix in ("gif", "png")}
    assert frames_of(result.media[2]) == (9, (8, 8), 200)
    assert [path.name for path in result.media.values()] == ["000000.gif", "000001.gif", "000002.gif"]
    strip = result.samples[2]
    assert strip.shape == (3, 8, STRIP_FRAMES * 8)
    first, last = strip[..., :8], strip[..., -8:]
    assert torch.equal(first.roll(8, -1), last) and not torch.equal(first.roll(1, -1), first)
    with Image.open(result.media[2]) as video:
        shown = image_to_pixels(video.convert("RGB")).float() / 255
    assert (shown - first).abs().max() < 0.2  # the colours of a GIF are fewer
    assert record(result.folder)["media"] == {"kind": "video", "rate": 5.0}
    assert record(result.folder)["image_shape"] == [3, 8, 64]
    assert {"grid.png", "trajectory.png", "trajectory.gif"} <= files(result.folder)
    with Image.open(result.folder / "grid.png") as grid:
        assert grid.width > 2 * grid.height  # strips lie below each other


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_sound_is_a_wav_and_its_spectrogram(run: Callable[..., RunResult]) -> None:
    result = run(*TONES)
    assert samples(result.folder) == {"000000.png", "000000.wav", "000001.png", "000001.wav"}
    with wave.open(str(result.media[1])) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (2, 2, 800)
        assert sound.getnframes() == 200 and any(sound.readframes(50))
    assert result.samples[1].shape == (1, 128, 256)
    assert {"grid.png", "trajectory.png"} <= files(result.folder)


def test_metrics_of_images_do_not_apply(run: Callable[..., RunResult]) -> None:
    for words, kind in ((CLIPS, "videos"), (TONES, "sounds")):
        with pytest.raises(InputError, match=f"metric=psnr does not apply: the samples of gaussian are {kind}"):
            run(*words, "metric=[cost,psnr]")
    assert "nfe" in metrics(run(*CLIPS).folder)


@pytest.mark.usefixtures("no_ffmpeg")
def test_a_sample_without_its_video_is_drawn_again(
    run: Callable[..., RunResult], caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(*CLIPS).folder
    before = {name: (whole / "samples" / name).read_bytes() for name in samples(whole)}
    (whole / "samples" / "000001.gif").unlink()
    caplog.set_level(logging.INFO)
    resumed = run(*CLIPS, resume=str(whole)).folder
    assert "2 of 3 samples copied" in caplog.text and "damaged and are drawn again: 1" in caplog.text
    assert samples(resumed) == set(before)
    assert (resumed / "samples" / "000001.gif").read_bytes() == before["000001.gif"]


@pytest.mark.usefixtures("no_ffmpeg")
@pytest.mark.parametrize("kind", ["tar", "safetensors"])
def test_shards_hold_the_images_and_videos_are_files(run: Callable[..., RunResult], kind: str) -> None:
    result = run(*CLIPS, f"samples={kind}")
    assert samples(result.folder) == {f"000000.{kind}", "000000.gif", "000001.gif", "000002.gif"}
    assert len(result.images) == len(result.media) == 3


def make_program(folder: Path, script: str) -> str:
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


def test_an_mp4_where_ffmpeg_is_there(
    run: Callable[..., RunResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stand-in writes its arguments and the length of what it reads into its last argument, the file."""
    program = make_program(tmp_path, 'for last; do :; done\n{ echo "$*"; wc -c; } > "$last"')
    monkeypatch.setattr(media_files, "ffmpeg", lambda: program)
    result = run(*CLIPS, "num_samples=1")
    assert result.media[0].name == "000000.mp4"
    arguments, length = result.media[0].read_text().splitlines()
    assert "-s 8x8 -r 5 -i -" in arguments and int(length) == 9 * 8 * 8 * 3
    broken = make_program(tmp_path, "echo no encoder >&2; exit 1")
    monkeypatch.setattr(media_files, "ffmpeg", lambda: broken)
    assert run(*CLIPS, "num_samples=1").media[0].name == "000000.gif"
    assert "000000.mp4 of 9 frames was not written: ffmpeg: no encoder" in caplog.text


def test_without_ffmpeg_one_line_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    media_files.ffmpeg.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(media_files, "find_spec", lambda name: None)
    caplog.set_level(logging.INFO)
    assert media_files.ffmpeg() is media_files.ffmpeg() is None
    assert caplog.text.count("ffmpeg is not installed") == 1
    media_files.ffmpeg.cache_clear()


def test_a_spectrogram_shows_frequencies_over_time() -> None:
    time = torch.arange(8192) / 8192
    low, high = (torch.sin(2 * torch.pi * frequency * time) for frequency in (1024, 3072))
    picture = spectrogram(torch.where(time < 0.5, low, high)[None, None])
    assert picture.shape == (1, 1, 128, 256)
    loudest = picture[0, 0].argmax(0)  # row 0 is the highest frequency, 4096
    assert abs(int(loudest[64]) - 96) < 3 and abs(int(loudest[192]) - 32) < 3
    assert spectrogram(torch.zeros(1, 2, 100)).max() == 0
    assert spectrogram(torch.full((1, 1, 5), float("nan"))).isfinite().all()


def test_images_and_points_stand_for_themselves() -> None:
    for shape in ((2, 3, 4, 4), (2, 5)):
        x = torch.rand(shape)
        assert stills(x) is x
    assert stills(torch.rand(2, 3, 1, 4, 4)).shape == (2, 1, 4, 12)
