"""A table whose numbers are free: a multistep method of full depth in the x0 estimates.

With z = (1 - s) x0 + s eps (see ``coordinates``) a step from s to s' is

    z' = kappa z + c sum_j (w_j x0_j + v_j r_j) + g noise,  kappa = sqrt(s'^2 - g^2) / s,  c = (1 - s') - kappa (1 - s)

over the x0 estimates of this evaluation and of all before it, with weights w that sum to 1, and over what clipping
removed from each, r. It is then exact wherever the x0 estimate is constant, whatever the free numbers are. Free are: s,
as the logit of s' / s, so that levels stay in order; the level of the timestep that the network gets, as a shift in
log(sigma / alpha); the scale of its input, as the logarithm of a factor; all weights but the newest w.

Euler, DDIM, DPM-Solver++ and all other multistep methods in x0 or noise have this form (Shaul et al. 2024,
arXiv:2403.01329, prove that it contains every solver of one evaluation a step that is linear in the past).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from diffexp.errors import InputError
from diffexp.learn.coordinates import Facts, facts, log_ratio, place, seen_level, timesteps
from diffexp.plan.predictions import Clip
from diffexp.plan.row import Clamp, Row
from diffexp.plan.table import Plan
from diffexp.plan.training import Training

TOLERANCE = 1e-3
"""How far a start table may be from exact for constant x0; those of schedulers that float32 rounds are off by 1e-5."""
LEVELS, SHIFTS, SCALES, WEIGHTS, REMAINDERS = "levels", "shifts", "scales", "weights", "remainders"
"""The groups of free numbers."""


@dataclass(frozen=True)
class FreeNumber:
    """One of the numbers that can be learned."""

    group: str
    place: tuple[int, ...]
    """In the parameter of that name."""
    first: int
    """The first evaluation that depends on it."""


class Table(nn.Module):
    """A learnable table for one training.

    Args:
        training: of the model.
        first: s of the first level, which is fixed.
        start_std: standard deviation of the network's first input.
        ratios: s' / s of every step but the last, which ends clean, each in (0, 1).
        shifts: log(sigma / alpha) of the timestep that the network gets, less that of the level; one an evaluation.
        weights: [n, n], in row k the weights of estimates 0 to k, each row with the sum 1.
        noise: standard deviation of the noise of each step but the last over s', in [0, 1); by default none.
        scales: log of the factor on the network's input, of every evaluation but the first; by default 0.
        remainders: [n, n], in row k the weights of what clipping removed from estimates 0 to k; by default 0.

    Raises:
        InputError: the model clips in a way that no table can.
    """

    shares: Tensor

    def __init__(
        self,
        training: Training,
        first: float,
        start_std: float,
        ratios: Sequence[float],
        shifts: Sequence[float],
        weights: np.ndarray,
        noise: Sequence[float] = (),
        scales: Sequence[float] = (),
        remainders: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        if training.clip is not None and not isinstance(training.clip, Clip):
            raise InputError("the model thresholds its estimates sample by sample, which no table can do")
        self.training_of_model = training
        self.first, self.start_std = first, start_std
        ratio = torch.tensor([*ratios], dtype=torch.float64)
        self.levels = nn.Parameter(torch.logit(ratio, eps=1e-9))
        self.shifts = nn.Parameter(torch.tensor([*shifts], dtype=torch.float64))
        self.scales = nn.Parameter(torch.tensor([*scales] or [0.0] * len(ratios), dtype=torch.float64))
        self.weights = nn.Parameter(torch.from_numpy(np.tril(weights, -1)).double())
        given = np.zeros_like(weights) if remainders is None else np.tril(remainders)
        self.remainders = nn.Parameter(torch.from_numpy(given).double())
        self.register_buffer("shares", torch.tensor([*noise] or [0.0] * len(ratios), dtype=torch.float64))

    @property
    def nfe(self) -> int:
        """Evaluations of the network."""
        return len(self.shifts)

    @property
    def deterministic(self) -> bool:
        """Whether no step draws noise."""
        return not bool(self.shares.any())

    @property
    def clip(self) -> float | None:
        """Bound of the x0 estimates."""
        clip = self.training_of_model.clip
        return clip.limit if isinstance(clip, Clip) else None

    def places(self) -> Tensor:
        """s of every evaluation, and of the clean end, [nfe + 1], falling."""
        first = torch.full((1,), self.first, dtype=torch.float64)
        s = torch.cat([first, self.first * torch.cumprod(torch.sigmoid(self.levels), dim=0)])
        return torch.cat([s, torch.zeros(1, dtype=torch.float64)])

    def mixing(self) -> Tensor:
        """The weights, [nfe, nfe]; those of later estimates are 0."""
        older = torch.tril(self.weights, -1)
        return older + torch.diag(1 - older.sum(dim=1))

    def steps(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """kappa, c and g of every step, [nfe] each, for the places ``s``."""
        here, there = s[:-1], s[1:]
        share = torch.cat([self.shares, torch.zeros(1, dtype=torch.float64)])
        kappa = there * (1 - share.square()).sqrt() / here
        return kappa, (1 - there) - kappa * (1 - here), there * share

    def evaluations(self, s: Tensor) -> tuple[list[Facts], Tensor]:
        """The facts of every evaluation, and the timesteps that the network gets, [nfe]."""
        logs = log_ratio(s[:-1])
        factors = torch.cat([torch.ones(1, dtype=torch.float64), self.scales.exp()])
        found = [
            replace(one, scale=one.scale * factor) for one, factor in zip(facts(self.training_of_model, logs), factors)
        ]
        return found, timesteps(self.training_of_model, logs + self.shifts)

    def free_numbers(self, groups: Sequence[str]) -> list[FreeNumber]:
        """The numbers of these groups, as far as the samples depend on them."""
        n = self.nfe
        known = {
            LEVELS: [FreeNumber(LEVELS, (k,), k + 1) for k in range(n - 1)],
            SHIFTS: [FreeNumber(SHIFTS, (k,), k) for k in range(n)],
            SCALES: [FreeNumber(SCALES, (k,), k + 1) for k in range(n - 1)],
            WEIGHTS: [FreeNumber(WEIGHTS, (k, j), k + 1) for k in range(n) for j in range(k)],
            REMAINDERS: [FreeNumber(REMAINDERS, (k, j), k + 1) for k in range(n) for j in range(k + 1)],
        }
        if self.clip is None:
            known[REMAINDERS] = []
        return [number for group in groups for number in known[group]]

    @torch.no_grad()
    def to_plan(self, name: str = "learned") -> Plan:
        """The table as a plan, whose numbers are what a rollout computes with."""
        s, mixing, removed = self.places(), self.mixing().tolist(), torch.tril(self.remainders).tolist()
        found, given = self.evaluations(s)
        kappa, c, g = (part.tolist() for part in self.steps(s))
        scales = [one.scale.item() for one in found]
        estimates = [(one.p.item() * scale, one.q.item()) for one, scale in zip(found, scales)]
        rows = []
        for k, log in enumerate(log_ratio(s[:-1]).tolist()):
            own = [c[k] * mixing[k][j] for j in range(k, -1, -1)]
            past = estimates[k::-1]
            level = seen_level(self.training_of_model, log)
            z = (g[k],) if not self.deterministic and k < self.nfe - 1 else ()
            common = {"level": type(level)(given[k].item(), level.alpha, level.sigma), "scale": scales[k], "z": z}
            plain = own if self.clip is None else [c[k] * removed[k][j] for j in range(k, -1, -1)]
            x = [weight * p for weight, (p, _) in zip(plain, past)]
            m = _trimmed([0.0 + weight * q for weight, (_, q) in zip(plain, past)])  # no -0
            if self.clip is not None:
                common["d"] = tuple((weight - beyond,) for weight, beyond in zip(own, plain))
                common["clamps"] = (Clamp(*estimates[k], -self.clip, self.clip),)
            rows.append(Row(x=_trimmed([kappa[k] + x[0], *x[1:]]), m=m, **common))
        return Plan(tuple(rows), self.start_std / scales[0], name=name).unscaled()


def table_of(plan: Plan, training: Training) -> Table:
    """The learnable table that a plan is.

    Raises:
        InputError: the plan is no multistep method in x0 with one evaluation a step.
    """
    u, made = plan.unscaled(), []
    n = plan.nfe
    size = 2 * n + 1 + plan.draws
    draw = 2 * n + 1 + len(u.start_z)
    state = np.zeros(size)
    state[0] = u.start_std
    samples, outputs, clamps = list[np.ndarray](), list[np.ndarray](), list[list[np.ndarray]]()
    for k, row in enumerate(u.rows):
        x0, removed = np.eye(size)[[k + 1, n + k + 1]]
        p, q = training.prediction.clean(row.level)
        m = (x0 - p * state) / q
        samples, outputs = [state, *samples], [m + removed / q if row.clamps else m, *outputs]
        clamps = [[_clamped(clamp, x0, state, m, (p, q)) for clamp in row.clamps], *clamps]
        terms = [*zip(row.x, samples), *zip(row.m, outputs)]
        terms += [pair for own, past in zip(row.d, clamps) for pair in zip(own, past)]
        state = sum((weight * vector for weight, vector in terms), np.zeros(size))
        state[draw : draw + len(row.z)] += row.z
        draw += len(row.z)
        made.append(state)
    return _from_vectors(u, made, training)


def _clamped(clamp: Clamp, x0: np.ndarray, x: np.ndarray, m: np.ndarray, clean: tuple[float, float]) -> np.ndarray:
    """A clamped combination as if nothing was clamped; that of the x0 estimate itself is the estimate of the table."""
    same = np.allclose((clamp.x, clamp.m), clean, rtol=1e-4)
    return x0 if same else clamp.x * x + clamp.m * m


def _from_vectors(plan: Plan, made: Sequence[np.ndarray], training: Training) -> Table:
    """The table from its samples as combinations of the start noise, estimates, what clipping removed, and noise."""
    levels = [row.level for row in plan.rows]
    s = [place(level) for level in levels]
    n = plan.nfe
    if any(after >= before for before, after in zip(s, s[1:])):
        raise InputError(f"{plan.name} evaluates a noise level twice, or goes back to a higher one: {_CHOOSE}")
    # The network's input has as much noise as its level asks for, up to that of the start, times a factor.
    excess = plan.start_std / levels[0].sigma
    noises = [math.hypot(vector[0] / excess, *vector[2 * n + 1 :]) for vector in made[:-1]]
    factors = [1.0, *(noise / level.sigma for noise, level in zip(noises, levels[1:]))]
    scales = [(level.alpha + level.sigma) * factor for level, factor in zip(levels, factors)] + [1.0]
    first = np.zeros(len(made[0]))
    first[0] = plan.start_std / scales[0]
    z = [first, *(vector / scale for vector, scale in zip(made, scales[1:]))]
    weights, remainders, noise = np.eye(n), np.zeros((n, n)), []
    for k in range(n):
        there = s[k + 1] if k + 1 < n else 0.0
        g = math.sqrt(sum((c / scales[k + 1]) ** 2 for c in plan.rows[k].z))
        if k + 1 < n:
            noise.append(min(g / there, 1 - 1e-9))
        kappa = math.sqrt(max(there**2 - g**2, 0.0)) / s[k]
        rest = z[k + 1] - kappa * z[k]
        c = (1 - there) - kappa * (1 - s[k])
        weights[k, : k + 1], remainders[k] = rest[1 : k + 2] / c, rest[n + 1 : 2 * n + 1] / c
        if k == n - 1 and weights[k].sum() > 0.5:  # some end at the lowest training level instead of clean
            weights[k] /= weights[k].sum()
        elif abs(rest[0]) > TOLERANCE or abs(weights[k].sum() - 1) > TOLERANCE:
            raise InputError(f"{plan.name} is not exact for a constant x0 at step {k}: {_CHOOSE}")
    shifts = [_shift(training, level.timestep, math.log(level.ratio)) for level in levels]
    ratios = [after / before for before, after in zip(s, s[1:])]
    start_std = plan.start_std * plan.start_scale
    scaled = [math.log(one) for one in factors[1:]]
    return Table(training, s[0], start_std, ratios, shifts, weights, noise, scaled, remainders)


_CHOOSE = "start from a multistep method, such as scheduler=dpmpp_2m, ddim, deis or ipndm"


def _shift(training: Training, timestep: float, log: float) -> float:
    """What to add to log(sigma / alpha) for the network to get ``timestep``; within 8, where that is possible."""
    if math.isinf(log) or math.isclose(
        training.schedule.at_ratio(math.exp(log)).timestep, timestep, rel_tol=1e-12, abs_tol=1e-10
    ):
        return 0.0
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        below = training.schedule.at_ratio(math.exp(log + middle)).timestep < timestep
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _trimmed(values: Sequence[float]) -> tuple[float, ...]:
    """Without zeros at the end, except the first."""
    last = max((i for i, value in enumerate(values) if value), default=0)
    return tuple(values[: last + 1])
