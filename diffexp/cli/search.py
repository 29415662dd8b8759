"""A search space for Optuna that depends on the scheduler: each has options of its own."""

from typing import Any

from diffexp.catalog.discover import discover

RANGES: dict[str, tuple[float, float] | tuple[int, int]] = {"eta": (0.0, 1.0), "order": (1, 3)}
"""The range that is searched for an option of this name."""


def scheduler_options(config: Any, trial: Any) -> None:
    """Suggest values for those options of the trial's scheduler that have a range or a few named values.

    For ``hydra.sweeper.custom_search_space`` of Hydra's Optuna sweeper, beside a choice of schedulers in
    ``hydra.sweeper.params``; without one, ``scheduler`` of the command line.

    Args:
        config: the composed config of the sweep.
        trial: an ``optuna.trial.Trial`` that has its ``scheduler``.
    """
    name = trial.params.get("scheduler") or trial.user_attrs.get("scheduler") or config.scheduler.name
    entry = discover().get("scheduler", name)
    for option in entry.options:
        key, choices = f"scheduler.{option.name}", option.type.choices
        if option.type.base == "literal" and _consecutive(choices):
            # Not as a category: Optuna refuses one whose choices change from scheduler to scheduler.
            trial.suggest_int(key, min(choices), max(choices))
        elif option.type.base == "literal":
            trial.suggest_categorical(key, choices)
        elif option.name in RANGES and option.type.base == "float":
            trial.suggest_float(key, *RANGES[option.name])
        elif option.name in RANGES and option.type.base == "int":
            trial.suggest_int(key, *RANGES[option.name])


def _consecutive(choices: tuple[Any, ...]) -> bool:
    return all(type(choice) is int for choice in choices) and set(choices) == set(range(min(choices), max(choices) + 1))
