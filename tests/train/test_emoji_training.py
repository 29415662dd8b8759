"""Two steps of every training task of the emoji model, resumption, and the folder that comes out."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from omegaconf import OmegaConf
from PIL import Image
from transformers import CLIPModel

from diffexp.catalog.sources import conf_dir
from diffexp.components.metrics.clip import Clip
from diffexp.components.metrics.emoji_features import read_emoji_features
from diffexp.components.models.base import Runtime
from diffexp.components.models.emoji import emoji
from diffexp.components.models.gaussian import gaussian
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult
from diffexp.plan.noise import sample_seed
from diffexp.plan.predictions import Prediction
from diffexp.train.emoji import features, network, vae
from diffexp.train.emoji.data import Emoji, load_emoji
from diffexp.train.emoji.features import EmojiFeatureTraining, train_emoji_features
from diffexp.train.emoji.network import EmojiTraining, train_emoji
from diffexp.train.emoji.scores import EmojiScoring, neighbours, score_emoji
from diffexp.train.emoji.vae import VaeTraining, train_vae
from tests.emoji_packages import save_packages
from tests.runs import images

VAE = {
    "latent_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (4, 8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "norm_num_groups": 4,
    "sample_size": 64,
}
UNET = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "layers_per_block": 1,
    "block_out_channels": (8,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "norm_num_groups": 4,
    "attention_head_dim": 2,
}
TEXT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Emoji:
    return load_emoji(save_packages(tmp_path_factory.mktemp("packages")))


def vae_recipe(**changes: Any) -> VaeTraining:
    recipe: dict[str, Any] = {
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "ema_decay": 0.9,
        "gradient_weight": 0.5,
        "squared_weight": 3.0,
        "colour_weight": 1.0,
        "kl_weight": 1e-3,
        "save_every": 2,
        "seed": 0,
        "network": VAE,
    }
    return VaeTraining(**recipe | changes)


def emoji_recipe(**changes: Any) -> EmojiTraining:
    recipe: dict[str, Any] = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "cooldown_steps": 2,
        "ema_decay": 0.9,
        "no_style": 0.2,
        "no_prompt": 0.1,
        "snr_limit": 5.0,
        "save_every": 2,
        "preview_every": 4,
        "preview_guidance": 2.0,
        "seed": 0,
        "vocabulary": 600,
        "prompt_length": 10,
        "previews": ["red heart", "blue moon, noto"],
        "schedule": BETAS,
        "network": UNET,
        "text": TEXT,
    }
    return EmojiTraining(**recipe | changes)


def feature_recipe(**changes: Any) -> EmojiFeatureTraining:
    recipe: dict[str, Any] = {
        "steps": 4,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 1,
        "no_style": 0.3,
        "max_shift": 2,
        "noise": 0.1,
        "save_every": 2,
        "seed": 0,
        "vocabulary": 600,
        "prompt_length": 10,
        "projection_dim": 8,
        "text": TEXT,
        "vision": TEXT | {"patch_size": 16},
    }
    return EmojiFeatureTraining(**recipe | changes)


@pytest.fixture(scope="module")
def trained(data: Emoji, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both tasks ran without a stop."""
    folder = tmp_path_factory.mktemp("trained")
    train_vae(data, vae_recipe(), folder)
    train_emoji(data, emoji_recipe(), folder)
    train_emoji_features(data, feature_recipe(), folder)
    return folder


@contextmanager
def stopped_after(module: Any, step: int) -> Iterator[None]:
    """End training once its state of ``step`` is on disk."""
    save: Callable[..., None] = module.save_state

    def save_and_stop(path: Path, **parts: Any) -> None:
        save(path, **parts)
        if parts["step"] == step:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "save_state", save_and_stop)
        yield


def weights(folder: Path, checkpoint: str) -> dict[str, Any]:
    return torch.load(folder / checkpoint, weights_only=True)


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for part in ("net", "optimizer", "decay", "average"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    assert one["step"] == other["step"] == 4


def test_a_resumed_vae_is_that_of_an_uninterrupted_run(data: Emoji, trained: Path, tmp_path: Path) -> None:
    with stopped_after(vae, 2), pytest.raises(Stopped):
        train_vae(data, vae_recipe(), tmp_path)
    assert not (tmp_path / "latents.pt").exists()
    train_vae(data, vae_recipe(), tmp_path)
    assert_same(weights(trained, "vae.pt"), weights(tmp_path, "vae.pt"))


def test_a_sharper_decoder_reaches_a_pipeline_that_was_complete(data: Emoji, trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "again"))
    lines = (folder / "losses.jsonl").read_text()
    sharper: Any = AutoencoderKL.from_pretrained(folder / "vae")
    sharper.decoder.conv_out.bias.data.fill_(0.25)
    sharper.save_pretrained(folder / "vae")
    train_emoji(data, emoji_recipe(), folder)
    before, after = (StableDiffusionPipeline.from_pretrained(place / "emoji") for place in (trained, folder))
    assert after.vae.decoder.conv_out.bias.tolist() == [0.25] * 3
    assert str(tmp_path) not in "".join(path.read_text() for path in (folder / "emoji").rglob("*.json"))
    torch.testing.assert_close(after.unet.state_dict(), before.unet.state_dict(), rtol=0, atol=0)
    assert (folder / "losses.jsonl").read_text() == lines


def test_every_channel_of_the_latents_has_mean_0_and_deviation_1(data: Emoji, trained: Path) -> None:
    latents = torch.load(trained / "latents.pt", weights_only=True)
    assert latents.shape == (len(data.images), 3, 8, 8)
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-3)
    assert json.loads((trained / "vae" / "config.json").read_text())["scaling_factor"] == 1


def test_standard_latents_are_decoded_to_the_same_image(data: Emoji) -> None:
    torch.manual_seed(0)
    net: Any = AutoencoderKL(**VAE)
    images = vae.pixels(data.images[:8])
    with torch.no_grad():
        before = net.encode(images).latent_dist
        rebuilt = net.decode(before.mode()).sample
        vae.standardise(net, 3 * before.mode() + 5)
        after = net.encode(images).latent_dist
        torch.testing.assert_close(net.decode(after.mode()).sample, rebuilt, rtol=1e-3, atol=1e-4)
    deviation = (3 * before.mode()).std(dim=(0, 2, 3)).view(1, -1, 1, 1)
    torch.testing.assert_close(after.std * deviation, before.std)


def test_a_decoder_goes_on_learning_without_its_encoder(data: Emoji, trained: Path, tmp_path: Path) -> None:
    again = vae_recipe(start_from=str(trained / "vae"), train_encoder=False)
    train_vae(data, again, tmp_path, "decoder")
    before, after = (AutoencoderKL.from_pretrained(folder / "vae").state_dict() for folder in (trained, tmp_path))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder", "post_quant_conv"}
    latents = (torch.load(folder / "latents.pt", weights_only=True) for folder in (trained, tmp_path))
    torch.testing.assert_close(*latents, rtol=0, atol=1e-5)


def test_a_resumed_network_is_that_of_an_uninterrupted_run(data: Emoji, trained: Path, tmp_path: Path) -> None:
    for name in ("latents.pt", "vae"):
        (tmp_path / name).symlink_to(trained / name)
    with stopped_after(network, 2), pytest.raises(Stopped):
        train_emoji(data, emoji_recipe(), tmp_path)
    train_emoji(data, emoji_recipe(), tmp_path)
    assert_same(weights(trained, "emoji.pt"), weights(tmp_path, "emoji.pt"))


def test_the_learning_rate_waits_for_the_end(data: Emoji, trained: Path, tmp_path: Path) -> None:
    state = weights(trained, "emoji.pt")
    assert state["decay"]["_last_lr"] == [0, 0]
    for name in ("latents.pt", "vae", "emoji.pt", "tokenizer"):
        (tmp_path / name).symlink_to(trained / name)
    train_emoji(data, emoji_recipe(steps=8, preview_every=8), tmp_path)
    assert weights(tmp_path, "emoji.pt")["step"] == 8, "more steps can be asked for later"


def test_what_training_writes_to_look_at(trained: Path) -> None:
    (line,) = (trained / "losses.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["step"] == 4 and {"loss", "trained", "held_out"} < set(record)
    assert (trained / "preview-000004.png").is_file() and (trained / "vae.png").is_file()


def test_the_best_by_the_loss_on_held_out_drawings_is_kept(data: Emoji, trained: Path, tmp_path: Path) -> None:
    for name in ("latents.pt", "vae", "tokenizer"):
        (tmp_path / name).symlink_to(trained / name)
    train_emoji(data, emoji_recipe(preview_every=2, previews=[], learning_rate=0.0), tmp_path)
    same = [json.loads(line)["held_out"] for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert len(same) == 2 and same[0] == same[1]
    assert (tmp_path / "best").stat().st_mtime < (tmp_path / "emoji").stat().st_mtime, "not again for the same loss"
    kept, last = (tmp_path / name / "unet" / "diffusion_pytorch_model.safetensors" for name in ("best", "emoji"))
    assert kept.read_bytes() == last.read_bytes()


def test_a_network_needs_latents_of_the_same_images(data: Emoji, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no latents.pt; run task=emoji_vae with this folder first"):
        train_emoji(data, emoji_recipe(), tmp_path)
    fewer = Emoji(data.drawings[:-1], data.images[:-1])
    with pytest.raises(InputError, match="latents of 44 images, but data.path has 43"):
        train_emoji(fewer, emoji_recipe(), trained)


def test_the_folder_is_a_stable_diffusion_pipeline_in_half_precision(trained: Path) -> None:
    pipeline: Any = StableDiffusionPipeline.from_pretrained(trained / "emoji", local_files_only=True)
    assert {path.name for path in (trained / "emoji" / "tokenizer").iterdir()} >= {"vocab.json", "merges.txt"}
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.unet.dtype == torch.float16 or pipeline.unet.dtype == torch.float32
    image = pipeline("red heart", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("loop", ["denoise", "pipeline"])
def test_a_run_of_this_package_draws_what_diffusers_draws(
    trained: Path, run: Callable[..., RunResult], loop: str
) -> None:
    words = (f"model.id={trained / 'emoji'}", "scheduler=diffusers/ddim", "grid=trailing", "steps=3", f"loop={loop}")
    prompts = ["red heart", "blue moon, noto"]
    result = run("model=pipeline", *words, f"prompt=[{prompts[0]},'{prompts[1]}']", "guidance_scale=3.0", "metric=none")
    pipe: Any = StableDiffusionPipeline.from_pretrained(
        trained / "emoji", local_files_only=True, torch_dtype=torch.float32
    )
    noise = [torch.Generator().manual_seed(sample_seed(0, i)) for i in range(2)]
    expected = pipe(prompts, num_inference_steps=3, guidance_scale=3.0, generator=noise, output_type="pt").images
    drawn = torch.stack([image for _, image in sorted(images(result.folder).items())])
    assert drawn.shape == (2, 3, 64, 64)
    torch.testing.assert_close(drawn.float(), expected, rtol=0, atol=1 / 255)


def test_a_trained_folder_is_a_model_of_this_package(trained: Path) -> None:
    model: Any = emoji(Runtime(torch.device("cpu"), torch.float32, False), weights=str(trained / "emoji"))
    assert (model.id, model.shape, model.prediction) == ("emoji", (3, 8, 8), Prediction.V)
    assert model.decode(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 64, 64)
    with pytest.raises(InputError, match="model.weights=nowhere: no such folder"):
        emoji(Runtime(torch.device("cpu"), torch.float32, False), weights="nowhere")


def test_resumed_features_are_those_of_an_uninterrupted_run(data: Emoji, trained: Path, tmp_path: Path) -> None:
    with stopped_after(features, 2), pytest.raises(Stopped):
        train_emoji_features(data, feature_recipe(), tmp_path)
    train_emoji_features(data, feature_recipe(), tmp_path)
    one, other = weights(trained, "features.pt"), weights(tmp_path, "features.pt")
    torch.testing.assert_close(one["net"], other["net"], rtol=0, atol=0)


def test_features_are_a_clip_model_with_the_names_of_all_drawings(data: Emoji, trained: Path) -> None:
    clip = Clip.load(trained / "features", torch.device("cpu"))
    network: Any = clip.network
    assert isinstance(clip.network, CLIPModel)
    ids = clip.tokenizer("red heart", padding="max_length", return_tensors="pt")
    state = weights(trained, "features.pt")["net"]
    clip.network.load_state_dict({name: weight.half().float() for name, weight in state.items()})
    expected = network.get_text_features(**ids).pooler_output
    torch.testing.assert_close(clip.of_texts(["red heart"]), expected, rtol=1e-3, atol=1e-3)
    assert clip.of_images(data.images[:2].float() / 255).shape == (2, 8)
    names = (trained / "features" / "names.txt").read_text().splitlines()
    assert set(names) == {drawing.names[0] for drawing in data.drawings} and "red heart" in names


def test_features_of_drawings_are_the_reference_of_fid_and_kid(data: Emoji, trained: Path) -> None:
    known = read_emoji_features(trained / "features")
    own = torch.tensor([drawing.weight == 1.0 for drawing in data.drawings])
    found = known.of(data.images[own].float() / 255)
    torch.testing.assert_close(found, known.reference.samples, rtol=2e-3, atol=2e-3)
    assert found.square().mean() == pytest.approx(1.0, rel=1e-3)
    assert 0 < len(found) < len(data.drawings), "other skin tones are not among them"
    painter: Any = emoji(Runtime(torch.device("cpu"), torch.float32, False), weights=str(trained / "emoji"))
    assert known.why_not(painter) is None
    assert "describe emoji images" in (known.why_not(gaussian(Runtime())) or "")


def test_scores_are_of_drawings_trained_on_and_held_out(data: Emoji, trained: Path) -> None:
    recipe = EmojiScoring(prompts=3, steps=2, guidance=[1.0, 3.0], seed=0, nearest=10**6, sheet=["red heart"] * 3)
    found = json.loads(score_emoji(data, recipe, trained).read_text())
    assert [(line["drawings"], line["guidance_scale"]) for line in found] == [
        (kind, scale) for kind in ("trained", "held_out") for scale in (1.0, 3.0)
    ]
    assert all(line["recognised"] == 1.0 for line in found), "each is among the million nearest"
    assert all(0 < line["nearest_rms"] <= line["asked_rms"] < 1 for line in found if line["drawings"] == "trained")
    held_out = {f"{drawing.names[0]}, {drawing.style}" for drawing in data.drawings if drawing.held_out}
    assert set((trained / "held_out.txt").read_text().splitlines()) <= held_out
    assert not held_out & set((trained / "trained.txt").read_text().splitlines())
    with Image.open(trained / "sheet.png") as sheet:
        assert sheet.width > 3 * 64


def test_the_nearest_drawing_of_a_copy_is_the_one_that_was_asked_for(data: Emoji) -> None:
    noise = torch.randint(256, data.images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows = torch.nonzero(~data.held_out).flatten().tolist()[:3]
    found = neighbours(noise[rows].float() / 255, Emoji(data.drawings, noise), rows)
    assert found == pytest.approx({"same_emoji": 1.0, "nearest_rms": 0.0, "asked_rms": 0.0}, abs=2e-3)


def test_images_of_the_same_prompt_are_equally_right() -> None:
    ids = torch.tensor([[1, 2], [1, 2], [3, 4]])
    sure = 50 * torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    expected = 2 / 3 * torch.tensor(2.0).log()
    torch.testing.assert_close(features.contrast(sure, ids), expected)


def test_the_shipped_recipes_belong_together() -> None:
    config: Any = OmegaConf.load(conf_dir() / "train.yaml")
    recipes: Any = {
        name: OmegaConf.to_container(config[name], resolve=True)
        for name in ("emoji_vae", "emoji_decoder", "emoji", "emoji_features", "emoji_scores")
    }
    autoencoder, decoder = VaeTraining(**recipes["emoji_vae"]), VaeTraining(**recipes["emoji_decoder"])
    generator = EmojiTraining(**recipes["emoji"])
    measure = EmojiFeatureTraining(**recipes["emoji_features"])
    assert len(EmojiScoring(**recipes["emoji_scores"]).sheet) == 48
    assert autoencoder.network == decoder.network and decoder.start_from == f"{config.folder}/vae"
    assert autoencoder.network["latent_channels"] == generator.network["in_channels"]
    assert (generator.vocabulary, generator.prompt_length) == (measure.vocabulary, measure.prompt_length)
