"""Train the class-conditional noise predictor that ships as ``model=mnist``."""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from diffexp.plan.schedules import VPSchedule
from diffexp.train.data import Digits
from diffexp.train.state import load_state, save_state

log = logging.getLogger(__name__)


@dataclass
class DenoiserTraining:
    """Hyper-parameters of the recipe; see ``conf/train.yaml`` for the values that made the shipped weights."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    ema_decay: float
    label_dropout: float
    save_every: int
    seed: int
    weight_limit: float = 1.0
    """Each loss is weighted by (sigma / alpha)^2, kept within 1 and this squared; 1 is the simple loss."""
    start_from: str | None = None
    """Folder of weights to begin with."""
    schedule: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)


def train_denoiser(data: Digits, recipe: DenoiserTraining, folder: Path, name: str = "denoiser") -> Path:
    """Minimise the simple loss ``|eps - eps_theta(x_t, t, y)|^2`` (Ho et al. 2020, eq. 14), weighted; resumes.

    A deterministic sampler carries an error of eps at high noise to the end, magnified by sigma / alpha; a short second
    training with ``weight_limit`` above 1 takes it away.

    Returns the folder with the averaged weights, laid out as diffusers saves a UNet, and a ``scheduler_config.json``.
    """
    torch.manual_seed(recipe.seed)
    net = _network(recipe)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate)
    decay = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    average = EMAModel(net.parameters(), decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
    checkpoint = folder / f"{name}.pt"
    start = load_state(checkpoint, net=net, optimizer=optimizer, decay=decay, average=average)

    schedule = VPSchedule.from_betas(**recipe.schedule)
    alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32)
    null_label = net.config["num_class_embeds"] - 1
    bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc=name, mininterval=10)
    smooth = math.nan
    for step in bar:
        batch = _draw_batch(data, recipe, alphas_cumprod, step, null_label)
        squared_error = (net(batch.noisy, batch.timesteps, class_labels=batch.labels).sample - batch.noise).square()
        (batch.weights * squared_error).mean().backward()
        loss = squared_error.detach().mean()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay.step()
        average.step(net.parameters())
        smooth = loss.item() if math.isnan(smooth) else 0.99 * smooth + 0.01 * loss.item()
        bar.set_postfix(loss=f"{smooth:.4f}")
        done = step + 1
        if done % recipe.save_every == 0 or done == recipe.steps:
            save_state(checkpoint, net=net, optimizer=optimizer, decay=decay, average=average, step=done)
            log.info("step %d of %d, loss %.4f", done, recipe.steps, smooth)
    average.copy_to(net.parameters())
    return _export(net, recipe, folder)


@dataclass(frozen=True)
class _Batch:
    noisy: Tensor
    noise: Tensor
    timesteps: Tensor
    labels: Tensor
    weights: Tensor


def _draw_batch(data: Digits, recipe: DenoiserTraining, alphas_cumprod: Tensor, step: int, null_label: int) -> _Batch:
    # A generator per step makes a resumed run draw what an uninterrupted one would have drawn.
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    size, horizon = recipe.batch_size, len(alphas_cumprod)
    chosen = torch.randint(len(data.images), (size,), generator=generator)
    clean, labels = data.images[chosen], data.labels[chosen]
    dropped = torch.rand(size, generator=generator) < recipe.label_dropout
    # One timestep in each of `size` equal strata: a lower variance of the loss than independent draws.
    strata = (torch.arange(size) + torch.rand(size, generator=generator)) / size
    timesteps = (strata * horizon).long().clamp(max=horizon - 1)
    noise = torch.randn(clean.shape, generator=generator)
    alpha_bar = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = (alpha_bar.sqrt() * clean + (1 - alpha_bar).sqrt() * noise).to(memory_format=torch.channels_last)
    weights = ((1 - alpha_bar) / alpha_bar).clamp(1.0, recipe.weight_limit**2)
    return _Batch(noisy, noise, timesteps, labels.masked_fill(dropped, null_label), weights)


def _network(recipe: DenoiserTraining) -> UNet2DModel:
    if recipe.start_from is None:
        net = UNet2DModel(**recipe.network)
    else:
        net = UNet2DModel.from_pretrained(recipe.start_from, local_files_only=True, low_cpu_mem_usage=False)
    torch.nn.Module.to(net, torch.float32)
    return net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _export(net: UNet2DModel, recipe: DenoiserTraining, folder: Path) -> Path:
    from diffusers import DDPMScheduler

    target = folder / "mnist"
    torch.nn.Module.to(net, torch.float16)
    net.save_pretrained(target, safe_serialization=True)
    DDPMScheduler(**recipe.schedule, prediction_type="epsilon", clip_sample=True).save_pretrained(target)
    return target
