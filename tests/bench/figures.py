"""Medians with confidence intervals, and ratios of paired rounds."""

import math
import random
import statistics
from collections.abc import Sequence
from typing import NamedTuple

RESAMPLES = 2_000


class Estimate(NamedTuple):
    """A median with its 95 % confidence interval (bootstrap over the rounds)."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.median)} [{short(self.low)}, {short(self.high)}]"


def estimate(values: Sequence[float]) -> Estimate:
    """Returns the median of some rounds; NaN of none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Estimate(math.nan, math.nan, math.nan)
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(known, k=len(known))) for _ in range(RESAMPLES))
    return Estimate(
        statistics.median(known), medians[int(RESAMPLES * 0.025)], medians[int(RESAMPLES * 0.975) - 1]
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Returns the ratio of each pair of rounds."""
    return [a / b if b else math.nan for a, b in zip(ours, theirs, strict=False)]


def short(value: float) -> str:
    """A number, with fewer decimals the larger it is."""
    if math.isnan(value):
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
