"""Train the small CLIP behind the scores of emoji: is the image what its prompt says?"""

import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.optimization import get_cosine_schedule_with_warmup
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextConfig, CLIPVisionConfig

from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.emoji_features import REFERENCE, EmojiFeatures
from diffexp.components.metrics.feature_set import extract_features
from diffexp.components.metrics.retrieval import NAMES
from diffexp.files import write_text
from diffexp.train.emoji.data import SIZE, Emoji, pixels
from diffexp.train.emoji.pipeline import copy_tokenizer, halve, replace_folder
from diffexp.train.emoji.prompts import all_prompts, special_tokens
from diffexp.train.emoji.text import tokenizer_of
from diffexp.train.state import load_state, save_state

log = logging.getLogger(__name__)


@dataclass
class EmojiFeatureTraining:
    """Hyper-parameters of the recipe; see ``conf/train.yaml`` for the values that made the shipped weights."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    no_style: float
    """Share of prompts without their style."""
    max_shift: int
    """Pixels, each way."""
    noise: float
    """Largest deviation of the noise on an image whose values are in [-1, 1]."""
    save_every: int
    seed: int
    vocabulary: int
    prompt_length: int
    bfloat16: bool = True
    projection_dim: int = 128
    text: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] = field(default_factory=dict)


def train_emoji_features(data: Emoji, recipe: EmojiFeatureTraining, folder: Path) -> Path:
    """Minimise CLIP's symmetric cross entropy (Radford et al. 2021, figure 3) over all drawings; resumes.

    Held-out drawings are among them: the scores must know what the generator never saw. Returns the folder
    ``features``, a ``CLIPModel`` in half precision with its tokenizer, image processor, ``names.txt`` and the features
    of all drawings but those of other skin tones, in ``reference.safetensors``.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = tokenizer_of(data, recipe.vocabulary, recipe.prompt_length, folder / "tokenizer")
    net = _network(recipe, tokenizer)
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.1)
    decay = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    checkpoint = folder / "features.pt"
    start = load_state(checkpoint, net=net, optimizer=optimizer, decay=decay)

    prompts = all_prompts(data.drawings, tokenizer)
    chances = torch.tensor([drawing.weight for drawing in data.drawings])
    smooth = math.nan
    for step in tqdm(range(start, recipe.steps), initial=start, total=recipe.steps, desc="features", mininterval=30):
        # A generator per step makes a resumed run draw what an uninterrupted one would have drawn.
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        chosen = torch.multinomial(chances, min(recipe.batch_size, len(chances)), generator=generator)
        images = _altered(pixels(data.images[chosen]), recipe, generator)
        ids = prompts.draw(chosen, recipe.no_style, 0.0, generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            output = net(input_ids=ids, attention_mask=_mask(ids, tokenizer), pixel_values=images)
        loss = contrast(output.logits_per_image.float(), ids)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        decay.step()
        smooth = loss.item() if math.isnan(smooth) else 0.98 * smooth + 0.02 * loss.item()
        done = step + 1
        if done % recipe.save_every == 0 or done == recipe.steps:
            save_state(checkpoint, net=net, optimizer=optimizer, decay=decay, step=done)
            log.info("features: step %d of %d, loss %.4f", done, recipe.steps, smooth)
    return _export(net, tokenizer, data, folder)


def _network(recipe: EmojiFeatureTraining, tokenizer: Any) -> Any:
    text = CLIPTextConfig(**special_tokens(tokenizer), **recipe.text)
    vision = CLIPVisionConfig(image_size=SIZE, **recipe.vision)
    parts: Any = {"text_config": text.to_dict(), "vision_config": vision.to_dict()}
    return CLIPModel(CLIPConfig(**parts, projection_dim=recipe.projection_dim))


def _altered(images: Tensor, recipe: EmojiFeatureTraining, generator: torch.Generator) -> Tensor:
    """Images moved, some blurred, with noise: as generated ones may be, without being something else."""
    size, limit = len(images), recipe.max_shift
    padded = F.pad(images, (limit,) * 4, value=1.0)
    down, right = torch.randint(0, 2 * limit + 1, (2,), generator=generator).tolist()
    moved = padded[:, :, down : down + SIZE, right : right + SIZE]
    blurred = F.interpolate(F.avg_pool2d(moved, 2), scale_factor=2.0, mode="bilinear")
    share, strength = torch.rand(2, size, 1, 1, 1, generator=generator)
    noise = torch.randn(images.shape, generator=generator)
    return torch.lerp(moved, blurred, share) + recipe.noise * strength * noise


def _mask(ids: Tensor, tokenizer: Any) -> Tensor:
    """1 up to and including the end of the prompt; the padding after it is the same token."""
    ended = (ids == tokenizer.eos_token_id).cumsum(dim=1)
    return (ended <= 1).long()


def contrast(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross entropy both ways; images with the same prompt are equally right."""
    same = (ids.unsqueeze(1) == ids.unsqueeze(0)).all(dim=2).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def _export(net: Any, tokenizer: Any, data: Emoji, folder: Path) -> Path:
    names = dict.fromkeys(drawing.names[0] for drawing in data.drawings)
    with replace_folder(folder / "features") as target:
        net.save_pretrained(target)
        halve(target)
        edge = {"height": SIZE, "width": SIZE}
        half = [0.5, 0.5, 0.5]
        CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size=edge, image_mean=half, image_std=half
        ).save_pretrained(target)
        copy_tokenizer(folder / "tokenizer", target)
        write_text(target / NAMES, "\n".join([*names, ""]))
        network = EmojiFeatures(Clip.load(target, torch.device("cpu")).network)  # with the rounded weights that ship
        real = data.images[torch.tensor([drawing.weight == 1.0 for drawing in data.drawings])]
        save_file({"samples": extract_features(network, real.float().div(255)).half()}, target / REFERENCE)
    return folder / "features"
