"""diffusers and transformers without their progress bars and log messages."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quietly() -> Iterator[None]:
    """Silence both libraries while pipelines are imported and loaded; errors are still raised."""
    from diffusers.utils import is_transformers_available, logging as diffusers_logging

    loggers = [diffusers_logging]
    if is_transformers_available():
        from transformers.utils import logging as transformers_logging

        loggers.append(transformers_logging)
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.disable_progress_bar()
        logger.set_verbosity_error()
    try:
        yield
    finally:
        for logger, verbosity in zip(loggers, before):
            logger.enable_progress_bar()
            logger.set_verbosity(verbosity)
