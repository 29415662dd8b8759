"""Pipelines that shift their levels by the size of the image draw the same with every class that they accept."""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from diffexp.catalog.diffusers import CLASSES
from diffexp.catalog.discover import Catalog
from diffexp.errors import InputError
from tests.experiment.test_run import record
from tests.pipeline_runs import COMMON, Draw, Tiny, by_diffusers, drawn, psnr, studio

DYNAMIC = {
    "deis",
    "dpmsolver_multistep",
    "dpmsolver_singlestep",
    "flow_match_euler",
    "flow_match_lcm",
    "unipc",
}
"""The classes that shift by the size of the image."""
OF_DATA = {"flow_match_lcm", "unipc", "flow_match_euler"}
"""Those that make karras levels of a flow."""
STATIC = {"dpmsolver_multistep_inverse", "flow_map_euler", "flow_match_heun", "ltx_euler_ancestral", "sasolver"}
ACCEPTED = {
    "flux": DYNAMIC,
    "flux_terminal": DYNAMIC,
    "flux_karras": OF_DATA,
    "flux_beta": OF_DATA - {"unipc"},
    "flux_static": OF_DATA,
    "sd3": DYNAMIC | STATIC,
    "sd3_dynamic": DYNAMIC | {"ltx_euler_ancestral"},
    "sd3_karras": OF_DATA | {"flow_map_euler", "flow_match_heun", "ltx_euler_ancestral"},
}
NATIVES = {
    "euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "FlowMatchHeunDiscreteScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


@pytest.fixture(scope="module")
def draw(
    catalog: Catalog, compose: Callable[..., dict[str, Any]], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory
) -> Draw:
    return studio(catalog, compose(*COMMON), tiny, tmp_path_factory.mktemp("runs"))


def by_class(tiny: Tiny, family: str, name: str) -> Tensor | None:
    """What the pipeline draws with a class, as its users configure it for a flow; None where it cannot."""
    accepted = inspect.signature(getattr(diffusers, name).__init__).parameters
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    options = {key: value for key, value in flow.items() if key in accepted and "use_flow_sigmas" in accepted}
    try:
        found = by_diffusers(tiny(family), name, **options)
    except (ValueError, TypeError, AssertionError):
        return None
    return found if torch.isfinite(found).all() else None


@pytest.mark.parametrize("family", ACCEPTED)
def test_every_class_that_the_pipeline_accepts(
    draw: Draw, tiny: Tiny, family: str, caplog: pytest.LogCaptureFixture
) -> None:
    refused = []
    for short in sorted(set.union(*ACCEPTED.values())):
        theirs = by_class(tiny, family, CLASSES[short][1])
        with caplog.at_level(logging.WARNING, "diffexp"):
            if theirs is None:
                refused.append(short)
                continue
            ours = drawn(draw(family, scheduler=f"diffusers/{short}", loop="pipeline"))
        assert psnr(ours, theirs) > 50, short
    assert set.union(*ACCEPTED.values()) - set(refused) == ACCEPTED[family]
    assert "other levels" not in caplog.text  # plan.csv has those that were visited


@pytest.mark.parametrize("family", ["flux", "flux_terminal", "sd3", "sd3_dynamic"])
def test_native_schedulers(draw: Draw, tiny: Tiny, family: str) -> None:
    seen = 0
    for native, name in NATIVES.items():
        theirs = by_class(tiny, family, name)
        if theirs is not None:
            assert psnr(drawn(draw(family, scheduler=native, loop="pipeline")), theirs) > 50, native
            seen += 1
    assert seen >= 3


@pytest.mark.parametrize("family", ["flux_terminal", "flux_karras", "flux_beta", "sd3_dynamic"])
def test_the_scheduler_that_the_checkpoint_comes_with(draw: Draw, tiny: Tiny, family: str) -> None:
    theirs = by_diffusers(tiny(family), "FlowMatchEulerDiscreteScheduler")
    assert psnr(drawn(draw(family, scheduler={"name": "diffusers", "_target_": None}, loop="pipeline")), theirs) > 50


@pytest.mark.parametrize(
    ("native", "name"), [("dpmpp_2m", "DPMSolverMultistepScheduler"), ("euler", "EulerDiscreteScheduler")]
)
def test_karras_sigmas_in_the_config_of_a_vp_model(draw: Draw, tiny: Tiny, native: str, name: str) -> None:
    theirs = by_diffusers(tiny("sd15_karras"), name)
    short = next(short for short, (_, cls) in CLASSES.items() if cls == name)
    for scheduler in (native, f"diffusers/{short}"):
        for loop in ("denoise", "pipeline"):
            assert psnr(drawn(draw("sd15_karras", scheduler=scheduler, loop=loop)), theirs) > 50


def test_the_levels_of_unipc_with_flux(draw: Draw) -> None:
    result = draw("flux", scheduler="diffusers/unipc", loop="pipeline")
    lines = (result.folder / "plan.csv").read_text().splitlines()
    timesteps = [float(line.split(",")[1]) for line in lines[1:]]
    assert timesteps == pytest.approx([999, 864.7, 705.7, 516.1, 286.2], abs=1)  # the class rounds them down


def test_a_class_that_cannot_shift_its_levels(draw: Draw) -> None:
    with pytest.raises(InputError, match="SASolverScheduler cannot shift its levels by the size of the image"):
        draw("flux", scheduler="diffusers/sasolver", loop="pipeline")


def test_a_grid_that_is_chosen_is_kept(draw: Draw) -> None:
    for scheduler in ("diffusers/flow_match_euler", "euler"):
        result = draw("flux_karras", scheduler=scheduler, loop="pipeline", grid={"name": "auto", "sigmas": [0.9, 0.4]})
        lines = (result.folder / "plan.csv").read_text().splitlines()
        assert [float(line.split(",")[1]) for line in lines[1:]] == pytest.approx([900, 400])
        assert record(result.folder)["nfe"] == 2
