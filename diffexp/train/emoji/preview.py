"""Sheets of images, to look at while training."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffexp.files import replace_whole


def save_sheet(images: Tensor, path: Path, columns: int, zoom: int = 2) -> None:
    """Write images (N, 3, H, W) in [-1, 1] side by side as one PNG, row by row."""
    whole = images.add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    rows = -(-len(whole) // columns)
    height, width = whole.shape[2:]
    sheet = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, image in enumerate(whole.permute(0, 2, 3, 1).numpy()):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + height, left : left + width] = image
    drawn = Image.fromarray(sheet)
    with replace_whole(path) as temporary:
        drawn.resize((drawn.width * zoom, drawn.height * zoom), Image.Resampling.NEAREST).save(temporary)
