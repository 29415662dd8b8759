"""Descent on the free numbers of a table, which keeps the best, can be interrupted, and continues later."""

import copy
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from diffexp.files import replace_whole
from diffexp.learn.table import Table

log = logging.getLogger(__name__)

STATE = "state.pt"
SCORED = 15
"""How often the table is scored, roughly; also at the end."""
WARM = 0.05
"""Share of the iterations in which the learning rate rises; afterwards it falls to 0 along a cosine."""


@dataclass
class Curve:
    """What was scored on the way."""

    unit: str = "dB"
    higher_is_better: bool = True
    points: list[dict[str, float]] = field(default_factory=list)
    """iteration, loss, score, seconds."""

    def better(self, score: float, than: float | None) -> bool:
        """Whether a score is better than another; NaN never is."""
        if than is None or math.isnan(than):
            return not math.isnan(score)
        return score > than if self.higher_is_better else score < than

    @property
    def best(self) -> float | None:
        found: float | None = None
        for point in self.points:
            if self.better(point["score"], found):
                found = point["score"]
        return found


class Method(Protocol):
    """A way to improve the free numbers of a table, one iteration after the other."""

    def step(self, iteration: int) -> float:
        """Change the table; returns the loss before."""
        ...

    def state(self) -> dict[str, Any]:
        """What the next iteration needs beside the table."""
        ...

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        ...


class Adam:
    """Gradient descent (Kingma & Ba 2015).

    Args:
        rates: learning rate of each free parameter of the table, by name.
        loss: the loss of an iteration, by its number.
    """

    def __init__(
        self, table: Table, rates: Mapping[str, float], loss: Callable[[int], Tensor], iterations: int
    ) -> None:
        self.parameters = [getattr(table, name) for name in rates]
        groups = [{"params": [one], "lr": rate, "peak": rate} for one, rate in zip(self.parameters, rates.values())]
        self.optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
        self.loss, self.iterations = loss, iterations

    def step(self, iteration: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * _rate(iteration, self.iterations)
        loss = self.loss(iteration)
        # Of these numbers alone: weights of networks may ask for gradients too.
        slopes = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, slope in zip(self.parameters, slopes):
            parameter.grad = None if slope is None else slope.nan_to_num(0.0, 0.0, 0.0)
        self.optimizer.step()
        return loss.item()

    def state(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(dict(state))


@dataclass
class Descent:
    """One descent; ``run`` leaves the best numbers that were scored in the table.

    Args:
        score: what decides which table is the best, on noises that the loss does not see.
        folder: where the state is kept for ``resume``; None keeps none.
    """

    table: Table
    method: Method
    score: Callable[[], float]
    iterations: int
    curve: Curve
    folder: Path | None = None
    interrupted: bool = False

    def run(self) -> None:
        """Descend; an interrupt ends it early, with what was the best so far."""
        first, best = self._resumed()
        every = max(1, self.iterations // SCORED)
        began, earlier = time.perf_counter(), self.curve.points[-1]["seconds"] if self.curve.points else 0.0
        losses: list[float] = []
        try:
            if not self.curve.points:
                self._scored(0, math.nan, 0.0)
                best = copy.deepcopy(self.table.state_dict())
            for iteration in range(first, self.iterations):
                losses.append(self.method.step(iteration))
                done = iteration + 1
                if done % every == 0 or done == self.iterations:
                    seconds = time.perf_counter() - began
                    if self._scored(done, sum(losses) / len(losses), earlier + seconds):
                        best = copy.deepcopy(self.table.state_dict())
                    self._log(seconds * (self.iterations - done) / (done - first))
                    losses.clear()
                    self._save(done, best)
        except KeyboardInterrupt:
            self.interrupted = True
        self.table.load_state_dict(best)

    def _scored(self, iteration: int, loss: float, seconds: float) -> bool:
        """Score the table; whether it is the best so far."""
        score, before = self.score(), self.curve.best
        self.curve.points.append({"iteration": iteration, "loss": loss, "score": score, "seconds": seconds})
        return self.curve.better(score, before)

    def _log(self, left: float) -> None:
        last, first = self.curve.points[-1], self.curve.points[0]
        log.info(
            "%d of %d · held-out %.4g %s, at the start %.4g, best %.4g · %d:%02d left",
            *(last["iteration"], self.iterations, last["score"], self.curve.unit, first["score"], self.curve.best),
            *divmod(round(left), 60),
        )

    def _save(self, done: int, best: Mapping[str, Tensor]) -> None:
        if self.folder is None:
            return
        state: dict[str, Any] = {"done": done, "table": self.table.state_dict(), "best": dict(best)}
        state |= {"method": self.method.state(), "points": self.curve.points}
        with replace_whole(self.folder / STATE) as temporary:
            torch.save(state, temporary)

    def _resumed(self) -> tuple[int, Mapping[str, Tensor]]:
        """The first iteration to do, and the best table so far."""
        file = self.folder and self.folder / STATE
        if not file or not file.is_file():
            return 0, copy.deepcopy(self.table.state_dict())
        state = torch.load(file, weights_only=True)
        self.table.load_state_dict(state["table"])
        self.method.load(state["method"])
        self.curve.points = state["points"]
        log.info("continues at iteration %d of %d", state["done"], self.iterations)
        return state["done"], state["best"]


def seconds_scored(folder: Path) -> float:
    """How long the descent in a folder took until its last score; 0 where there was none."""
    file = folder / STATE
    return float(torch.load(file, weights_only=True)["points"][-1]["seconds"]) if file.is_file() else 0.0


def _rate(iteration: int, iterations: int) -> float:
    """The learning rate of an iteration as a share of its peak."""
    done = (iteration + 1) / iterations
    return min(1.0, done / WARM) * 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / iterations)))
