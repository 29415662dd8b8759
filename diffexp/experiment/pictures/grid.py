"""``grid.png``: the samples of a run side by side, or as points in a scatter plot.

Tensors are on the CPU. What is not finite in an image is drawn as mid-grey.
"""

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from diffexp.components.pixels import to_image
from diffexp.experiment.pictures.points import scatter
from diffexp.experiment.pictures.text import INK, PAPER, font, shortened

TILE = 96
"""Smallest side, in pixels, at which a sample is shown."""
WIDE = 4
"""From this ratio of width and height on an image is a strip."""
MAX_GRID = 256
"""How many samples a grid shows at most."""


def overview(samples: Tensor, captions: Sequence[str], truth: Tensor | None, title: str) -> Image.Image:
    """Images [N, C, H, W] in [0, 1] side by side, or points [N, d] as a scatter plot over the ``truth`` [M, d]."""
    if samples.ndim == 2:
        return scatter(samples, truth, title)
    return image_grid(samples, captions=captions if any(captions) else None)


def image_grid(images: Tensor, columns: int | None = None, captions: Sequence[str] | None = None) -> Image.Image:
    """Images side by side, at most the first 256, small ones enlarged by a whole number.

    Args:
        images: (N, C, H, W) in [0, 1], N >= 1.
        columns: how many in a row; by default about as many as there are rows, leaving no gap if that can be.
        captions: one per image, written below it and cut to its width.
    """
    images = images[:MAX_GRID]
    height, width = images.shape[-2:]
    columns = columns or _columns(len(images), width / height)
    rows = -(-len(images) // columns)
    scale = max(1, min(-(-TILE // min(height, width)), 2048 // (columns * width)))
    tile_width, tile_height = scale * width, scale * height
    gap, caption_height = max(2, min(tile_width // 24, 6)), 18 if captions else 0
    step_x, step_y = tile_width + gap, tile_height + gap + caption_height
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = gap + index % columns * step_x, gap + index // columns * step_y
        tile = to_image(image).resize((tile_width, tile_height), Image.Resampling.NEAREST)
        sheet.paste(tile, (left, top))
        if captions:
            text = shortened(captions[index], font(13), tile_width)
            draw.text((left + tile_width / 2, top + tile_height + 2), text, INK, font(13), anchor="ma")
    return sheet


def _columns(count: int, aspect: float = 1.0) -> int:
    """The smallest number from the square root up to about its double that fills every row, else the root.

    Of wide images (strips of frames) so many that the sheet is about square.
    """
    if aspect >= WIDE:
        return max(1, round(math.sqrt(count / aspect)))
    root = math.isqrt(count - 1) + 1
    return next((n for n in range(root, 2 * root) if count % n == 0 and n * n <= 4 * count), root)
