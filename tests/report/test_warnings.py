"""The warnings of the page, and the names of conditions."""

from pathlib import Path

from diffexp.report.warnings import condition_names, warnings_of
from diffexp.sweeps.conditions import conditions
from diffexp.sweeps.results import read_cells
from diffexp.sweeps.values import qualities
from tests.made_up import cell_of, made_up_cell


def warnings(sweep: Path) -> list[str]:
    cells = read_cells(sweep)
    return warnings_of(cells, qualities(cells), conditions(cells))


def test_few_samples_concern_distances_between_distributions(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"steps": 5, "num_samples": 24})
    (found,) = warnings(tmp_path)
    assert found.startswith("24 samples a run are few for fid/mnist_cnn:"), "psnr is a mean over samples"


def test_many_samples_are_enough(tmp_path: Path):
    for number in range(2):
        made_up_cell(tmp_path, f"{number}_a", {"steps": 5 + number, "num_samples": 5000})
    assert warnings(tmp_path) == []


def test_what_differs_between_cells_that_are_not_ranked(tmp_path: Path):
    made_up_cell(tmp_path, "0_a", {"label": 0, "num_samples": 5000})
    made_up_cell(tmp_path, "1_a", {"label": 1, "num_samples": 6000})
    made_up_cell(tmp_path, "2_a", {"label": 1, "num_samples": 6000, "steps": 3}, status="failed", error="no")
    different, unfinished = warnings(tmp_path)
    assert different.startswith("The cells have different labels and numbers of samples;")
    assert unfinished == "1 of 3 cells are not done; they are not ranked."


def test_conditions_are_named_by_what_differs():
    prompt = "a photograph of an astronaut who rides a horse on the moon"
    configs = [
        {"model.name": "mnist", "num_samples": 64, "prompt": None},
        {"model.name": "sd15", "num_samples": 64, "prompt": f"{prompt} 1"},
        {"model.name": "sd15", "num_samples": 128, "prompt": f"{prompt} 2"},
        {"model.name": "sd15", "num_samples": 128, "prompt": f"{prompt} 3"},
    ]
    names = condition_names(conditions([cell_of(config) for config in configs]))
    assert names[0] == "mnist · 64 samples · prompt null"
    assert names[1] == "sd15 · 64 samples · prompt a photograph of an astronaut who rides …"
    assert len(set(names)) == 4, "prompts that are equal as far as they are shown are numbered"
