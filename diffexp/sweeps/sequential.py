"""A sequential test of many differences, which are looked at again and again while samples come in.

At look l a difference has a p-value of its own, p_l, from all samples so far. A share w_l of the level is spent at each
look, where the shares add up to 1, and the smallest p_l / w_l up to a look is a p-value that holds whenever one stops:
it is below the level a for some look with probability at most sum(a w_l) = a (alpha spending, Lan & DeMets 1983,
"Discrete sequential boundaries for clinical trials"; repeated p-values, Jennison & Turnbull 2000, "Group sequential
methods", chapter 9). Of such p-values Holm's method keeps the error over all differences and all looks together.

The shares are spent by Bonferroni's inequality, which asks nothing of how the looks depend on each other. The exact
boundaries assume that what comes in between two looks is independent and normal, which distances of distributions,
biased by the number of samples, are not. They would save about a tenth of the samples. Confidence sequences, which hold
at all times rather than at a few, need a bound of each sample's share in the value, which distances do not have.

Up to a look the third power of the share of samples is spent (the power family of Kim & DeMets 1987, "Design and
analysis of group sequential tests based on the type I error spending rate function"): early looks, of which the
p-values are less exact, find only what is obvious, and more than half of the level is left for the last one. On the
model that ships this decides more pairs than a spending in proportion (49 of 65 against 44, with 71 % of the images
against 68; see ``tests/benchmarks/bench_verdicts.py``).

A difference that will hardly be decided at the last look need not be looked at until then: one stops where the chance
is small, as it is if the difference is larger by a standard error than it seems (conditional power, Lan & Wittes 1988,
"The B-value: a tool for monitoring data"). Stopping without a verdict makes no error. A single difference that a test
of ``most`` samples alone finds with probability 44, 80 and 97 % is then found with 35, 72 and 94 %, and where there is
none, 64 % of the samples are drawn; with more pairs in a race both are less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from diffexp.errors import InputError

FIRST = 32
"""Samples at the first look: halves of 16 are the smallest of which most statistics have values."""
FEWEST = 2 * FIRST
"""The smallest number of samples in all that leaves room for looks."""
GROWTH = 1.5
"""From look to look, about. Fewer looks draw more than is needed before they decide; more leave less level for each."""
LEVEL = 0.05
POWER = 3.0
"""The level spent up to a look is this power of the share of samples."""
HOPELESS = 0.2
"""A difference is given up where its chance of being decided is smaller ..."""
EARLIEST = 0.1
"""... and there is at least this share of all samples."""


def looks(most: int, first: int = FIRST) -> tuple[int, ...]:
    """The numbers of samples at which to look, the last of them ``most``; even, because samples are split in pairs.

    Only ``most`` where it leaves no room for two looks.
    """
    found: list[int] = []
    size = float(first)
    while size * math.sqrt(GROWTH) <= most:
        found.append(2 * round(size / 2))
        size *= GROWTH
    return (*found, most)


def check_samples(most: int) -> None:
    """Check that there is room for looks.

    Raises:
        InputError: there is not.
    """
    if most < FEWEST:
        raise InputError(f"stop=decided needs num_samples={FEWEST} or more, because intervals do (here: {most})")


def shares(looks: Sequence[int]) -> tuple[float, ...]:
    """The share of the level that is spent at each look; they add up to 1."""
    spent = [(count / looks[-1]) ** POWER for count in looks]
    return tuple(after - before for before, after in zip([0.0, *spent], spent))


def repeated(p: float, share: float, before: float = 1.0) -> float:
    """The p-value of a difference over all looks so far.

    Args:
        p: at this look.
        share: of the level that is spent at this look.
        before: over the looks before it.
    """
    return min(before, p / share)


def adjusted(p_values: Mapping[tuple[int, int], float], tests: int) -> dict[tuple[int, int], float]:
    """Adjust p-values for the number of differences by Holm's method; those that are not given count as 1.

    Args:
        tests: the number of differences in all, the same at every look.
    """
    found: dict[tuple[int, int], float] = {}
    highest = 0.0
    for rank, pair in enumerate(sorted(p_values, key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (tests - rank) * p_values[pair]))
        found[pair] = highest
    return found


def is_hopeless(p: float, count: int, most: int, needed: float) -> bool:
    """Whether a difference will hardly be decided by the last look.

    Args:
        p: its p-value at this look alone.
        count: the number of samples at this look.
        most: the number at the last look.
        needed: the p-value that would decide it there.
    """
    from scipy.special import ndtr, ndtri  # imported late: it takes a while

    done = count / most
    if p >= 1.0:  # no difference at all, as of samples that are the same
        return done < 1
    if not EARLIEST <= done < 1:
        return False
    found, wanted = -float(ndtri(max(p, 1e-300) / 2)), -float(ndtri(needed / 2))
    drift = (found + 1) / math.sqrt(done)
    expected = found * math.sqrt(done) + drift * (1 - done)
    return float(ndtr((expected - wanted) / math.sqrt(1 - done))) < HOPELESS
