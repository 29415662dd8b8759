"""Guidance in whole runs: in sweeps, in other loops, in pipelines, and that of a plugin that asks for the model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diffexp.catalog.discover import Catalog, discover
from diffexp.cli.cells import task_config
from diffexp.cli.check import Preflight
from diffexp.cli.hydra_config import hydra_session
from diffexp.errors import InputError
from diffexp.experiment.run import RunResult, run_experiment
from tests.checkpoints import save_unet, tiny_digits_unet
from tests.pipeline_runs import COMMON, Draw, Tiny, by_diffusers, drawn, psnr, studio
from tests.runs import images, record, same_but_for_rounding

RESCALED = {"name": "cfg", "rescale": 0.7}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The command line of a small network for digits."""
    net = save_unet(tmp_path_factory.mktemp("net") / "net", tiny_digits_unet())
    sizes = ("num_samples=3", "batch_size=2", "steps=4", "snapshot_every=0", "metric=none")
    return ("model=mnist", f"model.weights={net}", "dtype=float32", "guidance_scale=3", *sizes)


CELLS = [
    ("guidance=interval", "guidance.low=1", "scheduler=heun"),
    ("guidance=cfg_pp", "guidance_scale=0.6", "scheduler=ddim"),
    ("guidance=diffusers/apg", "guidance.adaptive_projected_guidance_momentum=-0.5", "scheduler=ddpm"),
    ("guidance=diffusers/apg_mix", "guidance.adaptive_projected_guidance_start_step=1", "steps=5"),
]


def test_cells_of_a_sweep_are_what_they_are_alone(
    digits: tuple[str, ...], run: Callable[..., RunResult], together: Callable[..., list[Path]]
) -> None:
    """What a guidance remembers is a run's own; the cells share the calls below it."""
    cells = [(*digits, *words) for words in CELLS]
    for words, folder in zip(cells, together(*cells, batch=8)):
        alone = images(run(*words).folder)
        assert all(same_but_for_rounding(image, alone[index]) for index, image in images(folder).items()), words
        assert record(folder)["status"] == "done" and len(alone) == 3


@pytest.mark.parametrize("name", ["interval", "diffusers/cfg", "diffusers/apg"])
def test_at_one_and_below_there_is_none(name: str, digits: tuple[str, ...], run: Callable[..., RunResult]) -> None:
    plain = images(run(*digits, "guidance=none").folder)
    for scale in (0.0, 1.0):
        found = images(run(*digits, f"guidance={name}", guidance_scale=scale).folder)
        assert all(torch.equal(found[index], plain[index]) for index in plain)


@pytest.mark.parametrize(
    "words",
    [
        ("guidance=interval",),
        ("guidance=cfg_pp", "guidance_scale=0.6"),
        ("guidance=diffusers/apg", "guidance.start=0.3"),
    ],
)
def test_loops_that_ask_at_many_levels_at_once(
    words: tuple[str, ...], digits: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(Path(__file__).parents[2] / "plugins" / "paradigms.py"))
    catalog = discover()
    found = []
    with hydra_session(catalog) as hydra:
        for loop in (("loop=denoise",), ("loop=paradigms", "loop.tolerance=0", "loop.window=3")):
            given = [*digits, "tracker=none", *words, *loop]
            config = task_config(Preflight(hydra, catalog).check(given, multirun=False).config)
            found.append(images(run_experiment(config, tmp_path / loop[0], catalog).folder))
    assert all(same_but_for_rounding(image, found[1][index]) for index, image in found[0].items())


# a plugin

PLUGIN = '''
from diffexp import guidance


@guidance(stepwise=True)
def early(predict, scale, model, *, until: float = 0.5):
    """Twice the prediction at high noise.

    Args:
        until: in sigma / alpha.
    """
    limit = model.schedule.at_ratio(until).timestep
    return lambda u, t, condition: predict(u, t, condition) * (1 + (t > limit).float().view(-1, 1))
'''


def test_a_plugin_may_ask_for_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(PLUGIN)
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path / "mine.py"))
    catalog = discover()
    (option,) = catalog.get("guidance", "early").options
    assert option.name == "until"
    given = ["model=mixture", "steps=4", "num_samples=4", "tracker=none"]
    with hydra_session(catalog) as hydra:
        checked = [
            Preflight(hydra, catalog).check([*given, "guidance=early", *words], multirun=False)
            for words in (
                ["guidance.until=0.5", "metric=none"],
                ["guidance.until=200.0", "metric=none"],
                ["metric=trajectory_error"],
            )
        ]
    points = []
    for number, one in enumerate(checked[:2]):
        folder = run_experiment(task_config(one.config), tmp_path / str(number), catalog).folder
        points.append((folder / "samples" / "points.csv").read_text())
    assert points[0] != points[1]
    with pytest.raises(InputError, match="trajectory_error does not apply: the guidance depends on the steps"):
        run_experiment(task_config(checked[2].config), tmp_path / "refused", catalog)


# pipelines


@pytest.fixture(scope="module")
def draw(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Draw:
    return studio(catalog, compose(*COMMON), tiny, tmp_path_factory.mktemp("runs"))


def test_rescaling_is_that_of_the_pipeline(draw: Draw, tiny: Tiny) -> None:
    box = {loop: drawn(draw("sd15", guidance=RESCALED, loop=loop)) for loop in ("denoise", "pipeline")}
    assert psnr(box["denoise"], box["pipeline"]) > 50
    expected = by_diffusers(tiny("sd15"), "DDIMScheduler", call={"guidance_rescale": 0.7})
    assert psnr(box["pipeline"], expected) > 50
    assert psnr(box["denoise"], drawn(draw("sd15"))) < 45


def test_a_pipeline_without_it_says_so(draw: Draw) -> None:
    with pytest.raises(InputError, match="takes no guidance_rescale; leave guidance.rescale out"):
        draw("kandinsky22", guidance=RESCALED, loop="pipeline")
    with pytest.raises(InputError, match="guidance=interval needs loop=denoise"):
        draw("sd15", guidance="interval", loop="pipeline")


def test_guiders_guide_text_to_image_models(draw: Draw) -> None:
    node = {"name": "diffusers/cfg", "guidance_rescale": 0.7}
    assert psnr(drawn(draw("sd15", guidance=node)), drawn(draw("sd15", guidance=RESCALED))) > 50
    assert torch.isfinite(drawn(draw("kandinsky22", guidance="diffusers/apg"))).all()
