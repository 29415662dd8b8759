"""The videos and sounds of a run on disk, ``samples/000000.gif`` beside ``samples/000000.png``.

A video is a GIF, and an MP4 where ffmpeg is there; a sound is a WAV of 16 bits. They are files of their own whatever
``samples`` is: shards hold the images that stand for them. A sample's image is written last, so that one with an image
has the rest too.
"""

import logging
import shutil
import subprocess
import wave
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from PIL import Image
from torch import Tensor

from diffexp.components.media import Media
from diffexp.components.pixels import pixels_to_image, to_pixels
from diffexp.files import replace_whole

log = logging.getLogger(__name__)

ALWAYS: Mapping[str, str] = {"video": ".gif", "sound": ".wav"}
"""The file that every sample has, by kind."""
SUFFIXES = (".mp4", ".gif", ".wav")
"""Of the files of a sample, the best to play first."""
PATTERNS = tuple(f"*{suffix}" for suffix in SUFFIXES)
FFMPEG_SECONDS = 600.0
"""How long ffmpeg may take for a video."""


def write_media(folder: Path, index: int, content: Tensor, media: Media, comment: str = "") -> None:
    """Write the files of a sample into ``folder``, each whole or not at all.

    Args:
        content: a video [F, C, H, W] in [0, 1], or a sound [channels, T] in [-1, 1].
        comment: a text in the GIF that is not shown.
    """
    path = folder / f"{index:06d}"
    if content.ndim == 2:
        _write_wav(path.with_suffix(".wav"), content, round(media.rate))
        return
    pixels = to_pixels(content)
    _write_gif(path.with_suffix(".gif"), [pixels_to_image(frame) for frame in pixels], media.rate, comment)
    if program := ffmpeg():
        _write_mp4(path.with_suffix(".mp4"), pixels, media.rate, program)


def media_files(folder: Path, index: int) -> tuple[Path, ...]:
    """The videos and sounds of a sample that are in ``folder``, the best to play first."""
    paths = (folder / f"{index:06d}{suffix}" for suffix in SUFFIXES)
    return tuple(path for path in paths if path.is_file())


def all_media(folder: Path) -> dict[int, Path]:
    """For each sample with a video or a sound in ``folder`` the file that is best to play, in the order of indices."""
    found = {int(path.stem) for pattern in PATTERNS for path in folder.glob(pattern) if path.stem.isdecimal()}
    return {index: files[0] for index in sorted(found) if (files := media_files(folder, index))}


def copy_media(indices: Sequence[int], source: Path, target: Path) -> None:
    """Copy the videos and sounds of these samples from one folder to another."""
    for index in indices:
        for path in media_files(source, index):
            with replace_whole(target / path.name) as temporary:
                shutil.copyfile(path, temporary)


@cache
def ffmpeg() -> str | None:
    """The program that writes MP4s: ``ffmpeg``, or that of the package imageio-ffmpeg; None, logged once, without."""
    if found := shutil.which("ffmpeg"):
        return found
    if find_spec("imageio_ffmpeg"):
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    log.info("ffmpeg is not installed: videos are written as GIFs, without MP4s")
    return None


def _write_gif(path: Path, frames: Sequence[Image.Image], rate: float, comment: str) -> None:
    shown = [frame.convert("RGB").quantize(256, dither=Image.Dither.NONE) for frame in frames]
    options = {"comment": comment.encode()} if comment else {}
    with replace_whole(path) as temporary:
        shown[0].save(
            *(temporary, "GIF"),
            **options,
            save_all=True,
            append_images=shown[1:],
            duration=max(20, round(1000 / rate)),  # browsers slow down what is faster
            loop=0,
            optimize=False,
        )


def _write_mp4(path: Path, pixels: Tensor, rate: float, program: str) -> None:
    """By ffmpeg's usual encoder; sides are made even, as video formats have them."""
    count, channels, height, width = pixels.shape
    layout = "rgb24" if channels == 3 else "gray"
    source = ["-f", "rawvideo", "-pix_fmt", layout, "-s", f"{width}x{height}", "-r", f"{rate:g}", "-i", "-"]
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    content = pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes()
    try:
        with replace_whole(path) as temporary:
            command = [program, "-y", "-loglevel", "error", *source, *even, str(temporary)]
            subprocess.run(command, input=content, capture_output=True, timeout=FFMPEG_SECONDS, check=True)
    except subprocess.SubprocessError as error:  # an encoder that it lacks, say: the GIF is there
        said = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()
        log.warning("%s of %d frames was not written: ffmpeg: %s", path.name, count, said[-1] if said else error)


def _write_wav(path: Path, sound: Tensor, rate: int) -> None:
    values = (sound.nan_to_num().clamp(-1, 1) * 32767).round().short().T.contiguous()
    with replace_whole(path) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.numpy().astype("<i2").tobytes())
