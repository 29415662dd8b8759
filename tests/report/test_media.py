"""Videos and sounds in the page: players beside the images that stand for them, and a server that they can seek in."""

import time
from pathlib import Path

import pytest
import torch

from diffexp.components.media import Media, stills
from diffexp.components.pixels import to_image
from diffexp.experiment import media_files
from diffexp.experiment.media_files import write_media
from diffexp.report import write_report
from tests.browser import EXECUTABLE, Browser, click
from tests.made_up import made_up_cell
from tests.served import ask, served


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of videos and one of sounds; the first sample of each."""
    folder = tmp_path_factory.mktemp("sweep")
    contents = {"0_video": torch.rand(4, 3, 16, 16), "1_sound": torch.rand(1, 16000) * 2 - 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_files, "ffmpeg", lambda: None)
        for number, (name, content) in enumerate(contents.items()):
            samples = made_up_cell(folder, name, {"steps": 5 + number}, pictures=1) / "samples"
            write_media(samples, 0, content, Media("video" if content.ndim == 4 else "sound", 8000.0))
            to_image(stills(content[None])[0]).save(samples / "000000.png")
    return folder


@pytest.mark.skipif(EXECUTABLE is None, reason="no Chromium on this machine")
@pytest.mark.usefixtures("quiet")
def test_the_viewer_plays_them(browser: Browser, sweep: Path) -> None:
    browser.open(write_report([sweep]), 1280, 860)
    click(browser, "#grid .tile")
    shown = "(p => p && [p.tagName, p.getAttribute('src')])(document.querySelector('#viewer-tool .player'))"
    assert browser.run(shown) == ["IMG", "0_video/samples/000000.gif"]
    browser.run("document.querySelector('#viewer').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}))")
    assert browser.run(shown) == ["AUDIO", "1_sound/samples/000000.wav"]
    length = "document.querySelector('#viewer-tool audio').duration"
    until = time.monotonic() + 20
    while not browser.run(f"{length} > 0") and time.monotonic() < until:
        time.sleep(0.1)
    assert browser.run(length) == pytest.approx(2.0, abs=0.01)


def test_parts_of_files_are_sent(sweep: Path) -> None:
    file = sweep / "1_sound" / "samples" / "000000.wav"
    whole, target = file.read_bytes(), "/1_sound/samples/000000.wav"
    with served(sweep) as port:
        all_of_it = ask(port, target, Connection="close")
        assert (all_of_it.status, all_of_it.headers["Content-Type"], all_of_it.body) == (200, "audio/wav", whole)
        for asked, start, stop in (("0-9", 0, 10), ("100-", 100, len(whole)), ("-5", len(whole) - 5, len(whole))):
            part = ask(port, target, Range=f"bytes={asked}", Connection="close")
            assert (part.status, part.body) == (206, whole[start:stop])
            assert part.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(whole)}"
        assert ask(port, target, Range="bytes=999999-", Connection="close").status == 416
        for odd in ("bytes=-", "bytes=0-1,3-4", "lines=1-2"):
            assert ask(port, target, Range=odd, Connection="close").body == whole
        outdated = ask(port, target, Range="bytes=0-9", If_Range='"older"', Connection="close")
        assert (outdated.status, outdated.body) == (200, whole)
