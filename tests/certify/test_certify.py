"""Certificates: right schedulers pass, faulty ones fail with the right reason."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffexp.catalog.discover import discover
from diffexp.certify import Outcome, Verdict, certify, run_check, subject_of
from diffexp.certify.chart import Axes, Series, draw_charts
from diffexp.certify.checks.order import Fit
from diffexp.certify.data import MIXTURE, spectra
from diffexp.certify.equivalents import EQUIVALENTS, DiffusersEquivalent
from diffexp.certify.outcome import Certificate, failed, passed, plain
from diffexp.certify.overview import error_panels, in_order, table
from diffexp.cli.certify import read_words, run_command
from diffexp.drawing.ticks import log_ticks
from diffexp.errors import InputError
from diffexp.plan.schedules import FlowSchedule, VPSchedule
from tests.certify.faulty import classes, right
from tests.certify.faulty.behaviour import FAULTS, Fault

SCHEDULE = VPSchedule.from_betas()


def check(name: str, scheduler: Any, **options: Any) -> Outcome:
    return run_check(name, subject_of(scheduler, options=options))


# Faults


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.scheduler.__name__)
def test_a_planted_fault_fails_with_the_reason(fault: Fault) -> None:
    outcome = check(fault.check, fault.scheduler)
    assert outcome.failed, outcome.sentence
    assert re.search(fault.reason, outcome.sentence), outcome.sentence


@pytest.mark.parametrize("faulty", classes.FAULTY, ids=lambda faulty: faulty.__name__)
def test_a_fault_in_a_class_fails_with_the_reason(faulty: type) -> None:
    name, reason = classes.FAULTY[faulty]
    outcome = check(name, faulty)
    assert outcome.failed, outcome.sentence
    assert re.search(reason, outcome.sentence), outcome.sentence


@pytest.mark.parametrize("scheduler", [*right.RIGHT, classes.SimpleDDIM], ids=lambda scheduler: scheduler.__name__)
def test_what_is_right_passes_every_check(scheduler: Any) -> None:
    assert certify(scheduler).failures == {}


def test_nothing_is_passed_that_was_not_checked() -> None:
    """What a check cannot judge says so and why."""
    for name, scheduler, reason in (
        ("strong_order", "euler", "draws no noise"),
        ("strong_order", "dpm2_ancestral", "more than one evaluation a step"),
        ("parity", "gradient_estimation", "diffusers has no class of this method"),
        ("told", "lcm", "has the time scale of a network of its own"),
        ("order", "lcm", "a consistency method"),
        ("exact_error", "diffusers/ddim_inverse", "runs from data to noise"),
        ("middle_start", right.table, "is a plan"),
    ):
        outcome = check(name, scheduler)
        assert outcome.verdict is Verdict.SKIPPED
        assert outcome.sentence.startswith(f"not applicable: {reason}")


def test_samples_rounded_to_float32_are_worth_a_warning() -> None:
    def rounds(denoise, x, levels, noise):
        for here, there in levels.pairs():
            x0 = denoise(x, here).float().to(x.dtype)
            x = there.alpha * x0 + there.sigma / here.sigma * (x - here.alpha * x0)
        return x

    outcome = check("precision", rounds)
    assert outcome.verdict is Verdict.WARNED and "torch.float makes float32 of samples" in outcome.sentence


def test_an_error_names_the_line_it_was_raised_at() -> None:
    def fails(denoise, x, levels, noise):
        raise LookupError("nothing there")

    for name, told in (("order", "raises LookupError: nothing there"), ("few_steps", "with 1 step it raises Lookup")):
        outcome = check(name, fails)
        assert outcome.failed and told in outcome.sentence
        assert re.search(r"\(.*test_certify\.py:\d+\)$", outcome.sentence)


def test_code_that_is_no_table_is_certified_by_running_it() -> None:
    def adaptive(denoise, x, levels, noise):
        """Euler, with a step repeated at half length where the estimate moves much."""
        for here, there in levels.pairs():
            x0 = denoise(x, here)
            if there.sigma and (x0.abs() > 0.9).any():
                middle = levels.schedule.at_ratio(math.sqrt(here.ratio * there.ratio))
                x = middle.alpha * x0 + middle.sigma * (x - here.alpha * x0) / here.sigma
                here, x0 = middle, denoise(x, middle)
            x = there.alpha * x0 + there.sigma * (x - here.alpha * x0) / here.sigma
        return x

    assert not check("point", adaptive).failed and "is no table" in check("point", adaptive).sentence
    assert check("order", adaptive).numbers["order"] == pytest.approx(1, abs=0.25)
    assert check("exact_error", adaptive).verdict is Verdict.SKIPPED


# Orders


@pytest.mark.parametrize(
    ("scheduler", "options", "order"),
    [
        ("euler", {}, 1.01),
        ("heun", {}, 2.03),
        ("dpmpp_2m", {}, 2.02),
        ("unipc", {}, 3.02),
        ("dpmpp_3m", {}, 3.0),
        ("deis", {"order": 3}, 3.2),
        ("diffusers/euler", {}, 1.01),
        ("diffusers/dpmsolver_multistep", {}, 2.02),
        ("diffusers/unipc", {}, 3.02),
        ("diffusers/dpmsolver_multistep", {"solver_order": 3}, 1.97),
    ],
)
def test_orders_are_those_measured_on_diffusers(scheduler: str, options: dict[str, Any], order: float) -> None:
    outcome = check("order", scheduler, **options)
    assert outcome.numbers["order"] == pytest.approx(order, abs=0.15)
    assert outcome.failed == ((outcome.numbers["declared"] or 1) > order + 0.5)


def test_deis_of_diffusers_fails_by_its_float32_and_ours_does_not() -> None:
    theirs = check("order", "diffusers/deis", solver_order=3)
    assert theirs.failed and "because its coefficients are float32" in theirs.sentence
    assert "rounding that the method amplifies" in check("precision", "diffusers/deis", solver_order=3).sentence
    assert not check("precision", "deis", order=3).failed


@pytest.mark.parametrize("scheduler", ["ddpm", "euler_ancestral", "dpmpp_2m_sde"])
def test_orders_of_stochastic_schedulers(scheduler: str) -> None:
    weak, strong = check("order", scheduler), check("strong_order", scheduler)
    assert weak.numbers["kind"] == "weak order" and weak.numbers["order"] > 0.8
    assert strong.numbers["order"] > 0.7


@pytest.mark.parametrize(
    ("scheduler", "options", "declared"),
    [
        ("unipc", {}, 3),
        ("unipc", {"order": 1}, 2),
        ("unipc", {"order": 4}, 4),
        ("ipndm", {"order": 1}, 1),
        ("lms", {"order": 2}, 2),
        ("dpmpp_3m", {"eta": 1.0}, 2),
    ],
)
def test_an_order_that_hangs_on_an_option_is_found_as_declared(
    scheduler: str, options: dict[str, Any], declared: int
) -> None:
    outcome = check("order", scheduler, **options)
    assert not outcome.failed and outcome.numbers["declared"] == declared


@pytest.mark.parametrize(
    ("scheduler", "options"), [("edm_stochastic", {"s_churn": 40.0}), ("restart", {"intervals": [[10, 2, 0.1, 2]]})]
)
def test_steps_that_do_not_get_shorter_have_no_order(scheduler: str, options: dict[str, Any]) -> None:
    outcome = check("order", scheduler, **options)
    assert outcome.verdict is Verdict.SKIPPED and "its steps do not get shorter" in outcome.sentence


def test_a_fit_of_a_power_law_is_exact() -> None:
    counts = (10, 20, 40, 80)
    fit = Fit.of(counts, [3.0 * n**-2.5 for n in counts])
    assert (fit.order, fit.last) == (pytest.approx(2.5), pytest.approx(2.5))
    assert fit.half_width < 1e-9
    noisy = Fit.of(counts, [3.0 * n**-2.5 * (1.2 if n % 20 else 0.8) for n in counts])
    assert abs(noisy.order - 2.5) < noisy.half_width


@pytest.mark.parametrize("schedule", [SCHEDULE, FlowSchedule()])
def test_transport_is_the_solution_of_the_ode(schedule: Any) -> None:
    """Against Runge-Kutta in log sigma / alpha, of 400 steps."""
    here, there = schedule.at_ratio(40.0), schedule.at_ratio(0.02)
    x = torch.linspace(-2.5, 2.5, 11, dtype=torch.float64) * here.sigma
    y, times = x / here.alpha, np.linspace(math.log(here.ratio), math.log(there.ratio), 401)

    def slope(y: torch.Tensor, time: float) -> torch.Tensor:
        level = schedule.at_ratio(math.exp(time))
        return y - MIXTURE.clean_and_noise(level.alpha * y, level)[0]

    for before, after in zip(times, times[1:]):
        h, middle = after - before, (before + after) / 2
        k1 = slope(y, before)
        k2 = slope(y + h / 2 * k1, middle)
        k3 = slope(y + h / 2 * k2, middle)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(y + h * k3, after))
    assert torch.allclose(MIXTURE.transport(x, here, there), there.alpha * y, atol=1e-8)


def test_transport_from_noise_without_signal_gives_the_mixture() -> None:
    start = FlowSchedule().at_sigma(1.0)
    share = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    x = MIXTURE.transport(torch.special.ndtri(share), start, SCHEDULE.at_ratio(1e-6))
    assert x.mean().item() == pytest.approx(0.4 * -1.0 + 0.6 * 1.2, abs=1e-3)
    assert (x < 0).double().mean().item() == pytest.approx(0.4, abs=0.05)


# Exact errors


def test_the_spectra() -> None:
    for name, total in (("mnist", 210.9), ("natural", 256.0)):
        data = spectra()[name]
        assert len(data.mean) == len(data.variances) == 1024
        assert bool((data.variances >= 0).all()) and data.variances.sum().item() == pytest.approx(total, abs=0.1)
    # Black borders never vary: on them every digit is at -1.
    assert int((spectra()["mnist"].variances < 1e-6).sum()) > 200


def test_exact_errors_fall_and_higher_orders_win() -> None:
    errors = {name: check("exact_error", name).numbers["w2_natural"] for name in ("euler", "dpmpp_2m")}
    assert all(sorted(found, reverse=True) == found for found in errors.values())
    assert errors["dpmpp_2m"][-1] < errors["euler"][-1] / 5


def test_a_sampler_of_something_else_has_a_large_exact_error() -> None:
    def blurred(denoise, x, levels, noise):
        for here, _ in levels.pairs():
            x = 0.3 * denoise(x, here)
        return x

    outcome = check("exact_error", blurred)
    assert outcome.failed and "does not sample the data: 2-Wasserstein error" in outcome.sentence


# Parity


@pytest.mark.parametrize("twin", EQUIVALENTS, ids=lambda twin: f"{twin.native}-{twin.cls}-{len(twin.options)}")
def test_the_list_of_twins(twin: DiffusersEquivalent) -> None:
    outcome = check("parity", twin.native, **twin.options)
    assert outcome.verdict is Verdict.PASSED, outcome.sentence
    assert bool(twin.difference) == (outcome.numbers["difference"] > 1e-3)


def test_the_same_method_by_another_name() -> None:
    assert "ddim" in check("same_table", "euler").numbers["same"]
    assert "heun" in check("same_table", right.sample_heun).numbers["same"]
    assert check("same_table", "unipc").numbers["same"] == []
    assert "euler" in check("same_table", "diffusers/euler").numbers["same"]


# The command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scheduler=eulr"], "scheduler=eulr is not known; did you mean 'euler'?"),
        (["shceduler=euler"], "unknown key 'shceduler'; did you mean 'scheduler'?"),
        (["euler"], "'euler' is not key=value"),
        (["out=here"], "give scheduler=NAME, or scheduler=all"),
        (["scheduler=deis", "scheduler.ordr=2"], "unknown option 'scheduler.ordr' of scheduler=deis; did you mean"),
        (["scheduler=deis", "scheduler.order=x"], "scheduler.order=x is not one of 1, 2, 3"),
        (["scheduler=ddim", "scheduler.eta=many"], "scheduler.eta=many is not a number"),
        (["scheduler=all", "scheduler.eta=1"], "scheduler=all takes no options"),
        (["scheduler=diffusers"], "scheduler=diffusers is no scheduler by itself"),
        (["scheduler=ddim", "scheduler.eta=[1"], "scheduler.eta=[1 cannot be read"),
        (["scheduler=ddim,deis", "scheduler.eta=1"], "unknown option 'scheduler.eta' of scheduler=deis"),
    ],
)
def test_bad_input_is_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told}")


def test_words_become_jobs() -> None:
    request = read_words(["scheduler=ddim,ddpm", "out=somewhere"], discover())
    assert [job.label for job in request.jobs] == ["ddim", "ddpm"] and request.out == Path("somewhere")
    (job,) = read_words(["scheduler=restart", "scheduler.intervals=[[3,2,0.1,2]]"], discover()).jobs
    assert job.options == {"intervals": [[3, 2, 0.1, 2]]}
    words = ["scheduler=diffusers/dpmsolver_multistep", "scheduler.algorithm_type=sde-dpmsolver++"]
    assert read_words(words, discover()).jobs[0].options == {"algorithm_type": "sde-dpmsolver++"}
    everything = read_words(["scheduler=all"], discover())
    labels = [job.label for job in everything.jobs]
    assert {"euler", "er_sde", "diffusers/unipc", "diffusers/deis solver_order=3"} <= set(labels)
    assert everything.everything and len(labels) == len(set(labels))


def test_help_names_the_keys_and_the_schedulers(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "scheduler.OPTION=" in shown and "\n  euler\n" in shown


def test_a_certificate_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["scheduler=gradient_estimation", "scheduler.gamma=1.5", f"out={tmp_path}"]) == 0
    out = capsys.readouterr()
    assert "gradient_estimation gamma=1.5: passed" in out.out and not out.err  # quiet where there is no terminal
    folder = tmp_path / "gradient_estimation_gamma=1.5"
    content = json.loads((folder / "certificate.json").read_text())
    assert content["passed"] and content["options"] == {"gamma": 1.5}
    assert len(content["checks"]["order"]["counts"]) >= 6
    assert content["checks"]["strong_order"]["verdict"] == "not applicable"
    page = (folder / "certificate.md").read_text()
    assert page.startswith("# gradient_estimation gamma=1.5\n") and "| order | ✓ | order 2" in page
    with Image.open(folder / "certificate.png") as picture:
        assert picture.size[0] > 1000


def test_a_plugin_with_a_fault_ends_in_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(
        "from diffexp import scheduler\n\n\n@scheduler\ndef mine(denoise, x, levels, noise):\n"
        "    for here, there in levels.pairs():\n        x0 = denoise(x, here)\n"
        "        x = there.alpha * x0 + 1.01 * there.sigma * (x - here.alpha * x0) / here.sigma\n    return x\n"
    )
    monkeypatch.setenv("DIFFEXP_PLUGINS", str(tmp_path))
    assert run_command(["scheduler=mine,euler", f"out={tmp_path / 'out'}"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[:2] for line in lines[1:3]) == [["euler", "passed"], ["mine", "FAILED"]]
    index = (tmp_path / "out" / "index.md").read_text()
    assert "19 of 20 updates are wrong" in index and "[euler](euler/certificate.md)" in index
    assert (tmp_path / "out" / "exact_error.png").is_file()


def test_the_table_is_sorted_by_exact_error_and_as_wide_as_it_may_be() -> None:
    def made(name: str, error: float | None) -> Certificate:
        exact = passed("found", nfe=[5, 20, 40], w2_natural=[1.0, error, 0.0]) if error else failed("not found")
        return Certificate(name, {}, {"exact_error": exact}, 0.1, {})

    sorted_ones = in_order([made("late", None), made("second", 0.5), made("first", 0.1)])
    assert [one.name for one in sorted_ones] == ["first", "second", "late"]
    lines = table(sorted_ones, 80)
    assert all(len(line) <= 80 for line in lines) and "exact_error: not found" in table(sorted_ones, 200)[-1]


def test_the_chart_has_a_panel_for_every_family_and_one_line_for_the_same_errors() -> None:
    def made(name: str, errors: list[float], stages: int = 1, kind: str = "order", grid: str = "karras") -> Certificate:
        numbers = {"steps": [5, 10], "nfe": [5 * stages, 10 * stages], "w2_natural": errors, "grid": grid}
        return Certificate(name, {}, {"exact_error": passed("", **numbers), "order": passed("", kind=kind)}, 0.1, {})

    panels = error_panels(
        [
            made("euler", [0.4, 0.2]),
            made("ddim", [0.4, 0.2]),
            made("heun", [0.2, 0.05], stages=2),
            made("ddpm", [0.5, 0.3], kind="weak order"),
            made("diffusers/euler", [0.401, 0.2]),  # the line of a native one
            made("diffusers/pndm", [0.3, 0.1], grid="its own"),
        ]
    )
    named = {axes.title: [series.name for series in axes.series if not series.faint] for axes in panels}
    assert list(named.values()) == [["ddim, euler"], ["heun"], ["ddpm"], ["pndm*"]]
    assert [sum(series.faint for series in axes.series) for axes in panels] == [3, 3, 3, 3]
    assert all(series.name == "" for axes in panels for series in axes.series if series.faint)


def test_ticks_of_logarithmic_axes() -> None:
    assert log_ticks(4.8, 120) == [5, 10, 20, 50, 100]
    assert log_ticks(2e-4, 7.0) == pytest.approx([1e-3, 1e-2, 1e-1, 1])
    assert len(log_ticks(1e-14, 1.0)) <= 8


def test_a_chart_leaves_out_what_has_no_logarithm() -> None:
    line = Series("mixed", [5, 10, 20, 40], [1.0, 0.0, math.nan, 0.1])
    assert line.points == [(5, 1.0), (40, 0.1)]
    axes = Axes("title", "across", "upward", [line, Series("empty", [1], [math.inf])])
    picture = draw_charts([axes, Axes("nothing", "", "", [])])
    assert picture.size == (620, 420) and len(picture.getcolors(1 << 20) or ()) > 10


def test_numbers_that_json_has_not() -> None:
    assert plain({"a": [math.inf, math.nan, 1.0], "b": (2,)}) == {"a": ["inf", "nan", 1.0], "b": [2]}


def test_what_takes_no_model_is_bad_input() -> None:
    with pytest.raises(InputError, match="squaredcos_cap_v2"):
        certify("diffusers/unclip")


def test_and_without_assertions() -> None:
    """``python -O`` skips assert statements."""
    code = "from diffexp.certify import certify; certify('diffusers/unclip')"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True)
    *_, last = done.stderr.splitlines() or [""]
    assert last.startswith("diffexp.errors.InputError: UnCLIPScheduler refuses its options")
