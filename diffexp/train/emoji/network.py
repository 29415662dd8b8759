"""Train the U-Net and its text encoder, which draw emoji latents from their names."""

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import EMAModel
from torch import Tensor
from tqdm import tqdm

from diffexp.errors import InputError
from diffexp.experiment.pictures.grid import image_grid
from diffexp.files import replace_whole
from diffexp.plan.schedules import VPSchedule
from diffexp.train.emoji.data import Emoji
from diffexp.train.emoji.pipeline import TextToLatents, as_pipeline, generate, save_half
from diffexp.train.emoji.prompts import Prompts, all_prompts
from diffexp.train.emoji.text import tokenizer_of
from diffexp.train.state import load_state, save_state

log = logging.getLogger(__name__)


@dataclass
class EmojiTraining:
    """Hyper-parameters of the recipe; see ``conf/train.yaml`` for the values that made the shipped weights."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    cooldown_steps: int
    """The learning rate falls to 0 over so many last steps and is constant before: ``steps`` can be raised later."""
    ema_decay: float
    no_style: float
    """Share of prompts without their style."""
    no_prompt: float
    """Share of empty prompts, for classifier-free guidance."""
    snr_limit: float
    """Of min-SNR weighting (Hang et al. 2023)."""
    save_every: int
    preview_every: int
    preview_guidance: float
    seed: int
    vocabulary: int
    prompt_length: int
    bfloat16: bool = True
    previews: list[str] = field(default_factory=list)
    schedule: dict[str, Any] = field(default_factory=dict)
    network: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)


def train_emoji(data: Emoji, recipe: EmojiTraining, folder: Path) -> Path:
    """Minimise the min-SNR-weighted error of v (Salimans & Ho 2022) in the latents of ``task=emoji_vae``; resumes.

    Every ``preview_every`` steps the averaged weights draw ``preview-<step>.png``, their losses on drawings trained on
    and held out are added to ``losses.jsonl``, and the pipeline folder ``emoji`` is written anew; ``best`` too if the
    loss on those held out was never as low. A run that is complete is written anew with the decoder of the time.

    Returns the folder ``emoji``.
    """
    trainer = _Trainer(data, recipe, folder)
    trainer.train()
    return folder / "emoji"


@dataclass(frozen=True)
class _Batch:
    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    ids: Tensor
    weights: Tensor


class _Trainer:
    def __init__(self, data: Emoji, recipe: EmojiTraining, folder: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.folder, self.data = recipe, folder, data
        self.vae, self.latents = _latents(folder, len(data.images))
        self.tokenizer = tokenizer_of(data, recipe.vocabulary, recipe.prompt_length, folder / "tokenizer")
        self.prompts: Prompts = all_prompts(data.drawings, self.tokenizer)
        self.chances = data.weights
        schedule = VPSchedule.from_betas(**recipe.schedule)
        self.alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32)
        # Not with the channels last: group normalisation's backward pass is many times slower so.
        self.net = TextToLatents(recipe.network, recipe.text, self.tokenizer)
        self.net.unet.set_attn_processor(AttnProcessor())  # on so few positions faster than the fused kernel
        self.optimizer = torch.optim.AdamW(_groups(self.net), lr=recipe.learning_rate, betas=(0.9, 0.99))
        self.decay = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        self.average = EMAModel(self.net.parameters(), decay=recipe.ema_decay, use_ema_warmup=True, power=0.75)
        self.smooth = math.nan

    def train(self) -> None:
        recipe = self.recipe
        parts = {"net": self.net, "optimizer": self.optimizer, "decay": self.decay, "average": self.average}
        checkpoint = self.folder / "emoji.pt"
        start = load_state(checkpoint, **parts)
        bar = tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="emoji", mininterval=30)
        for step in bar:
            loss = self._step(step)
            self.smooth = loss if math.isnan(self.smooth) else 0.99 * self.smooth + 0.01 * loss
            bar.set_postfix(loss=f"{self.smooth:.4f}", refresh=False)
            done = step + 1
            if done % recipe.save_every == 0 or done == recipe.steps:
                save_state(checkpoint, **parts, step=done)
            if done % recipe.preview_every == 0 or done == recipe.steps:
                self._look(done)
        if start >= recipe.steps:  # the decoder may be another by now
            with self._averaged():
                self._write("emoji")

    def _rate(self, step: int) -> float:
        recipe = self.recipe
        falling = (recipe.steps - step) / max(recipe.cooldown_steps, 1)
        return min(1.0, (step + 1) / max(recipe.warmup_steps, 1), max(falling, 0.0))

    def _step(self, step: int) -> float:
        # A generator per step makes a resumed run draw what an uninterrupted one would have drawn.
        generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
        chosen = torch.multinomial(self.chances, self.recipe.batch_size, replacement=True, generator=generator)
        ids = self.prompts.draw(chosen, self.recipe.no_style, self.recipe.no_prompt, generator)
        loss = self._loss(self._batch(chosen, ids, generator))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.decay.step()
        self.average.step(self.net.parameters())
        return loss.item()

    def _batch(self, chosen: Tensor, ids: Tensor, generator: torch.Generator) -> _Batch:
        size, horizon = len(chosen), len(self.alphas_cumprod)
        clean = self.latents[chosen]
        # One timestep in each of `size` equal strata: a lower variance of the loss than independent draws.
        strata = (torch.arange(size) + torch.rand(size, generator=generator)) / size
        timesteps = (strata * horizon).long().clamp(max=horizon - 1)
        noise = torch.randn(clean.shape, generator=generator)
        alpha_bar = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        alpha, sigma = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        noisy = alpha * clean + sigma * noise
        snr = alpha_bar / (1 - alpha_bar)
        return _Batch(
            noisy, alpha * noise - sigma * clean, timesteps, ids, snr.clamp(max=self.recipe.snr_limit) / (snr + 1)
        )

    def _loss(self, batch: _Batch) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            output = self.net(batch.noisy, batch.timesteps, batch.ids)
        return (batch.weights * (output.float() - batch.target).square()).mean()

    @torch.no_grad()
    def _look(self, done: int) -> None:
        with self._averaged():
            record = {"step": done, "loss": self.smooth} | self._losses()
            best = _add_line(self.folder / "losses.jsonl", record)
            log.info("emoji: %s", record)
            pipeline = self._write("emoji", *(["best"] if best else []))
            if self.recipe.previews:
                scale = self.recipe.preview_guidance
                images = generate(pipeline, self.recipe.previews, steps=20, guidance=scale, seed=0)
                with replace_whole(self.folder / f"preview-{done:06d}.png") as temporary:
                    image_grid(images, captions=self.recipe.previews).save(temporary)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averaged weights in place of those in training."""
        self.net.eval()
        self.average.store(self.net.parameters())
        self.average.copy_to(self.net.parameters())
        yield
        self.average.restore(self.net.parameters())
        self.net.train()

    def _write(self, *names: str) -> Any:
        """The weights as they are, written as the pipeline folders ``names``; the pipeline."""
        pipeline = as_pipeline(self.net, self.vae, self.tokenizer, self.recipe.schedule)
        for name in names:
            save_half(pipeline, self.folder / "tokenizer", self.folder / name)
        return pipeline

    def _losses(self) -> dict[str, float]:
        """Of all held-out drawings, and of as many trained on, with the same noise every time."""
        held_out = torch.nonzero(self.data.held_out).flatten()
        trained = torch.nonzero(~self.data.held_out).flatten()
        trained = trained[torch.linspace(0, len(trained) - 1, len(held_out)).long()]
        return {name: self._loss_of(chosen) for name, chosen in (("trained", trained), ("held_out", held_out))}

    def _loss_of(self, chosen: Tensor) -> float:
        generator = torch.Generator().manual_seed(0)
        chosen = chosen[torch.randperm(len(chosen), generator=generator)]
        parts = [self._loss(self._batch(part, self.prompts.usual(part), generator)) for part in chosen.split(64)]
        return torch.stack(parts).mean().item()


def _add_line(path: Path, record: dict[str, float]) -> bool:
    """Append a line; whether no earlier line has a loss on held-out drawings as low as this one's."""
    earlier = [json.loads(line)["held_out"] for line in path.read_text().splitlines()] if path.exists() else []
    rounded = {key: round(value, 5) for key, value in record.items()}
    with path.open("a") as lines:
        lines.write(json.dumps(rounded) + "\n")
    return all(rounded["held_out"] < loss for loss in earlier)


def _groups(net: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels only."""
    matrices = [weight for weight in net.parameters() if weight.ndim > 1]
    rest = [weight for weight in net.parameters() if weight.ndim <= 1]
    return [{"params": matrices, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]


def _latents(folder: Path, count: int) -> tuple[AutoencoderKL, Tensor]:
    path = folder / "latents.pt"
    if not path.is_file():
        raise InputError(f"folder={folder}: no {path.name}; run task=emoji_vae with this folder first")
    latents = torch.load(path, weights_only=True)
    if len(latents) != count:
        raise InputError(f"folder={folder}: latents of {len(latents)} images, but data.path has {count}")
    vae = AutoencoderKL.from_pretrained(folder / "vae", local_files_only=True, low_cpu_mem_usage=False).eval()
    return vae, latents * vae.config["scaling_factor"]
