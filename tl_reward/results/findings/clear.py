"""When is an estimate clear of a number? Where its interval is, also if it is made wider for all that were looked at beside it."""

import math
from collections.abc import Sequence
from statistics import NormalDist

from tl_reward.measures.intervals import FEW
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson

LEVEL = 0.05  # how often one or more of all that a rule looks at may be clear by chance alone


def side_of(value: EstimateJson | MaybeEstimateJson, neutral: float, among: int) -> int:
    """1 where an estimate is clearly above a number, -1 where it is clearly below, else 0.

    Each end of its 95 % interval is moved away from the value by the factor of Bonferroni's correction for `among` estimates, as the
    quantiles of a normal distribution have it. Over fewer than `FEW` prompts nothing is clear. An interval without any width, such as that
    of an accuracy of 1, is clear where a sign test would be.

    >>> estimate = {"value": 0.7, "low": 0.55, "high": 0.85, "n": 40}
    >>> side_of(estimate, 0.5, 1), side_of(estimate, 0.5, 20), side_of(estimate | {"n": 9}, 0.5, 1)
    (1, 0, 0)
    """
    middle, low, high, n = value["value"], value.get("low"), value.get("high"), value["n"]
    if middle is None or low is None or high is None or n < FEW:
        return 0
    if low == high and (n - 1) * math.log(2) < math.log(among / LEVEL):  # 2^(1-n), that all are on one side, is not small enough
        return 0
    low, high = middle - (middle - low) * _factor(among), middle + (high - middle) * _factor(among)
    return 1 if low > neutral else -1 if high < neutral else 0


def beyond(value: EstimateJson | MaybeEstimateJson, numbers: Sequence[float], side: int) -> bool:
    """Whether an estimate's 95 % interval is above all of some numbers (`side` 1), or below (-1); there must be one."""
    end = value.get("low") if side > 0 else value.get("high")
    return end is not None and len(numbers) > 0 and all((end - number) * side > 0 for number in numbers)


def by_p(p_value: float, among: int) -> bool:
    """Whether a p-value is small enough, of `among` that were looked at (Bonferroni)."""
    return 0 <= p_value * among <= LEVEL


def chance_range(mean: float, among: int = 1) -> tuple[int, int]:
    """Between which counts a number is by chance, but for `LEVEL` of `among` cases, if it counts rare events of that mean (Poisson). What
    independent sets share within layers has this mean and a smaller spread, so that the range is on the safe side."""
    from scipy.stats import poisson  # half a second, for those that need it

    tail = LEVEL / 2 / max(1, among)
    return int(poisson.ppf(tail, mean)), int(poisson.ppf(1 - tail, mean))


def _factor(among: int) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - LEVEL / 2 / max(1, among)) / normal.inv_cdf(1 - LEVEL / 2)
