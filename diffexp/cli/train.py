"""The command ``python -m diffexp.train``: train what the package ships, resumably."""

import sys
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.sources import conf_dir
from diffexp.errors import InputError

EMOJI_TASKS = ("emoji_vae", "emoji_decoder", "emoji", "emoji_features", "emoji_scores")
TASKS = ("features", "denoiser", "polish", "spectrum", "all", "reference", *EMOJI_TASKS)


@hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")
def main(config: DictConfig) -> None:
    try:
        _train(config)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _train(config: DictConfig) -> None:
    if config.task not in TASKS:
        raise InputError(f"task={config.task}: choose one of {', '.join(TASKS)}")

    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    options = OmegaConf.to_container(config, resolve=True)
    assert isinstance(options, dict)
    if config.task == "reference":
        _make_reference(config, options)
    elif config.task in EMOJI_TASKS:
        _train_emoji(config, options)
    else:
        _train_digits(config, options)


def _make_reference(config: DictConfig, options: dict[Any, Any]) -> None:
    from diffexp.train.reference import ReferenceRecipe, make_reference

    if config.images is None:
        raise InputError("task=reference needs images=DIR, a folder of images or of folders, one a class")
    path = make_reference(
        str(config.images), config.features, ReferenceRecipe(**options["reference"]), Path(config.folder)
    )
    print(f"use it with: metric=[cost,fid] metric.fid.reference={path}")


def _train_emoji(config: DictConfig, options: dict[Any, Any]) -> None:
    from diffexp.train.emoji.data import load_emoji

    folder, recipe = Path(config.folder), options[config.task]
    data = load_emoji(options["data"]["path"] or (), config.data.names)
    if config.task in ("emoji_vae", "emoji_decoder"):
        from diffexp.train.emoji.vae import VaeTraining, train_vae

        train_vae(data, VaeTraining(**recipe), folder, config.task.removeprefix("emoji_"))
    elif config.task == "emoji":
        from diffexp.train.emoji.network import EmojiTraining, train_emoji

        train_emoji(data, EmojiTraining(**recipe), folder)
    elif config.task == "emoji_scores":
        from diffexp.train.emoji.scores import EmojiScoring, score_emoji

        score_emoji(data, EmojiScoring(**recipe), folder)
    else:
        from diffexp.train.emoji.features import EmojiFeatureTraining, train_emoji_features

        train_emoji_features(data, EmojiFeatureTraining(**recipe), folder)


def _train_digits(config: DictConfig, options: dict[Any, Any]) -> None:
    from diffexp.train.data import load_mnist

    folder = Path(config.folder)
    train = load_mnist("train", config.data.path)
    if config.task in ("features", "all"):
        from diffexp.train.features import FeatureTraining, train_features

        train_features(
            train, load_mnist("test", config.data.path), FeatureTraining(**options["digit_features"]), folder
        )
    if config.task in ("spectrum", "all"):
        from diffexp.train.spectrum import compute_spectrum

        compute_spectrum(train, folder)
    from diffexp.train.denoiser import DenoiserTraining, train_denoiser

    for task in ("denoiser", "polish"):
        if config.task in (task, "all"):
            train_denoiser(train, DenoiserTraining(**options[task]), folder, task)
