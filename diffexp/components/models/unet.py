"""A UNet2DModel of diffusers as a model of diffexp."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import UNet2DModel
from diffusers.utils import is_accelerate_available
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from diffexp.components.checkpoints.layout import PICKLED, Layout
from diffexp.components.models.base import Condition, ModelBase, Request, Runtime, fast_dtype
from diffexp.components.models.labels import ClassLabels, unconditional
from diffexp.errors import InputError
from diffexp.files import sha256_of_file
from diffexp.plan.training import Training

log = logging.getLogger(__name__)

# Integers and the like are refused with a message instead of a traceback.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class UNet(UNet2DModel):
    """UNet2DModel with a cached dtype: diffusers searches all modules for it twice per call, a tenth of the time."""

    _found: torch.dtype | None = None

    @property
    def dtype(self) -> torch.dtype:
        if self._found is None:
            self._found = super().dtype
        return self._found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._found = None
        return super()._apply(fn, recurse)


@dataclass(frozen=True)
class UNetModel(ModelBase):
    """A pixel-space UNet with its training. Pixels lie in [-1, 1]."""

    id: str
    net: UNet2DModel
    training: Training
    classes: ClassLabels | None
    """None: unconditional."""
    device: torch.device
    dtype: torch.dtype
    hash_weights: Callable[[], str]
    forward: Callable[..., Any]
    """The network's call, compiled or not."""
    guidance_scale: float = 1.0
    feature_domain: str | None = None
    """What the images are of, for metrics by feature networks that know only such images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, height, width)."""
        size = self.net.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return (self.net.config["in_channels"], height, width)

    @property
    def weights_sha256(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.hash_weights()

    def conditions(self, request: Request, indices: Sequence[int]) -> Condition:
        if self.classes is None:
            return unconditional(self.id, request, len(indices))
        return self.classes.condition(request, indices, self.device)

    def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
        # The timestep stays float32 whatever the network's dtype: bfloat16 cannot tell 998 from 999.
        u = u.to(self.device, self.dtype, memory_format=torch.channels_last)
        out = self.forward(u, t.to(self.device, torch.float32), return_dict=False, **condition.positive)[0]
        # A network that learned its variance has a second half of channels, which no solver here reads.
        out = out[:, : self.shape[0]]
        return out.to(torch.promote_types(out.dtype, torch.float32), memory_format=torch.contiguous_format)


def load_unet(
    runtime: Runtime,
    folder: Path,
    layout: Layout,
    training: Training,
    *,
    id: str,
    labels: Callable[[int | None], ClassLabels | None],
) -> UNetModel:
    """Load the network that ``layout`` found in ``folder`` and put it where ``runtime`` says.

    Args:
        labels: what the network's classes mean, given their number (None: it takes no label).

    Raises:
        InputError: the weights do not fit the config, or a network cannot run in the dtype.
    """
    dtype = runtime.dtype or fast_dtype(runtime.device)
    if dtype not in DTYPES:
        raise InputError(f"dtype={str(dtype).removeprefix('torch.')}: choose float16, bfloat16, float32 or float64")
    weights = folder / layout.weights
    try:
        net = UNet.from_pretrained(
            folder / layout.network,
            use_safetensors=layout.format != PICKLED,
            variant=layout.variant,
            local_files_only=True,
            low_cpu_mem_usage=is_accelerate_available(),
        )
    except Exception as error:  # whatever a broken file makes the loaders of diffusers and safetensors raise
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{weights} does not load as the network of its config.json: {reason}") from error
    net.requires_grad_(False).eval()
    torch.nn.Module.to(net, runtime.device, dtype)
    convert_conv2d_weight_memory_format(net, torch.channels_last)
    check_inputs(net, id)
    return UNetModel(
        id=id,
        net=net,
        training=training,
        classes=labels(net.config["num_class_embeds"]),
        device=runtime.device,
        dtype=dtype,
        hash_weights=partial(sha256_of_file, weights),
        forward=torch.compile(net) if runtime.compile else net,
    )


def check_inputs(net: UNet2DModel, id: str) -> None:
    """Check that a network reads a sample, a timestep and at most a label.

    Raises:
        InputError: it does not, or does not say how large its samples are.
    """
    if net.config["class_embed_type"] is not None:
        raise InputError(f"{id} wants class_embed_type={net.config['class_embed_type']}; only labels can be given")
    if net.config["sample_size"] is None:
        raise InputError(f"{id} does not give the size of its images: its config.json has no sample_size")
    taken, given = net.config["in_channels"], net.config["out_channels"]
    if given == 2 * taken:
        log.info("%s also predicts a variance, which is ignored", id)
    elif given != taken:
        raise InputError(f"{id} turns {taken} channels into {given}: a denoiser keeps their number")
