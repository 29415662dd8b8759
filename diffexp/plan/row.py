"""One row of a plan: a model evaluation and the update that follows it."""

from dataclasses import dataclass

from diffexp.plan.levels import Level


@dataclass(frozen=True, slots=True)
class Clamp:
    """d = clamp(x * x_k + m * m_k, low, high)."""

    x: float
    m: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Row:
    """One model evaluation and the update that follows it; coefficient lists run backwards in time, newest first.

    x_{k+1} = sum_j x[j] x_{k-j} + sum_j m[j] m_{k-j} + sum_j sum_i d[j][i] d_{k-j,i} + sum_i z[i] z_i
    """

    level: Level
    """Level of the evaluation: its timestep, and alpha and sigma of the network's input."""
    scale: float
    """The network sees scale * x_k."""
    x: tuple[float, ...]
    m: tuple[float, ...]
    d: tuple[tuple[float, ...], ...] = ()
    z: tuple[float, ...] = ()
    """One coefficient per fresh draw of standard normal noise."""
    clamps: tuple[Clamp, ...] = ()
    """Clamped combinations of this row's x_k and m_k."""

    @property
    def depth(self) -> int:
        """Number of rows back that the update reads, 0 for a one-step method."""
        return max(len(self.x), len(self.m), len(self.d), 1) - 1
