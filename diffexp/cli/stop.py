"""Checks of ``stop=decided`` before anything runs."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from diffexp.components.metrics.traits import higher_is_better
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
        _check_search(config, word)
    elif cells < 2:
        raise InputError(f"{word} compares the cells of a sweep, and this one has one; give several values of a key")
    elif config.hydra.sweeper.max_batch_size:
        raise InputError(f"{word} runs all cells side by side; leave out hydra.sweeper.max_batch_size")
    if not task["metric"]:
        raise InputError(f"{word} compares cells by a metric; leave out metric=none")
    check_samples(int(task["num_samples"]))


def _check_search(config: DictConfig, word: str) -> None:
    """Check that a search says how many cells it tries, by which metric, and in which direction that is better."""
    sweeper, choice = config.hydra.sweeper, config.hydra.runtime.choices["hydra/sweeper"]
    if not isinstance(sweeper.get("n_trials"), int):
        raise InputError(f"{word} needs the number of cells, and hydra/sweeper={choice} has no n_trials; leave one out")
    if not config.objective:
        raise InputError(f"{word} compares the cells of a search by a metric; give it as in objective=fid/mnist_cnn")
    direction = str(sweeper.get("direction")).rpartition(".")[2]
    right = "maximize" if config.objective.partition("/")[0] in higher_is_better() else "minimize"
    if direction != right:
        raise InputError(f"{word} goes by the better value of {config.objective}; give hydra.sweeper.direction={right}")
