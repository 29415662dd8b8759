"""Train the classifier whose features are behind ``fid/mnist_cnn`` and ``kid/mnist_cnn``."""

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from diffexp.components.metrics.feature_set import extract_features
from diffexp.components.metrics.features import MnistFeatures
from diffexp.components.metrics.frechet import moments, squared_frechet_distance
from diffexp.files import replace_whole
from diffexp.train.data import Digits
from diffexp.train.state import load_state, save_state

log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""Which training images are the KID reference and which are held against the rest: the same for every recipe."""


@dataclass
class FeatureTraining:
    """Hyper-parameters of the recipe; see ``conf/train.yaml`` for the values that made the shipped weights."""

    epochs: int
    batch_size: int
    learning_rate: float
    max_shift: int
    reference_samples: int
    seed: int


def train_features(train: Digits, test: Digits, recipe: FeatureTraining, folder: Path) -> Path:
    """Train the classifier (resuming by itself), then write weights and reference statistics as one file.

    Returns the path of ``mnist_cnn.safetensors``; its metadata has ``test_accuracy`` and the FID that real images
    reach: ``floor_test`` (the test images) and ``floor_train`` (as many random training images) against the
    statistics of all training images.
    """
    torch.manual_seed(recipe.seed)
    net = MnistFeatures()
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    batch_size = min(recipe.batch_size, len(train.images))
    steps_per_epoch = len(train.images) // batch_size
    decay = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe.learning_rate, total_steps=max(recipe.epochs * steps_per_epoch, 1)
    )
    checkpoint = folder / "features.pt"
    start = load_state(checkpoint, net=net, optimizer=optimizer, decay=decay) // steps_per_epoch

    images = train.images.add(1).div(2)  # the network takes [0, 1]
    for epoch in range(start, recipe.epochs):
        net.train()
        # A generator per epoch makes a resumed run draw what an uninterrupted one would have drawn; dropout follows.
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)
        batches = torch.randperm(len(images))[: steps_per_epoch * batch_size].split(batch_size)
        bar = tqdm(batches, desc=f"features, epoch {epoch + 1} of {recipe.epochs}", mininterval=10)
        loss = torch.zeros(())
        for chosen in bar:
            shifted = _shift(images[chosen], recipe.max_shift)
            loss = F.cross_entropy(net.logits(shifted), train.labels[chosen])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay.step()
        save_state(checkpoint, net=net, optimizer=optimizer, decay=decay, step=(epoch + 1) * steps_per_epoch)
        accuracy = _accuracy(net, test.images.add(1).div(2), test.labels)
        log.info(
            "epoch %d of %d, last loss %.4f, test accuracy %.2f %%",
            epoch + 1,
            recipe.epochs,
            loss.item(),
            100 * accuracy,
        )
    return _export(net, images, test, recipe, folder / "mnist_cnn.safetensors")


def _shift(images: Tensor, limit: int) -> Tensor:
    """Every image moved by up to ``limit`` pixels each way, black coming in."""
    count, _, height, width = images.shape
    padded = F.pad(images, (limit,) * 4)[:, 0]
    down, right = torch.randint(0, 2 * limit + 1, (2, count, 1))
    rows = (down + torch.arange(height)).unsqueeze(2)
    columns = (right + torch.arange(width)).unsqueeze(1)
    return padded[torch.arange(count).view(-1, 1, 1), rows, columns].unsqueeze(1)


@torch.no_grad()
def _accuracy(net: MnistFeatures, images: Tensor, labels: Tensor) -> float:
    net.eval()
    guesses = torch.cat([net.logits(batch).argmax(dim=1) for batch in images.split(500)])
    return (guesses == labels).double().mean().item()


def _export(net: MnistFeatures, images: Tensor, test: Digits, recipe: FeatureTraining, path: Path) -> Path:
    # Everything below is measured with the rounded weights that ship.
    weights = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in net.state_dict().items()}
    net.load_state_dict(weights)
    test_images = test.images.add(1).div(2)
    accuracy = _accuracy(net, test_images, test.labels)
    features, test_features = extract_features(net, images), extract_features(net, test_images)

    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(SPLIT_SEED))
    mean, covariance = moments(features)
    floors = {
        "floor_test": squared_frechet_distance(*moments(test_features), mean, covariance),
        "floor_train": squared_frechet_distance(*moments(features[order[-len(test_features) :]]), mean, covariance),
    }
    metadata = {"test_accuracy": f"{accuracy:.4f}", "images": str(len(images))}
    metadata |= {name: f"{value:.4f}" for name, value in floors.items()}
    tensors = {f"network.{key}": tensor.contiguous() for key, tensor in weights.items()}
    tensors |= {
        "reference.total": features.double().sum(dim=0),
        "reference.outer": features.double().T @ features.double(),
        "reference.num_samples": torch.tensor(len(features)),
        "reference.samples": features[order[: recipe.reference_samples]].half(),
    }
    with replace_whole(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    log.info("%s: %s", path, ", ".join(f"{name} {value}" for name, value in metadata.items()))
    return path
