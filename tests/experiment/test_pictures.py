"""The pictures: right pixels in the right places, at any size, whatever the samples."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import Tensor

from diffexp.components.pixels import to_image
from diffexp.drawing.ticks import log_ticks, ticks
from diffexp.experiment.pictures.grid import _columns, image_grid
from diffexp.experiment.pictures.points import frame_around, scatter
from diffexp.experiment.pictures.strips import Snapshot, film_gif, film_strip
from diffexp.plan.levels import Level
from diffexp.plan.schedules import VPSchedule


def snapshots(shape: tuple[int, ...], samples: int = 2, count: int = 5) -> list[Snapshot]:
    schedule = VPSchedule.from_betas()
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(samples, *shape, generator=generator) for _ in range(2))
    levels = [schedule.at(999 - step * (999 // count)) for step in range(count)]
    return [Snapshot(k, count, v, v.alpha * clean + v.sigma * noise, clean) for k, v in enumerate(levels)]


def holds(sheet: Image.Image, tile: Image.Image) -> bool:
    """Whether the tile is in the sheet, pixel by pixel."""
    wanted, there = np.asarray(tile.convert("RGB")), np.asarray(sheet.convert("RGB"))
    height, width = wanted.shape[:2]
    corners = np.argwhere((there[: -height + 1, : -width + 1] == wanted[0, 0]).all(axis=2))
    return any(np.array_equal(there[y : y + height, x : x + width], wanted) for y, x in corners)


def enlarged(image: Tensor, scale: int) -> Image.Image:
    small = to_image(image)
    return small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST)


def test_images_keep_their_values():
    image = torch.arange(256).view(1, 16, 16) / 255
    assert np.array_equal(np.asarray(to_image(image)), np.arange(256).reshape(16, 16))
    assert to_image(torch.rand(3, 4, 4)).mode == "RGB"
    assert to_image(torch.rand(4, 8, 8)).mode == "RGB", "of a latent, three channels"


def test_what_is_not_finite_is_drawn_all_the_same():
    values = [[float("nan"), float("inf"), -float("inf")]]
    assert np.asarray(to_image(torch.tensor([values]))).tolist() == [[128, 255, 0]]


def test_grid_shows_every_image_crisply():
    images = torch.rand(6, 1, 32, 32)
    sheet = image_grid(images)
    assert all(holds(sheet, enlarged(image, 3)) for image in images)


def test_grid_of_large_images_does_not_enlarge():
    sheet = image_grid(torch.rand(2, 3, 256, 256), columns=2)
    assert 512 < sheet.width < 560


def test_grid_is_limited():
    sheet = image_grid(torch.zeros(1000, 1, 32, 32))
    assert max(sheet.size) < 4096


def test_captions_are_below_and_may_be_long():
    plain, captioned = (
        image_grid(torch.zeros(2, 1, 32, 32)),
        image_grid(torch.zeros(2, 1, 32, 32), captions=["7", "x" * 99]),
    )
    assert captioned.width == plain.width
    assert captioned.height > plain.height


@given(st.integers(1, 300))
def test_columns_make_a_reasonable_sheet(count: int):
    columns = _columns(count)
    rows = -(-count // columns)
    assert rows <= columns <= max(2 * rows, 4 * rows)
    assert (rows - 1) * columns < count


def test_strip_shows_noise_around_grey_and_both_rows():
    frames = snapshots((1, 32, 32))
    sheet = film_strip(frames, title="mnist, ddim, 5 steps", captions=["7", "3"])
    for frame in frames:
        for tensor in (frame.x, frame.x0):
            assert all(holds(sheet, enlarged(sample / 2 + 0.5, 3)) for sample in tensor)
    assert sheet.getpixel((0, 0)) == (255, 255, 255)


def test_strip_shows_some_samples_and_snapshots_only():
    one = film_strip(snapshots((1, 32, 32), samples=1))
    assert film_strip(snapshots((1, 32, 32), samples=9), samples=1).size == one.size
    many, twenty = (film_strip(snapshots((1, 8, 8), count=count)) for count in (90, 20))
    assert many.size == twenty.size


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 64, 64), (3, 256, 256), (4, 16, 24), (2,), (1,), (5,)])
def test_every_shape_can_be_drawn(shape: tuple[int, ...], tmp_path: Path):
    frames = snapshots(shape, count=3)
    assert film_strip(frames).width > 3 * 96
    film_gif(tmp_path / "a.gif", frames)
    assert Image.open(tmp_path / "a.gif").size[0] > 2 * 96


def test_gif_has_a_frame_a_snapshot_and_holds_the_last(tmp_path: Path):
    path = tmp_path / "trajectory.gif"
    frames = snapshots((1, 32, 32), samples=4)
    film_gif(path, frames, title="mnist")
    assert list(tmp_path.iterdir()) == [path]
    with Image.open(path) as animation:
        durations = []
        for index, frame in enumerate(frames):
            animation.seek(index)
            durations.append(animation.info["duration"])
            assert holds(animation, enlarged(frame.x0[0] / 2 + 0.5, 4)), "grey levels survive the palette"
        assert getattr(animation, "n_frames") == len(frames)  # noqa: B009  (only some formats have it)
    assert durations[-1] > 3 * durations[0]
    assert len(set(durations[:-1])) == 1


def test_a_gif_of_still_pictures_keeps_its_frames(tmp_path: Path):
    still = Snapshot(1, 1, Level(0.0, 1.0, 0.0), torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))
    film_gif(tmp_path / "a.gif", [still])
    assert Image.open(tmp_path / "a.gif").size[0] > 0


def test_scatter_puts_points_where_they_belong():
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    sheet = np.asarray(scatter(corners, title="three corners")).astype(int)
    blue = sheet[:, :, 2] - sheet[:, :, 0] > 60
    rows, columns = np.nonzero(blue)
    middle_row, middle_column = (rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2
    assert rows.max() - rows.min() == pytest.approx(columns.max() - columns.min(), abs=2), "equal aspect"
    assert not blue[int(middle_row) :, int(middle_column) :].any(), "no point at the lower right"
    assert blue[: int(middle_row), int(middle_column) :].any()


def test_truth_is_grey_and_widens_the_axes():
    points, truth = torch.zeros(1, 2), torch.tensor([[5.0, 5.0], [-5.0, -5.0]])
    assert frame_around([points, truth]).side == pytest.approx(11)
    assert scatter(points, truth).size == scatter(points).size


def test_points_that_are_not_finite_are_left_out():
    lost = torch.tensor([[float("nan"), 0.0], [float("inf"), 1.0], [0.5, 0.5]])
    assert frame_around([lost]) == frame_around([lost[2:]])
    scatter(lost)
    scatter(lost[:2])


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
@settings(max_examples=100)
def test_ticks_are_round_and_inside(low: float, side: float):
    found = ticks(low, low + side)
    assert 2 <= len(found) <= 7
    assert all(low - 1e-9 <= tick <= low + side + 1e-9 for tick in found)
    assert all(len(f"{tick:g}") <= 9 for tick in found)


def test_ticks_of_logarithmic_axes():
    assert log_ticks(4.8, 120) == [5, 10, 20, 50, 100]
    assert log_ticks(2e-4, 7.0) == pytest.approx([1e-3, 1e-2, 1e-1, 1])
    assert len(log_ticks(1e-14, 1.0)) <= 8
    assert log_ticks(3.0, 4.5) == [3.0, 4.5], "no round number between them"
