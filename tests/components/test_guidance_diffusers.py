"""The guiders of diffusers as guidance: each run is what a plain loop with the guider gives."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import diffusers.guiders
import pytest
import torch
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance
from torch import Tensor

from diffexp.catalog.diffusers import PREFIX, class_entry, class_names
from diffexp.catalog.diffusers_guiders import CLASSES, EXCLUDED
from diffexp.catalog.discover import discover
from diffexp.cli.check import Preflight
from diffexp.cli.help import help_text
from diffexp.cli.hydra_config import hydra_session
from diffexp.cli.names import KnownNames
from diffexp.components.guidance.diffusers_guiders import guided_by, guider_of, try_out
from diffexp.components.models.base import Condition
from diffexp.errors import InputError
from diffexp.experiment.build import Components, assemble
from diffexp.experiment.reference import Reference
from diffexp.plan.execute import execute
from diffexp.plan.levels import Level
from diffexp.plan.noise import SampleNoise
from diffexp.plan.table import Plan
from tests.pipeline_runs import Kept

Compose = Callable[..., dict[str, Any]]
STEPS = 4
RUN = ("model=mnist", "label=7", f"steps={STEPS}", "num_samples=2", "guidance_scale=3", "dtype=float32")
GUIDERS: list[tuple[str, dict[str, Any]]] = [
    ("cfg", {"start": 0.25, "stop": 0.75}),
    ("cfg", {"guidance_rescale": 0.7}),
    ("cfg", {"use_original_formulation": True}),
    ("cfg_zero_star", {"zero_init_steps": 2}),
    ("tcfg", {}),
    ("apg", {"eta": 0.5, "adaptive_projected_guidance_rescale": 2.0}),
    ("apg", {"adaptive_projected_guidance_momentum": -0.5, "adaptive_projected_guidance_norm_dim": [-1, -2]}),
    ("apg_mix", {"adaptive_projected_guidance_start_step": 1, "adaptive_projected_guidance_scale": 4.0}),
    ("apg_mix", {"adaptive_projected_guidance_momentum": None, "adaptive_projected_guidance_start_step": 0}),
]
"""Options that make steps and memory count."""
Net = Callable[[Tensor, Tensor, Condition], Tensor]


def by_hand(guider: Any, parts: Components, samples: Sequence[int]) -> Tensor:
    """A plain loop in the manner of diffusers' modular pipelines: the step is counted, one call a prediction."""
    model, plan = parts.model, parts.sampler
    assert isinstance(plan, Plan)
    asked = model.conditions(parts.request, samples)
    assert asked.negative is not None
    sides = Condition(asked.positive, None, []), Condition(asked.negative, None, [])
    step = 0

    def evaluate(u: Tensor, level: Level) -> Tensor:
        nonlocal step
        t = torch.full((len(u),), level.timestep)
        guider.set_state(step=step, num_inference_steps=plan.nfe, timestep=t[0])
        states = guider.prepare_inputs({"side": sides})
        for state in states:
            guider.prepare_models(None)
            state.noise_pred = model.predict(u, t, state.side)
            guider.cleanup_models(None)
        step += 1
        return guider(states)[0]

    return drawn(parts, samples, evaluate)


def ours(parts: Components, samples: Sequence[int]) -> Tensor:
    condition = parts.model.conditions(parts.request, samples)
    return drawn(parts, samples, lambda u, level: parts.predict(u, torch.full((len(u),), level.timestep), condition))


def drawn(parts: Components, samples: Sequence[int], network: Any) -> Tensor:
    assert isinstance(parts.sampler, Plan)
    noise = SampleNoise(0, samples, parts.model.shape, "cpu", torch.float32)
    with torch.inference_mode():
        return execute(parts.sampler, network, noise.draw() * parts.sampler.start_std, noise.draw)


@pytest.fixture(scope="module")
def parts(compose: Compose) -> Callable[..., Components]:
    """Of a run of the embedded digits under a guider."""
    catalog, context = discover(), Kept()

    def parts(name: str, options: dict[str, Any]) -> Components:
        entry = class_entry("guidance", PREFIX + name)
        assert entry is not None
        node = {"name": PREFIX + name} | {option.name: option.default for option in entry.options} | options
        return assemble(compose(*RUN) | {"guidance": node}, catalog, context)

    return parts


@pytest.fixture(scope="module")
def plainly(parts: Callable[..., Components]) -> Tensor:
    """Sample 0 under classifier-free guidance."""
    return ours(parts("cfg", {}), [0])


@pytest.mark.parametrize(("name", "options"), GUIDERS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_run_is_what_a_plain_loop_gives(
    name: str, options: dict[str, Any], parts: Callable[..., Components], plainly: Tensor
) -> None:
    run = parts(name, options)
    guider = getattr(diffusers.guiders, CLASSES[name][1])(guidance_scale=3.0, **options)
    expected = by_hand(guider, run, [0])
    # The first run leaves nothing to the second, and samples of a batch know nothing of each other.
    for found in (ours(run, [0, 1])[:1], ours(run, [0])):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)
    assert (plainly - expected).abs().max() > 0.02, "a test that sees something"


def test_its_own_target(compose: Compose) -> None:
    words = ("guidance=diffusers", "guidance._target_=diffusers.AdaptiveProjectedGuidance", "guidance.eta=0.5")
    run = assemble(compose(*RUN, *words), discover())
    expected = by_hand(AdaptiveProjectedGuidance(guidance_scale=3.0, eta=0.5), run, [0])
    torch.testing.assert_close(ours(run, [0]), expected, atol=1e-3, rtol=0)


class Noted(ClassifierFreeGuidance):
    """Remembers which steps it was told."""

    def __init__(self, guidance_scale: float = 7.5) -> None:
        super().__init__(guidance_scale)
        self.told: list[tuple[int, int]] = []

    def set_state(self, step: int, num_inference_steps: int, timestep: Any) -> None:
        super().set_state(step, num_inference_steps, timestep)
        TOLD.append((step, num_inference_steps))


TOLD: list[tuple[int, int]] = []


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("ddim", [0, 1, 2, 3]),
        ("heun", [0, 1, 1, 2, 2, 3, 3]),
        ("diffusers/heun", [0, 1, 1, 2, 2, 3, 3]),
    ],
)
def test_the_step_is_that_of_the_noise_level(scheduler: str, expected: list[int], compose: Compose) -> None:
    run = assemble(compose(*RUN, f"scheduler={scheduler}"), discover())
    assert isinstance(run.sampler, Plan)
    predict = guided_by(Noted(3.0), run.model.predict, [row.level.timestep for row in run.sampler.rows])
    TOLD.clear()
    condition = run.model.conditions(run.request, [0])
    drawn(run, [0], lambda u, level: predict(u, torch.full((1,), level.timestep), condition))
    assert TOLD[0] == (0, STEPS), "at the start it sets itself up"
    assert TOLD[1:] == [(step, STEPS) for step in expected]


def test_an_uncompiled_scheduler_has_steps_too(compose: Compose) -> None:
    for scheduler in ("curved", "diffusers/ddim"):
        config = compose(*RUN, f"scheduler={scheduler}", "guidance=diffusers/cfg")
        if scheduler != "curved":
            config["scheduler"]["thresholding"] = True
        assert assemble(config, discover()).sampler is not None


def network(u: Tensor, t: Tensor, condition: Condition) -> Tensor:
    label = condition.positive["label"].view(-1, 1, 1, 1).to(u.dtype)
    return torch.tanh(u + 0.1 * label) + 0.05 * label + 1e-3 * t.view(-1, 1, 1, 1)


def asked(rows: int) -> tuple[Tensor, Condition]:
    u = torch.randn(rows, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return u, Condition({"label": torch.arange(rows)}, {"label": torch.full((rows,), 10)}, ["a"] * rows)


@pytest.mark.parametrize("name", ["cfg", "cfg_zero_star", "tcfg", "apg"])
def test_rows_at_different_levels(name: str) -> None:
    """As in loop=paradigms: each is guided as at its own step."""
    times = [900.0, 700.0, 500.0, 300.0]
    options = {"start": 0.25, "stop": 0.75, "guidance_rescale": 0.0 if name == "cfg_zero_star" else 0.5}
    guider = guider_of(getattr(diffusers.guiders, CLASSES[name][1]), options, 4.0)
    u, condition = asked(4)
    found = guided_by(guider, network, times)(u, torch.tensor(times), condition)
    for row, t in enumerate(times):
        own = Condition({"label": torch.tensor([row])}, {"label": torch.tensor([10])}, ["a"])
        alone = guided_by(guider, network, times)(u[row : row + 1], torch.tensor([t]), own)
        torch.testing.assert_close(found[row : row + 1], alone)


def test_momentum_needs_one_step_after_the_other() -> None:
    guider = guider_of(AdaptiveProjectedGuidance, {"adaptive_projected_guidance_momentum": -0.5}, 4.0)
    u, condition = asked(2)
    with pytest.raises(InputError, match="with momentum needs the steps one by one"):
        guided_by(guider, network, [900.0, 500.0])(u, torch.tensor([900.0, 500.0]), condition)


def test_momentum_counts_where_a_loop_begins_in_the_middle() -> None:
    """Image to image takes the last steps only."""
    momentum = {"adaptive_projected_guidance_momentum": -0.5}
    u, condition = asked(2)
    found = {}
    for options in (momentum, {}):
        predict = guided_by(guider_of(AdaptiveProjectedGuidance, options, 4.0), network, [900.0, 500.0, 100.0])
        found[len(options)] = [predict(u, torch.full((2,), t), condition) for t in (500.0, 100.0)]
    assert torch.equal(found[1][0], found[0][0]) and not torch.allclose(found[1][1], found[0][1])


def test_without_another_side_it_is_the_model() -> None:
    guider = guider_of(AdaptiveProjectedGuidance, {}, 4.0)
    u, _ = asked(2)
    alone = Condition({"label": torch.arange(2)}, None, ["a"] * 2)
    t = torch.full((2,), 500.0)
    assert torch.equal(guided_by(guider, network, [500.0])(u, t, alone), network(u, t, alone))


def test_outside_of_its_steps_it_costs_what_the_model_costs() -> None:
    sizes: list[int] = []

    def noted(u: Tensor, *rest: Any) -> Tensor:
        sizes.append(len(u))
        return network(u, *rest)

    guider = guider_of(ClassifierFreeGuidance, {"start": 0.5}, 4.0)
    u, condition = asked(2)
    predict = guided_by(guider, noted, [900.0, 500.0])
    for t in (900.0, 500.0):
        predict(u, torch.full((2,), t), condition)
    assert sizes == [2, 4]


def test_nothing_is_said_of_experiments(capfd: pytest.CaptureFixture[str]) -> None:
    guider_of(ClassifierFreeGuidance, {}, 4.0)
    assert capfd.readouterr().err == ""


def test_there_is_no_solution_to_compare_with(
    parts: Callable[..., Components], compose: Compose, tmp_path: Path
) -> None:
    run = parts("apg", {})
    assert "depends on the steps" in (Reference(run, compose(*RUN), tmp_path).missing or "")
    assert Reference(assemble(compose(*RUN), discover()), compose(*RUN), tmp_path).missing is None


# options


def test_every_guider_of_diffusers_is_an_option_or_left_out() -> None:
    there = {name for name in dir(diffusers.guiders) if name.endswith("Guidance")} - {"BaseGuidance"}
    assert there == {cls for _, cls in CLASSES.values()} | set(EXCLUDED)
    assert class_names("guidance") == [PREFIX + name for name in CLASSES]


@pytest.mark.parametrize("name", CLASSES)
def test_options_are_those_of_the_class(name: str) -> None:
    entry = class_entry("guidance", PREFIX + name)
    assert entry is not None
    cls = entry.load()
    assert cls is getattr(diffusers.guiders, CLASSES[name][1])
    taken = dict(inspect.signature(cls).parameters)
    assert {option.name for option in entry.options} == taken.keys() - {"guidance_scale", "enabled"}
    for option in entry.options:
        assert option.default == taken[option.name].default
        assert option.type.base != "any" and option.type.problem(option.default) is None, option.name


@pytest.mark.parametrize("cls", ["PerturbedAttentionGuidance", "AutoGuidance", "LTX2Guidance"])
def test_what_needs_more_than_two_predictions_is_refused(cls: str, compose: Compose) -> None:
    words = ("guidance=diffusers", f"guidance._target_=diffusers.{cls}")
    with pytest.raises(InputError) as caught:
        assemble(compose(*RUN, *words), discover())
    assert str(caught.value) == f"{cls} {EXCLUDED[cls]}; choose another guidance"


def test_so_is_anyone_elses() -> None:
    class Hooked(ClassifierFreeGuidance):
        def prepare_models(self, denoiser: Any) -> None: ...

    with pytest.raises(InputError, match="Hooked changes layers of the network"):
        guider_of(Hooked, {}, 2.0)


@pytest.mark.parametrize(
    ("cls", "options", "expected"),
    [
        ("ClassifierFreeGuidance", {"start": 1.5}, "refuses its options: Expected `start` to be between 0.0 and 1.0"),
        ("ClassifierFreeGuidance", {"guidance_scale": 3.0}, "guidance.guidance_scale is guidance_scale=..., for every"),
        ("FrequencyDecoupledGuidance", {}, "refuses its options: .*kornia"),
    ],
)
def test_what_a_class_does_not_take(
    cls: str, options: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusers.guiders.frequency_decoupled_guidance._CAN_USE_KORNIA", False)  # though it may be
    with pytest.raises(InputError, match=expected) as caught:
        guider_of(getattr(diffusers.guiders, cls), options, 2.0)
    assert "\n" not in str(caught.value)


def test_what_a_class_cannot_do_is_found_out_before_the_run() -> None:
    rescaling_zeros = guider_of(diffusers.guiders.ClassifierFreeZeroStarGuidance, {"guidance_rescale": 0.5}, 2.0)
    with pytest.raises(InputError, match="ClassifierFreeZeroStarGuidance gives NaN at step 0"):
        try_out(rescaling_zeros, (1, 8, 8), 5)
    norms_of_planes = guider_of(diffusers.guiders.MagnitudeAwareGuidance, {}, 2.0)
    try_out(norms_of_planes, (8, 8), 5)
    with pytest.raises(InputError, match="MagnitudeAwareGuidance cannot guide samples of shape .1, 8, 8.: .*dim"):
        try_out(norms_of_planes, (1, 8, 8), 5)


@pytest.fixture(scope="module")
def preflight() -> Preflight:
    catalog = discover()
    with hydra_session(catalog) as hydra:
        return Preflight(hydra, catalog)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("guidance=diffusers/apgg", "guidance=diffusers/apgg is not known; did you mean 'diffusers/apg'?"),
        ("guidance=AdaptiveProjectedGuidance", "did you mean 'diffusers/apg'?"),
        ("guidance=diffusers/pag", "guidance=diffusers/pag: PerturbedAttentionGuidance changes layers"),
        ("guidance=diffusers/skip_layer", "guidance=diffusers/skip_layer: SkipLayerGuidance changes layers"),
        ("guidance=diffusers/apg guidance.etta=1", "did you mean 'guidance.eta'?"),
        ("guidance=diffusers/apg guidance.eta=x", "guidance.eta=x is not a number"),
        ("guidance=diffusers/apg guidance.guidance_scale=3", "guidance.guidance_scale is guidance_scale=..."),
        ("guidance=cfg guidance.rescal=0.7", "unknown option 'guidance.rescal' of guidance=cfg; did you mean"),
        ("guidance=intervall", "did you mean 'interval'?"),
        ("guidance=interval guidance.hi=3", "unknown option 'guidance.hi' of guidance=interval"),
    ],
)
def test_mistakes(words: str, expected: str, preflight: Preflight) -> None:
    with pytest.raises(InputError) as caught:
        KnownNames.of(preflight.catalog).check_words(words.split())
    assert expected in str(caught.value)
    with pytest.raises(InputError) as caught:
        preflight.check(words.split(), multirun=False)
    assert expected in str(caught.value)


def test_what_is_no_guider(compose: Compose) -> None:
    node = {"name": "diffusers", "_target_": "diffusers.DDIMScheduler"}
    with pytest.raises(InputError, match="guidance._target_=diffusers.DDIMScheduler is not a guider"):
        assemble(compose(*RUN) | {"guidance": node}, discover())


def test_help_lists_every_guider_with_its_options() -> None:
    text = help_text(discover())
    for name, (_, cls) in CLASSES.items():
        assert f"\n  {PREFIX + name:18} {cls}: " in text
    for line in ("guidance.rescale: float = 0.0", "guidance.low: float = 0.28", "guidance.eta: float = 1.0"):
        assert f"\n      {line}\n" in text
    assert "guidance._target_: str = ???" in text
