"""Estimates with intervals: a bootstrap that draws whole prompts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tl_reward.errors import InputError
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson

if TYPE_CHECKING:
    import pandas

FEW = 10  # prompts; an interval over fewer is marked, since it is rough: a bootstrap over so few is too narrow


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval over `n` prompts (of which each may have several pairs).

    There is no interval below two prompts: `low` and `high` are nan then, and None in JSON. As text, such a number has "[–]" after it, and
    an interval over fewer than `FEW` prompts a star.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return interval_text(*self)

    def to_json(self) -> EstimateJson:
        return {"value": self.value, "low": _or_none(self.low), "high": _or_none(self.high), "n": self.n}

    def to_json_or_none(self) -> MaybeEstimateJson:
        """With None for nan, which JSON has not."""
        return {"value": _or_none(self.value), "low": _or_none(self.low), "high": _or_none(self.high), "n": self.n}

    def to_frame(self) -> "pandas.DataFrame":
        """One row: value, low, high, in the unit of what is estimated, and the count of prompts."""
        import pandas

        return pandas.DataFrame([self])

    @classmethod
    def of(cls, value: float, draws: np.ndarray, n: int) -> "Estimate":
        """With the 2.5 % and 97.5 % quantiles of bootstrap draws, of which those that are nan are left out."""
        drawn = draws[np.isfinite(draws)]
        low, high = np.quantile(drawn, [0.025, 0.975]) if len(drawn) and n > 1 else (np.nan, np.nan)
        return cls(float(value), float(low), float(high), n)


def interval_text(value: float, low: float | None, high: float | None, n: int, spec: str = ".3f") -> str:
    """A number and its interval, as `Estimate` has them.

    >>> interval_text(0.5, 0.25, 0.75, 12), interval_text(0.5, 0.25, 0.75, 8, "+.2f"), interval_text(0.5, None, None, 1)
    ('0.500 [0.250, 0.750]', '+0.50 [+0.25, +0.75]*', '0.500 [–]')
    """
    return f"{value:{spec}} {bracket_text(low, high, n, spec)}"


def bracket_text(low: float | None, high: float | None, n: int, spec: str) -> str:
    """An interval alone. Over one prompt there is none, though runs of earlier versions have one of no width."""
    if low is None or high is None or not np.isfinite([low, high]).all() or n < 2:
        return "[–]"
    return f"[{low:{spec}}, {high:{spec}}]{star(n)}"


def star(prompts: int) -> str:
    """The mark of a number over few prompts."""
    return "*" if prompts < FEW else ""


def _or_none(number: float) -> float | None:
    return number if np.isfinite(number) else None


def bootstrap_mean(values: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0) -> Estimate:
    """The mean with its 95 % percentile bootstrap interval (Efron and Tibshirani 1993).

    Values of one group (the pairs of one prompt) are not independent, so whole groups are drawn. One group alone has no interval.

    Raises:
        InputError: no value, one that is not finite, or as many groups as there are not values.
    """
    return bootstrap_ratio(values, np.ones(len(values)), groups, resamples=resamples, seed=seed)


def bootstrap_ratio(
    values: np.ndarray, weights: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The sum of the values over the sum of the weights, with its interval as in `bootstrap_mean`; 0 where the weights add up to 0."""
    if len(values) != len(weights):
        raise InputError(f"there must be a weight for each of {len(values)} values, got {len(weights)}")
    sums = resampled_sums(np.stack([values, weights]), groups, resamples=resamples, seed=seed)
    (total, weight), (totals, weight_of_draw) = sums.whole, sums.draws
    means = np.divide(totals, weight_of_draw, out=np.zeros(resamples), where=weight_of_draw != 0)
    return Estimate.of(total / weight if weight else 0.0, means, sums.n)


class Sums(NamedTuple):
    """Sums of several quantities: over all values, and over those of each bootstrap draw. `n` groups were drawn from."""

    whole: np.ndarray
    draws: np.ndarray
    n: int


def resampled_sums(values: np.ndarray, groups: Sequence[str] | None = None, *, resamples: int = 2000, seed: int = 0) -> Sums:
    """Sums [quantity] and [quantity, resample] of values [quantity, value], for whatever is a function of sums: a ratio, a correlation.

    Whole groups are drawn, the same ones for every quantity, and for every call with as many groups and the same seed.

    Raises:
        InputError: as `bootstrap_mean`.
    """
    count = values.shape[1]
    if count == 0:
        raise InputError("no pairs to average over")
    if groups is not None and len(groups) != count:
        raise InputError(f"there must be a group for each of {count} values, got {len(groups)}")
    if bad := int((~np.isfinite(values).all(0)).sum()):
        raise InputError(f"{bad} of {count} values are not finite")
    names: dict[str, int] = {}
    index = [names.setdefault(name, len(names)) for name in (groups or map(str, range(count)))]
    sums = np.stack([np.bincount(index, weights=each) for each in values])
    generator = np.random.default_rng(seed)
    at_once = max(1, 4_000_000 // len(names))  # all at once would hold resamples * n numbers
    drawn = np.empty((len(values), resamples))
    for start in range(0, resamples, at_once):
        draws = generator.integers(0, len(names), size=(min(at_once, resamples - start), len(names)))
        for own, each in zip(drawn, sums, strict=True):
            own[start : start + len(draws)] = each[draws].sum(1)
    return Sums(values.sum(1), drawn, len(names))


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    return {name: [i for i, own in enumerate(names) if own == name] for name in sorted(set(names))}
