"""Methods of learning on data whose best network is a formula: each finds a better table than it began with."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import diffexp
from diffexp.catalog.discover import discover
from diffexp.certify.data import spectra
from diffexp.cli.learn import read_orders
from diffexp.experiment.build import assemble
from diffexp.learn.fit import Adam, Curve, Descent
from diffexp.learn.gate import compare
from diffexp.learn.losses import quantile_differences
from diffexp.learn.methods.grid import best_path
from diffexp.learn.methods.spectrum import error
from diffexp.learn.problem import SEEDS, Problem
from diffexp.learn.session import _assembled, method_of
from diffexp.learn.table import Table, table_of
from diffexp.learn.trajectory import trajectory
from diffexp.plan.moments import Gaussian, gaussian_output

COMMON = ["metric=wasserstein", "steps=4", "train=24", "valid=24", "test=32", "grid=trailing"]
MIXTURE = ("model=mixture", "model.std=0.3")


@pytest.fixture(scope="module", autouse=True)
def no_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFEXP_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def problem_of(*words: str) -> Problem:
    catalog = discover()
    keys = {word.partition("=")[0] for word in words}
    usual = [word for word in COMMON if word.partition("=")[0] not in keys]
    (order,) = read_orders([*usual, *words], catalog)
    return Problem(assemble(order.config, catalog), order.config, order.settings)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return problem_of(*MIXTURE, "iterations=12", "batch=24", "learning_rate=0.05")


def learned(problem: Problem, method: str) -> tuple[Table, Curve]:
    curve = Curve()
    table, interrupted = method_of(method)(problem, None, curve)
    assert not interrupted
    return table, curve


@pytest.mark.parametrize("method", ["gauss_newton", "endpoint", "levels", "least_squares", "grid"])
def test_a_method_finds_a_better_table(problem: Problem, method: str) -> None:
    table, curve = learned(problem, method)
    before, after = problem.score(problem.table()), problem.score(table)
    assert curve.points[0]["score"] == pytest.approx(before) and curve.best == pytest.approx(max(before, after))
    assert after > before + 0.3
    start, end = problem.table(), table
    assert torch.equal(start.places(), end.places()) == (method == "least_squares")
    if method == "levels":  # the weights are those of the scheduler on the learned levels
        again = table_of(end.to_plan(), end.training_of_model)
        assert torch.allclose(again.mixing(), end.mixing(), atol=1e-8)


def test_noises_of_learning_choosing_and_comparing_differ(problem: Problem) -> None:
    starts = [problem.noises(part, 2).start for part in SEEDS]
    starts.append(diffexp.SampleNoise(0, [0, 1], problem.run.model.shape).draw())
    for i, one in enumerate(starts):
        assert all(not torch.allclose(one.float(), other.float()) for other in starts[i + 1 :])


def test_the_comparison_names_the_best_hand_made_scheduler(problem: Problem) -> None:
    proof = compare(problem, problem.base, discover())
    assert not proof.better and proof.screened > 20
    first = proof.differences[0]
    assert first.metric == "trajectory_error" and first.learned == proof.measured[1].estimates["trajectory_error"].value
    assert first.low <= first.difference <= first.high and first.verdict in proof.record()["differences"][0]["verdict"]
    assert len(proof.measured) > 3 and proof.measured[0].nfe == 4


def test_the_trajectory_passes_through_its_states_and_ends_at_the_solutions(problem: Problem) -> None:
    found = trajectory(problem, problem.train, range(4))
    assert torch.allclose(found.end.float(), problem.train.truth[:4].float(), atol=1e-5)
    middle = len(found.s) // 2
    assert torch.allclose(found.at(found.s[middle].item()), found.z[middle], atol=1e-6)
    between = found.at((found.s[middle] + found.s[middle + 1]).item() / 2)
    assert (between - (found.z[middle] + found.z[middle + 1]) / 2).abs().max() < 0.05


def test_the_cheapest_path_is_found() -> None:
    errors = torch.full((4, 4, 5), math.inf, dtype=torch.float64)
    for h, i, j, cost in [(0, 0, 1, 1.0), (0, 0, 2, 5.0), (0, 1, 4, 9.0), (0, 2, 4, 1.0), (0, 1, 3, 1), (1, 3, 4, 1)]:
        errors[h, i, j] = cost
    assert best_path(errors, 2) == [0, 2]
    assert best_path(errors, 3) == [0, 1, 3]


@pytest.mark.parametrize("name", ["natural", "mnist"])
def test_the_error_on_a_spectrum_is_that_of_the_plan(name: str) -> None:
    problem = problem_of("model=gaussian", "scheduler=dpmpp_2m", "grid=karras", "steps=6")
    table, data = problem.table(), spectra()[name]
    training = problem.run.model.training
    made = gaussian_output(table.to_plan(), data.mean, data.variances, training.prediction, training.schedule)
    exact = Gaussian(*made).wasserstein(data) / data.variances.sum().sqrt().item()
    assert error(table, data).item() == pytest.approx(exact, rel=0.02)


def test_a_distribution_has_no_distance_from_itself() -> None:
    features = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))

    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return a.shape[1] * quantile_differences(a, b).square().mean().item()

    assert distance(features, features[torch.randperm(16)]) == pytest.approx(0, abs=1e-10)
    assert distance(features, features + 1) > 0.5


class _Halving:
    """Scores of a descent; interrupts it after some."""

    def __init__(self, table: Table, interrupt_at: int | None = None) -> None:
        self.table, self.calls, self.interrupt_at = table, 0, interrupt_at

    def __call__(self) -> float:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return -self.table.levels.square().sum().item()


def descent(problem: Problem, folder: Path, interrupt_at: int | None) -> tuple[Descent, Mapping[str, Any]]:
    table = problem.table()
    method = Adam(table, {"levels": 0.05}, lambda iteration: table.levels.square().sum(), 30)
    made = Descent(table, method, _Halving(table, interrupt_at), 30, Curve(), folder)
    made.run()
    return made, {name: tensor.clone() for name, tensor in table.state_dict().items()}


def test_an_interrupted_descent_keeps_its_best_and_continues_as_if_it_had_not_been(problem, tmp_path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    whole, wanted = descent(problem, tmp_path / "a", None)
    first, kept = descent(problem, tmp_path / "b", 8)
    assert first.interrupted and not whole.interrupted
    assert first.curve.best == pytest.approx(-kept["levels"].square().sum().item())
    second, found = descent(problem, tmp_path / "b", None)
    assert not second.interrupted and torch.equal(found["levels"], wanted["levels"])
    assert [point["score"] for point in second.curve.points] == [point["score"] for point in whole.curve.points]


@pytest.mark.parametrize(("std", "steps", "grid"), [(0.3, 3, "ays"), (1.0, 10, "auto")])
def test_learning_starts_from_the_more_accurate_timestep_schedule(std: float, steps: int, grid: str) -> None:
    """AYS, or the model's own."""
    words, catalog = ["model=mixture", f"model.std={std}", "metric=none", f"steps={steps}", "valid=8"], discover()
    (order,) = read_orders(words, catalog)
    own, usual = Problem(assemble(order.config, catalog), order.config, order.settings), problem_of(*words, "grid=ays")
    better = own if own.score(own.table()) > usual.score(usual.table()) else usual
    _, config = _assembled(order.config, order.settings, catalog, usual_grid=order.usual_grid)
    assert config["grid"]["name"] == better.config["grid"]["name"] == grid
