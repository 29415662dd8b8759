"""Checks of ``stop=decided`` before anything runs."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from diffexp.errors import InputError
from diffexp.sweeps.sequential import check_samples


def check_stop(config: DictConfig, task: Mapping[str, Any], cells: int, *, known: bool) -> None:
    """Check that the cells of a sweep can be compared while they draw their samples.

    Args:
        config: of the first cell, with the ``hydra`` key.
        task: what a run gets of it.
        cells: how many there are.
        known: whether they are known before the sweep begins, as they are not in a search.

    Raises:
        InputError: they cannot.
    """
    word = f"stop={config.stop}"
    if not known:
        sweeper = f"hydra/sweeper={config.hydra.runtime.choices['hydra/sweeper']}"
        raise InputError(f"{word} needs all cells beforehand, and {sweeper} chooses one after another; leave one out")
    if cells < 2:
        raise InputError(f"{word} compares the cells of a sweep, and this one has one; give several values of a key")
    if config.hydra.sweeper.max_batch_size:
        raise InputError(f"{word} runs all cells side by side; leave out hydra.sweeper.max_batch_size")
    if not task["metric"]:
        raise InputError(f"{word} compares cells by a metric; leave out metric=none")
    check_samples(int(task["num_samples"]))
