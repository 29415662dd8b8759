"""The settings of ``hydra.launcher``, checked before there is a folder."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from diffexp.catalog.kinds import TARGET
from diffexp.cli.launcher import BATCHED, WORKERS
from diffexp.errors import InputError, hint
from diffexp.sweeps.engines import ENGINES, engine_class
from diffexp.sweeps.engines.options import BATCH, check_options


def check_launcher(config: DictConfig) -> None:
    """Check the settings of a launcher of diffexp; others check their own.

    Args:
        config: composed, with the ``hydra`` key.

    Raises:
        InputError: one is not known or cannot have its value.
    """
    options: Any = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    target, engine = options.pop(TARGET, None), options.pop("engine", None)
    if target == BATCHED:
        check_options({"batch": BATCH}, options)
    elif target == WORKERS:
        if engine not in ENGINES:
            raise InputError(f"hydra.launcher.engine={engine} is not known{hint(str(engine), ENGINES)}")
        check_options({"batch": BATCH, **engine_class(engine).RULES}, options)
