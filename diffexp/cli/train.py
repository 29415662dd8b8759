"""The command ``python -m diffexp.train``: train what the package ships, resumably."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.sources import conf_dir
from diffexp.errors import InputError

TASKS = ("features", "denoiser", "polish", "spectrum", "all")


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

    from diffexp.train.data import load_mnist

    if config.threads:
        torch.set_num_threads(config.threads)
    folder, options = Path(config.folder), OmegaConf.to_container(config, resolve=True)
    assert isinstance(options, dict)
    train = load_mnist("train", config.data.path)
    if config.task in ("features", "all"):
        from diffexp.train.features import FeatureTraining, train_features

        train_features(train, load_mnist("test", config.data.path), FeatureTraining(**options["features"]), folder)
    if config.task in ("spectrum", "all"):
        from diffexp.train.spectrum import compute_spectrum

        compute_spectrum(train, folder)
    from diffexp.train.denoiser import DenoiserTraining, train_denoiser

    for task in ("denoiser", "polish"):
        if config.task in (task, "all"):
            train_denoiser(train, DenoiserTraining(**options[task]), folder, task)
