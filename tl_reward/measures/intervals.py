"""Estimates with intervals: a bootstrap that draws whole prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tl_reward.errors import InputError
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval over `n` prompts (of which each may have several pairs)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_json(self) -> EstimateJson:
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n}

    def to_json_or_none(self) -> MaybeEstimateJson:
        """With None for nan, which JSON has not."""
        value, low, high = (number if np.isfinite(number) else None for number in (self.value, self.low, self.high))
        return {"value": value, "low": low, "high": high, "n": self.n}


def bootstrap_mean(values: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean with its 95 % percentile bootstrap interval (Efron and Tibshirani 1993).

    Values of one group (the pairs of one prompt) are not independent, so whole groups are drawn.
    """
    return bootstrap_ratio(values, np.ones(len(values)), groups, resamples=resamples, seed=seed)


def bootstrap_ratio(
    values: np.ndarray, weights: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The sum of the values over the sum of the weights, with its interval as in `bootstrap_mean`; 0 where the weights add up to 0."""
    if len(values) == 0:
        raise InputError("no pairs to average over")
    names: dict[str, int] = {}
    index = [names.setdefault(name, len(names)) for name in (groups or map(str, range(len(values))))]
    sums = np.bincount(index, weights=values)
    counts = np.bincount(index, weights=weights)
    generator = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // len(sums))  # all at once would hold resamples * n numbers
    means = np.empty(resamples)
    for start in range(0, resamples, at_once):
        draws = generator.integers(0, len(sums), size=(min(at_once, resamples - start), len(sums)))
        total = counts[draws].sum(1)
        means[start : start + len(draws)] = np.divide(sums[draws].sum(1), total, out=np.zeros(len(draws)), where=total != 0)
    low, high = np.quantile(means, [0.025, 0.975])
    value = values.sum() / weights.sum() if weights.sum() else 0.0
    return Estimate(float(value), float(low), float(high), len(sums))


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    return {name: [i for i, own in enumerate(names) if own == name] for name in sorted(set(names))}
