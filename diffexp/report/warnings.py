"""What limits the comparison of some cells, as sentences for the page."""

from collections.abc import Sequence

from diffexp.components.metrics.applicability import FEW_SAMPLES
from diffexp.components.metrics.half_samples import FEWEST
from diffexp.experiment.per_sample import PER_SAMPLE
from diffexp.experiment.rounds import Round
from diffexp.report.axes import as_text
from diffexp.sweeps.conditions import Conditions
from diffexp.sweeps.results import CellResult
from diffexp.sweeps.values import Quality, number_of_samples

MAX_LETTERS = 40
INPUTS = {
    "model": "models",
    "prompt": "prompts",
    "negative_prompt": "negative prompts",
    "label": "labels",
    "num_samples": "numbers of samples",
    "loop": "inputs of the loop",
}
"""Config keys of conditions, in the plural."""


def condition_names(found: Conditions) -> list[str]:
    """A short name for each condition: ``label 3 · 64 samples``; empty for one that nothing distinguishes."""
    names = [" · ".join(_part(key, value) for key, value in values.items()) for values in found.values]
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def warnings_of(cells: Sequence[CellResult], qualities: Sequence[Quality], found: Conditions) -> list[str]:
    """The warnings that concern these cells: few samples, different conditions, unfinished cells, different devices."""
    done = [cell for cell in cells if cell.status == "done"]
    counts = sorted({count for cell in done for run in cell.runs if (count := number_of_samples(run))})
    warnings = []
    distances = _distances(done, qualities)
    if counts and counts[0] < FEW_SAMPLES and distances:
        warnings.append(
            f"{_numbers(counts)} samples a run are few for {', '.join(distances)}: below {FEW_SAMPLES:,} the bias of a "
            "distance between distributions can exceed the differences between schedulers."
        )
    if any(Round.of(cell.record) for cell in done) and len(counts) > 1:
        warnings.append(
            f"stop=decided: runs have {_numbers(counts)} samples, as many as it took to decide. Distances of few "
            "samples are biased: compare cells by the table of pairs, at the samples that both have."
        )
    if counts and counts[0] < FEWEST and qualities:
        warnings.append(f"Runs of fewer than {FEWEST} samples have no intervals: single ones cannot be compared.")
    differing = [words for key, words in INPUTS.items() if len(found.differing(key)) > 1]
    if differing:
        words = " and ".join(differing)
        warnings.append(f"The cells have different {words}; they are ranked only among cells of the same condition.")
    if len(done) < len(cells):
        warnings.append(f"{len(cells) - len(done)} of {len(cells)} cells are not done; they are not ranked.")
    devices = sorted({device for cell in done if (device := cell.record.get("device"))})
    if len(devices) > 1:
        warnings.append(f"The runs were on different devices ({', '.join(devices)}): their times are not comparable.")
    return warnings


def _distances(cells: Sequence[CellResult], qualities: Sequence[Quality]) -> list[str]:
    """The metrics with intervals that are no means over samples."""
    means: set[str] = set()
    for cell in cells:
        try:
            with (cell.folder / PER_SAMPLE).open(encoding="utf-8") as file:
                means.update(file.readline().strip().split(","))
        except OSError:
            continue
    measured = {name for cell in cells for run in cell.runs for name in run.metrics}
    return [quality.name for quality in qualities if quality.name not in means and f"{quality.name}/low" in measured]


def _numbers(counts: Sequence[int]) -> str:
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def _part(key: str, value: object) -> str:
    text = as_text(value)
    text = text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"
    if key == "num_samples":
        return f"{text} samples"
    return text if key.endswith(".name") else f"{key.rpartition('.')[2]} {text}"
