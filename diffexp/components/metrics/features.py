"""The feature sets of ``fid``, ``kid`` and the like by their names, and the network of the one for digits."""

from functools import cache
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn

from diffexp.components.metrics.feature_set import NO_IMAGES, WEIGHTS, FeatureSet, ReferenceStatistics
from diffexp.errors import InputError

DEFAULT = "mnist_cnn"
SHIPPED = {"mnist": DEFAULT, "emoji": "emoji"}
"""The feature set for the images of a domain; see ``feature_domain`` of models."""


class MnistFeatures(nn.Module):
    """A small MNIST classifier, whose 64 features ``fid/mnist_cnn`` compares.

    The features are the batch-normalised (zero mean, unit variance over the training images) input of the last
    ReLU and linear layer, so that a Frechet distance of 64 is about as far as a single point at the training mean.
    """

    domain = "mnist"
    """The images that the network was trained on: ``feature_domain`` of models that generate such images."""
    image_shape = (1, 32, 32)
    num_classes = 10
    num_features = 64
    """Name and meaning as torchmetrics requires of a custom feature network."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *_convolution(1, 16, kernel=5, stride=2),  # 16 x 16
            *_convolution(16, 32, kernel=3, stride=2),  # 8 x 8
            *_convolution(32, 64, kernel=3, stride=1),
            nn.MaxPool2d(2),  # 4 x 4
            *_convolution(64, 96, kernel=3, stride=1),
            nn.Flatten(),
            nn.Linear(96 * 16, self.num_features, bias=False),
            nn.BatchNorm1d(self.num_features, affine=False),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(self.num_features, 10))

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 1, 32, 32) in [0, 1] to features (N, 64)."""
        return self.trunk(images * 2 - 1)

    def logits(self, images: Tensor) -> Tensor:
        """Images (N, 1, 32, 32) in [0, 1] to the scores (N, 10) of the ten digits."""
        return self.head(self(images))


def _convolution(channels_in: int, channels_out: int, *, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels_out), nn.ReLU()


def load_features(name: str) -> FeatureSet:
    """The feature set of this name; only those that ship, for images of their domain, have real images.

    Args:
        name: also a folder or hub id of a vision checkpoint of transformers; see ``feature_networks``.

    Raises:
        InputError: unknown name, or what its network needs is missing.
    """
    if name not in SHIPPED.values():
        # On use, because torchmetrics and transformers take seconds to import.
        from diffexp.components.metrics.feature_networks import NETWORKS, is_checkpoint, load_network

        if name not in NETWORKS and not is_checkpoint(name):
            known = ", ".join([*SHIPPED.values(), *NETWORKS])
            raise InputError(f"features={name} is not known; choose {known}, or give the folder of a vision checkpoint")
        return FeatureSet(Path(name).name, load_network(name), NO_IMAGES, {})
    if (WEIGHTS / name).is_dir():
        # On use, because transformers takes seconds to import.
        from diffexp.components.metrics.emoji_features import read_emoji_features

        return read_emoji_features(WEIGHTS / name)
    return read_features(WEIGHTS / f"{name}.safetensors")


@cache
def read_features(path: Path) -> FeatureSet:
    """A feature set as ``diffexp.train.features`` writes it: ``network.*`` tensors and ``reference.*`` statistics.

    Raises:
        InputError: no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; make it with 'python -m diffexp.train task=features'")
    with safe_open(path, framework="pt") as file:
        keys = list(file.keys())
        tensors = {key: file.get_tensor(key) for key in keys}
        metadata = file.metadata() or {}
    network = MnistFeatures()
    prefix = "network."
    network.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    reference = ReferenceStatistics(
        total=tensors["reference.total"],
        outer=tensors["reference.outer"],
        num_samples=int(tensors["reference.num_samples"]),
        samples=tensors["reference.samples"].float(),
    )
    return FeatureSet(path.stem, network.eval().requires_grad_(False), reference, metadata)
