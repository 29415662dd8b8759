"""``diffexp.run`` and ``diffexp.sweep``: the command from Python, also in a notebook."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from diffexp.catalog.discover import discover
from diffexp.catalog.given import given
from diffexp.cli.cells import as_containers, task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.hydra_files import save_hydra_files
from diffexp.cli.keywords import Keywords
from diffexp.cli.latest import link_latest
from diffexp.cli.launch import launch
from diffexp.cli.objects import Objects
from diffexp.cli.ranks import Ranks
from diffexp.cli.resume import resumed_sweep, resumed_words
from diffexp.cli.single import needs_workers, run_by_workers, share_with_ranks
from diffexp.errors import InputError
from diffexp.experiment.lock import lock
from diffexp.sweeps.logs import LOG_FORMAT, LogFile

if TYPE_CHECKING:
    from diffexp.experiment.result import RunResult
    from diffexp.report.sweep_result import SweepResult

FLAGS = ("-m", "--multirun")
NO_SWEEP = "a sweep is started from the command line, python -m diffexp -m ..., or by diffexp.sweep(...)"


def run(words: Sequence[str] = (), /, **keywords: Any) -> "RunResult":
    """Run one experiment, given by words of the command line, by keywords, or by both; keywords override words.

    The same folder is written as by the command, and it is the result's ``folder``.

    Args:
        words: ``["scheduler=euler", "steps=20"]``.
        **keywords: ``scheduler="euler", steps=20, prompt="a cat, sitting", metric=["cost", "fid"]``. Options of a group
            stand in a dict, ``scheduler={"name": "ddim", "eta": 1}``, or as ``**{"scheduler.eta": 1}``. Numbers, texts,
            None, paths, lists, arrays and scalars of NumPy and torch are values. ``model`` may be an object: a
            ``diffexp.Model``, or a pipeline of diffusers, whose network is run as if it had been loaded by its name.

    Raises:
        InputError: as on the command line, where it is one line and exit code 2.
        KeyboardInterrupt: with the folder, after everything finished has been written; ``resume=`` it goes on there.

    Example:
        >>> import diffexp
        >>> result = diffexp.run(model="mnist", scheduler="ddim", steps=10)  # doctest: +SKIP
    """
    _check_words(words, "run", 'diffexp.run(["steps=2"])')
    if set(FLAGS) & set(words):
        raise InputError(NO_SWEEP)
    objects = Objects()
    own = Keywords(discover(), swept=False, name_of=objects.name_of).words(keywords)
    with given(objects.entries):
        return _run([*words, *own], objects)


def _run(words: Sequence[str], objects: Objects) -> "RunResult":
    catalog = discover()
    words, config_dir = resumed_words(words)
    with _undisturbed(), hydra_session(catalog, Path(config_dir) if config_dir else None) as loader:
        checked = Preflight(loader, catalog).check(words, multirun=False)
        if checked.multirun:
            raise InputError(NO_SWEEP)
        objects.check(task_config(checked.config), checked.config.hydra)
        ranks = Ranks.of_environment()
        if ranks:
            ranks.choose_device()
        if ranks and ranks.rank > 0:
            return _result(ranks.work())
        HydraConfig.instance().set_config(checked.config)
        folder, settings = Path(checked.config.hydra.run.dir).absolute(), checked.config.hydra
        task = task_config(checked.config)
        if not ranks and needs_workers(task, settings):
            save_hydra_files(as_containers(checked.config), folder)
            link_latest(folder)
            for failure in run_by_workers(task, settings, folder, catalog):
                raise (InputError if failure.input_error else RuntimeError)(failure.message)
            return _result(folder)
        from diffexp.experiment.run import run_experiment

        with lock(folder):
            context = share_with_ranks(ranks, task, settings, folder, catalog) if ranks else None
            save_hydra_files(as_containers(checked.config), folder)
            link_latest(folder)
            try:
                with _log_file(folder / "diffexp.log"):
                    return run_experiment(task, folder, catalog, context=context)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(str(folder)) from None


def sweep(words: Sequence[str] = (), /, **keywords: Any) -> "SweepResult":
    """Run every combination of the values given, those that share a model in common batches, as the command does.

    A cell that fails costs itself alone: see the result's ``failures``.

    Args:
        words: ``["scheduler=ddpm,ddim", "steps=10,25"]``.
        **keywords: ``scheduler=["ddpm", "ddim"], steps=[10, 25], seed=range(3)``; as those of ``run``, but a list, a
            range or an array names the values of the sweep. A value that is a list stands in a list of its own,
            ``label=[[3, 8], [1]]``; keys that take nothing but lists take them as they are: ``metric=["cost", "fid"]``.

    Raises:
        InputError: as on the command line, before anything has begun.
        KeyboardInterrupt: with the folder, after every cell has written what it had finished.

    Example:
        >>> import diffexp
        >>> swept = diffexp.sweep(scheduler=["ddpm", "ddim"], steps=[10, 25], seed=range(3))  # doctest: +SKIP
        >>> swept.best("fid", max_cost=10)["scheduler"]  # doctest: +SKIP
    """
    _check_words(words, "sweep", 'diffexp.sweep(["steps=2,3"])')
    objects = Objects()
    own = Keywords(discover(), swept=True, name_of=objects.name_of).words(keywords)
    with given(objects.entries):
        return _sweep([*(word for word in words if word not in FLAGS), *own], objects)


def _sweep(words: list[str], objects: Objects) -> "SweepResult":
    catalog, ranks = discover(), Ranks.of_environment()
    words = ranks.words(words) if ranks else words
    named = objects.others(words) if any(word.startswith("resume=") for word in words) else words
    resumed = resumed_sweep(named)  # whose cells have the names of the objects already
    words, config_dir = (resumed.record.overrides, resumed.record.config_dir) if resumed else resumed_words(words)
    with _undisturbed(), hydra_session(catalog, Path(config_dir) if config_dir else None) as loader:
        preflight = Preflight(loader, catalog)
        checked = preflight.check(ranks.words_of_sweep(words) if ranks else words, multirun=True)
        objects.check(task_config(checked.config), checked.config.hydra)
        if ranks:
            ranks.choose_device()
        if ranks and ranks.rank > 0:
            return _swept(ranks.work(), [])
        return _swept(*launch(loader, checked, catalog, Path(config_dir) if config_dir else None, resumed))


def _swept(folder: Path, failures: Sequence[Any]) -> "SweepResult":
    from diffexp.report.sweep_result import SweepResult

    return SweepResult(folder, tuple(failures))


def _result(folder: Path) -> "RunResult":
    """The result of a run that other processes have finished."""
    from diffexp.experiment.result import RunResult

    return RunResult.read(folder)


def _check_words(words: Any, name: str, example: str) -> None:
    if isinstance(words, str):
        raise InputError(f'give a list of words, as in diffexp.{name}(["{words}"])')
    if isinstance(words, Mapping) or not all(isinstance(word, str) for word in words):
        raise InputError(f"give words, as in {example}, or keywords, as in diffexp.{name}(steps=2)")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave Hydra and the handlers of logging as they were, whatever the caller does with them."""
    root, store = logging.getLogger(), ConfigStore.instance()
    hydra, config = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    handlers, level, repo = [*root.handlers], root.level, dict(store.repo)
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg, store.repo = hydra, config, repo
        for handler in set(root.handlers) - set(handlers):
            handler.close()
        root.handlers = handlers
        root.setLevel(level)


@contextmanager
def _log_file(file: Path) -> Iterator[None]:
    """Log to a file too; where nobody has set up logging, warnings still reach the caller, as Python does it."""
    handler = LogFile(file)
    handler.setFormatter(logging.Formatter(LOG_FORMAT))
    logger = logging.getLogger("diffexp")
    level, handlers = logger.level, list[logging.Handler]([handler])
    if not logger.hasHandlers() and logging.lastResort:
        handlers.append(logging.lastResort)
    for one in handlers:
        logger.addHandler(one)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for one in handlers:
            logger.removeHandler(one)
        handler.close()
