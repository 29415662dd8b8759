"""Forward passes: what the network does for a sample, with guidance, as a metric, in the record and as a budget."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffexp.catalog.discover import Catalog, discover
from diffexp.components.models.base import Condition, Model, Request
from diffexp.components.models.passes import PassCounter
from diffexp.errors import InputError
from diffexp.report.collect import collect
from diffexp.report.content import Report
from diffexp.report.page import page_html
from tests.made_up import made_up_cell
from tests.runs import metrics, record

DIGITS = ("model=mnist", "num_samples=2", "snapshot_every=0")

GUIDER = """
from diffexp import guidance

@guidance
def bad_twin(predict, scale, model):
    def guided(u, t, condition):  # two calls of the network, one of them past ``predict``
        return model.predict(u, t, condition) + (scale - 1) * (predict(u, t, condition) - predict(u, t, condition))
    return guided
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    file = tmp_path_factory.mktemp("plugins") / "bad_twin.py"
    file.write_text(GUIDER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_PLUGINS", str(file))
        yield discover()


def costs(folder: Path) -> tuple[float, float]:
    found = metrics(folder)
    stated = record(folder)
    assert (stated["nfe"], stated["forward_passes"]) == (found["nfe"], found["forward_passes"])
    return found["nfe"], found["forward_passes"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["guidance_scale=1"], (6, 6)),
        (["guidance_scale=2"], (6, 12)),
        (["guidance_scale=2", "guidance=none"], (6, 6)),
        (["guidance_scale=0.6", "guidance=cfg_pp"], (6, 12)),
        (["guidance_scale=2", "guidance=diffusers/apg"], (6, 12)),
        (["guidance_scale=2", "scheduler=heun"], (11, 22)),
        (["guidance_scale=2", "grid.timesteps=[999,500,1]", "guidance=interval"], (3, 4)),  # sigma 157, 2.5, 0.02
    ],
)
def test_a_run_states_its_forward_passes(words: list[str], expected: tuple[int, int], run, caplog):
    with caplog.at_level(logging.INFO, logger="diffexp"):
        result = run(*DIGITS, "steps=6", "metric=cost", *words)
    assert costs(result.folder) == expected
    assert "nfe={}  forward_passes={} ".format(*expected) in caplog.text


def test_passes_that_a_plugin_makes_past_its_argument_count_too(run):
    assert costs(run(*DIGITS, "steps=4", "metric=cost", "guidance=bad_twin", "guidance_scale=2").folder) == (4, 12)


def test_batches_of_other_sizes_and_measured_solutions_do_not_change_the_mean(run):
    words = [*DIGITS, "steps=4", "guidance_scale=2", "num_samples=5", "batch_size=2", "metric=[cost,trajectory_error]"]
    assert costs(run(*words).folder) == (4, 8)


def test_a_resumed_run_knows_the_passes_of_its_first_part(run):
    words = [*DIGITS, "steps=4", "guidance_scale=2", "metric=cost"]
    first = run(*words, "num_samples=2").folder
    assert costs(run(*words, "num_samples=2", f"resume={first}").folder) == (4, 8)
    assert costs(run(*words, "num_samples=3", f"resume={first}").folder) == (4, 8)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["guidance_scale=1"], (13, 13)),
        (["guidance_scale=2"], (6, 12)),
        (["guidance_scale=2", "scheduler=heun"], (5, 10)),
        (["guidance_scale=2", "max_nfe=5"], (5, 10)),
        (["guidance_scale=2", "guidance=diffusers/apg"], (6, 12)),
    ],
)
def test_a_budget_of_forward_passes_leaves_fewer_steps(words: list[str], expected: tuple[int, int], run):
    assert costs(run(*DIGITS, "steps=50", "metric=cost", "max_forward_passes=13", *words).folder) == expected


def test_a_budget_that_no_step_fits_into_is_refused(run):
    with pytest.raises(InputError, match="^max_forward_passes=1: one step takes 2$"):
        run(*DIGITS, "guidance_scale=2", "max_forward_passes=1")
    with pytest.raises(InputError, match="^max_forward_passes=3: the levels of .* take 4$"):
        run(*DIGITS, "guidance_scale=2", "grid.timesteps=[900,100]", "max_forward_passes=3")


def test_a_loop_that_takes_more_than_the_budget_is_stopped(run, tmp_path: Path):
    folder = run(*DIGITS, "steps=2", "num_samples=1").folder
    words = ["loop=inversion", f"loop.image={folder}/samples/000000.png", "steps=6", "num_samples=1"]
    with pytest.raises(InputError, match="^max_forward_passes=8: the run takes more; give fewer steps$"):
        run(*DIGITS, *words, "max_forward_passes=8")


def test_calls_of_a_network_are_counted_by_their_first_argument():
    counter, network = PassCounter(), torch.nn.Identity()
    with counter.watching([network]):
        network(torch.zeros(3, 2))
        network(input=torch.zeros(4, 2))
    network(torch.zeros(9, 2))
    assert counter.rows == 7


def test_the_counted_copy_leaves_the_model_as_it_is():
    class Fake:
        def predict(self, u: Tensor, t: Tensor, condition: Condition) -> Tensor:
            return 2 * u

        def conditions(self, request: Request, indices: range) -> Condition:
            return Condition({}, None, [])

    counter, model = PassCounter(), Fake()
    counted: Model = counter.counting(model)  # pyright: ignore[reportArgumentType]
    u, condition = torch.ones(3, 2), model.conditions(Request(), range(3))
    assert torch.equal(counted.predict(u, torch.zeros(3), condition), 2 * u) and counter.rows == 3
    model.predict(u, torch.zeros(3), condition)
    assert counter.rows == 3


def test_forward_passes_are_the_axis_of_cost_where_all_cells_have_them(tmp_path: Path):
    for number, scale in enumerate((1, 2)):
        config = {"scheduler": {"name": "ddim"}, "steps": 10, "guidance_scale": scale}
        made_up_cell(tmp_path, f"{number}_ddim", config, quality=3 - scale, passes=10 * scale)
    report = Report(collect([tmp_path]), tmp_path / "report.html")
    fid = next(quality for quality in report.qualities if quality.name == "fid/mnist_cnn")
    assert report.cost == "forward_passes"
    assert [(answer.budget, answer.best) for answer in report.answers(fid)] == [(10, 0), (20, 1)]
    assert "forward passes per sample, guidance included" in page_html(report)
    made_up_cell(tmp_path, "2_ddim", {"scheduler": {"name": "ddim"}, "steps": 20})
    assert Report(collect([tmp_path]), tmp_path / "report.html").cost == "nfe"
