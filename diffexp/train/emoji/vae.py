"""Train the autoencoder in whose latents the emoji model draws."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from diffexp.experiment.pictures.grid import image_grid
from diffexp.files import replace_whole
from diffexp.train.emoji.data import Emoji, pixels
from diffexp.train.emoji.pipeline import replace_folder
from diffexp.train.state import load_state, save_state

log = logging.getLogger(__name__)


@dataclass
class VaeTraining:
    """Hyper-parameters of the recipe; see ``conf/train.yaml`` for the values that made the shipped weights."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    gradient_weight: float
    """Of the absolute error of the differences between neighbouring pixels: sharp edges."""
    squared_weight: float
    """Of the squared error, which rare colours need: the absolute one learns brightness long before them."""
    colour_weight: float
    """Of the squared error of the first three latent channels as the image in 1/8 of its size: colours early on."""
    kl_weight: float
    """Of the mean divergence of a latent from the standard normal distribution, in nats."""
    save_every: int
    seed: int
    bfloat16: bool = True
    train_encoder: bool = True
    """Without it only the decoder learns, and latents computed before stay valid."""
    start_from: str | None = None
    """Folder of weights to begin with."""
    network: dict[str, Any] = field(default_factory=dict)


def train_vae(data: Emoji, recipe: VaeTraining, folder: Path, name: str = "vae") -> Path:
    """Minimise absolute errors of pixels and edges plus a small divergence term; resumes.

    Returns the folder ``vae`` with the averaged weights; every channel of its latents has mean 0 and deviation 1.
    """
    torch.manual_seed(recipe.seed)
    net = _network(recipe)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.001)
    decay = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    average = EMAModel(net.parameters(), decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = folder / f"{name}.pt"
    start = load_state(checkpoint, net=net, optimizer=optimizer, decay=decay, average=average)

    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc=name, mininterval=10)
    smooth = math.nan
    for step in bar:
        # A generator per step makes a resumed run draw what an uninterrupted one would have drawn.
        torch.manual_seed(recipe.seed * 1_000_003 + step)
        images = pixels(data.images[torch.multinomial(data.weights, recipe.batch_size, replacement=True)])
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            posterior = net.encode(images).latent_dist
            rebuilt = net.decode(posterior.sample()).sample
        loss = _error(rebuilt.float() - images, recipe) + recipe.kl_weight * _divergence(posterior)
        loss = loss + recipe.colour_weight * _colour_error(posterior, images)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay.step()
        average.step(net.parameters())
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        bar.set_postfix(loss=f"{smooth:.4f}")
        done = step + 1
        if done % recipe.save_every == 0 or done == recipe.steps:
            save_state(checkpoint, net=net, optimizer=optimizer, decay=decay, average=average, step=done)
            average.store(net.parameters())
            average.copy_to(net.parameters())
            log.info(
                "%s: step %d of %d, loss %.4f, held-out PSNR %.2f",
                name,
                done,
                recipe.steps,
                smooth,
                _look(net, data, folder / f"{name}.png"),
            )
            average.restore(net.parameters())
    average.copy_to(net.parameters())
    if recipe.train_encoder:
        standardise(net, encode(net, data.images))
    return _export(net, data, folder)


def _network(recipe: VaeTraining) -> Any:
    start: Any = recipe.start_from
    net: Any = AutoencoderKL.from_pretrained(start, local_files_only=True) if start else AutoencoderKL(**recipe.network)
    net.encoder.requires_grad_(recipe.train_encoder)
    net.quant_conv.requires_grad_(recipe.train_encoder)
    return net.train()


def _error(difference: Tensor, recipe: VaeTraining) -> Tensor:
    edges = difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    squared = difference.square().mean()
    return difference.abs().mean() + recipe.gradient_weight * edges + recipe.squared_weight * squared


def _colour_error(posterior: Any, images: Tensor) -> Tensor:
    small = torch.nn.functional.adaptive_avg_pool2d(images, posterior.mean.shape[2:])
    return (posterior.mean.float()[:, :3] - small).square().mean()


def _divergence(posterior: Any) -> Tensor:
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


@torch.no_grad()
def encode(net: Any, images: Tensor) -> Tensor:
    """Mean latents (N, C, H, W) of uint8 images, not scaled."""
    return torch.cat([net.encode(pixels(part)).latent_dist.mode() for part in images.split(64)])


@torch.no_grad()
def _look(net: Any, data: Emoji, sheet: Path) -> float:
    """PSNR on held-out drawings; writes a sheet of 16 of them above what came back."""
    chosen = torch.nonzero(data.held_out).flatten()[:: max(int(data.held_out.sum()) // 64, 1)]
    images = data.images[chosen]
    rebuilt = net.decode(encode(net, images)).sample.clamp(-1, 1)
    pairs = torch.stack([pixels(images[:32]), rebuilt[:32]], dim=1).flatten(0, 1)
    with replace_whole(sheet) as temporary:
        image_grid(pairs.add(1).div(2), columns=8).save(temporary)
    return -10 * math.log10(((rebuilt - pixels(images)) / 2).square().mean().item())


def _export(net: Any, data: Emoji, folder: Path) -> Path:
    latents = encode(net, data.images)
    with replace_folder(folder / "vae") as target:
        net.save_pretrained(target)
    with replace_whole(folder / "latents.pt") as temporary:
        torch.save(latents, temporary)
    return folder / "vae"


@torch.no_grad()
def standardise(net: Any, latents: Tensor) -> None:
    """Make every latent channel's mean 0 and its deviation 1, without changing what is decoded.

    Otherwise diffusion drowns the channels that vary little, colours among them, long before the others.
    """
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    before, after = net.quant_conv, net.post_quant_conv
    scale, shift = torch.cat([deviation, torch.ones_like(deviation)]), torch.cat([mean, 2 * deviation.log()])
    before.bias.copy_((before.bias - shift) / scale)
    before.weight.div_(scale.view(-1, 1, 1, 1))
    after.bias.add_(after.weight.flatten(1) @ mean)
    after.weight.mul_(deviation.view(1, -1, 1, 1))
    net.register_to_config(scaling_factor=1.0)
