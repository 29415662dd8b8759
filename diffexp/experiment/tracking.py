"""What the trackers of a run get at its start and once it is sampled."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from diffexp.catalog.sources import default_choices
from diffexp.catalog.types import flat
from diffexp.components.trackers.base import RunInfo
from diffexp.experiment.build import Components
from diffexp.experiment.folder import RunFolder
from diffexp.experiment.media_files import media_files
from diffexp.experiment.rounds import Round
from diffexp.experiment.sample_files import SAMPLES_DIR
from diffexp.experiment.sample_rows import SampleRows
from diffexp.experiment.samples import Samples
from diffexp.text import quantity

IMAGES = {"grid": "grid.png", "trajectory": "trajectory.png", "animation": "trajectory.gif"}
"""The images of a run that are tracked."""
FACTS = (
    *("device", "dtype", "model_id", "weights_sha256", "plan_sha256", "inputs_sha256", "code_sha256"),
    *("git_commit", "versions", "command"),
)
"""Entries of ``run.json`` that trackers get."""
MOST_MEDIA = 16
"""Videos or sounds that are tracked."""
MOST_TAG = 64
"""Longest tag that W&B accepts."""


def run_info(
    run: Components,
    config: Mapping[str, Any],
    output: RunFolder,
    sweep: Path | None,
    swept: Collection[str],
    earlier_ids: Mapping[str, str],
) -> Callable[[str], RunInfo]:
    """What each tracker gets, by its name, of a run that begins.

    Args:
        sweep: folder of the sweep of the run.
        swept: the keys that the sweep varies.
        earlier_ids: by tracker, the identifier of the run that this one continues.
    """
    plugins = [{key: one[key] for key in ("used_for", "path", "sha256")} for one in output.record.get("plugins") or ()]
    facts = {key: output.record.get(key) for key in FACTS} | {"nfe": run.sampler.nfe, "plugins": plugins}
    if now := Round.of(output.record):
        facts |= {"samples": now.samples, "left": now.why}
    return lambda tracker: RunInfo(
        folder=output.folder,
        config=dict(config),
        name=config["name"] or readable_name(config, swept) or output.folder.name,
        group=group_name(sweep) if sweep else None,
        job_type="cell" if sweep else "run",
        tags=[*dict.fromkeys([*(config["tags"] or []), *automatic_tags(config)])],
        notes=config["notes"],
        sweep=sweep is not None,
        facts={**facts, "folder": str(output.folder)},
        earlier_id=earlier_ids.get(tracker),
    )


def publish(run: Components, config: Mapping[str, Any], output: RunFolder, samples: Samples) -> None:
    """Log facts, pictures, samples and files of a run that is sampled."""
    if not samples.indices:
        return
    run.live.close()
    tracker, folder = run.tracker, output.folder
    tracker.log_facts({"nfe": samples.nfe, "forward_passes": samples.forward_passes})
    tracker.log_images("pictures", {key: path for key, name in IMAGES.items() if (path := folder / name).is_file()})
    images = output.finished_images()
    tracker.log_samples(SampleRows(samples.indices, samples.captions, int(config["seed"]), images))
    shown = sorted(samples.indices)[:MOST_MEDIA]
    media = {f"sample {index}": found[0] for index in shown if (found := media_files(folder / SAMPLES_DIR, index))}
    if media:
        tracker.log_media(media)
    if (plan := folder / "plan.csv").is_file():
        tracker.log_files("plan", {plan.name: plan})
    copies = [str(one["copy"]) for one in output.record.get("plugins") or ()]
    if copies:
        tracker.log_files("plugins", {copy.partition("/")[2]: folder / copy for copy in copies})


def group_name(sweep: Path) -> str:
    """The name of a sweep in trackers, the end of its folder's path: ``2026-11-30/12-00-00``."""
    return "/".join(sweep.absolute().parts[-2:]).lstrip("/")


def readable_name(config: Mapping[str, Any], swept: Collection[str]) -> str:
    """``mnist · ddim · 10 steps``; of a cell what the sweep varies: ``ddim · 10 steps · seed=3``.

    Empty where nothing distinguishes the cell from others.
    """
    keys = [key for key in config if key in swept] + [key for key in swept if "." in key]
    return " · ".join(_parts(config, keys if swept else ["model", "scheduler", "steps"]))


def _parts(config: Mapping[str, Any], keys: Collection[str]) -> Iterator[str]:
    known = flat(config)
    for key in keys:
        if f"{key}.name" in known:
            yield choice_of(config[key])
        elif key == "steps":
            yield quantity(known[key], "step")
        elif isinstance(config.get(key), Mapping):  # several choices
            yield f"{key}={','.join(config[key])}"
        elif key in known:
            yield f"{key}={known[key]}"


def automatic_tags(config: Mapping[str, Any]) -> list[str]:
    """Names of the model and the scheduler, and of other choices that are not the usual ones."""
    usual = default_choices()
    kinds = ("model", "scheduler", "grid", "loop", "guidance")
    names = {kind: choice_of(config[kind]) for kind in kinds}
    return [name[:MOST_TAG] for kind, name in names.items() if kind in kinds[:2] or name != usual[kind]]


def choice_of(node: Mapping[str, Any]) -> str:
    """The name of a choice; of one that a ``_target_`` names its class."""
    return str(node.get("_target_") or node["name"]).rpartition(".")[2]
