"""MNIST as tensors, from a local file or by its public name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffexp.errors import InputError

PUBLIC_NAME = "ylecun/mnist"


@dataclass(frozen=True)
class Digits:
    """Images (N, 1, 32, 32) in [-1, 1], zero-padded from 28x28, and their labels (N,) in 0..9."""

    images: Tensor
    labels: Tensor


def load_mnist(split: str, path: str | None = None) -> Digits:
    """Load one split of MNIST.

    Args:
        split: ``"train"`` (60,000 images) or ``"test"`` (10,000).
        path: an ``.npz`` file with the arrays ``x_<split>`` [N, 28, 28] uint8 and ``y_<split>`` [N];
            without it, the data set ``ylecun/mnist`` comes through the ``datasets`` library.

    Raises:
        InputError: the file or one of its arrays is missing, or ``datasets`` is not installed.
    """
    pixels, labels = _from_file(Path(path), split) if path else _from_hub(split)
    images = torch.from_numpy(pixels).float().div(127.5).sub(1).unsqueeze(1)
    return Digits(F.pad(images, (2, 2, 2, 2), value=-1.0), torch.from_numpy(labels).long())


def _from_file(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    if not path.is_file():
        raise InputError(f"data.path={path}: no such file; it should be an .npz with x_train, y_train, x_test, y_test")
    with np.load(path) as arrays:
        missing = {f"x_{split}", f"y_{split}"} - set(arrays.files)
        if missing:
            raise InputError(f"data.path={path}: the array {sorted(missing)[0]} is missing; found {arrays.files}")
        return arrays[f"x_{split}"], arrays[f"y_{split}"]


def _from_hub(split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        import datasets  # pyright: ignore[reportMissingImports]  (the optional extra "train")
    except ImportError:
        raise InputError(
            "MNIST by name needs the library 'datasets' (pip install diffexp[train]), or data.path=FILE.npz"
        ) from None
    data = datasets.load_dataset(PUBLIC_NAME, split=split).with_format("numpy")
    return np.stack(data["image"]), np.asarray(data["label"])
