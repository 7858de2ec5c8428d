"""Two models, or a model before and after an edit, on the same pairs: each of their figures, and the paired difference."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from tl_reward.errors import InputError
from tl_reward.measures.intervals import Estimate, bootstrap_mean, resampled_sums
from tl_reward.measures.json_types import PairedJson
from tl_reward.measures.scores import Scores, right

FLIPS = 9_999  # draws of signs; of up to 13 prompts that changed, all are made


class Paired(NamedTuple):
    """A figure before and after, and after minus before, whose interval is over the same draws of prompts."""

    before: Estimate
    after: Estimate
    difference: Estimate

    def to_json(self) -> PairedJson:
        return {
            "before": self.before.to_json_or_none(),
            "after": self.after.to_json_or_none(),
            "difference": self.difference.to_json_or_none(),
        }


def check_same_pairs(before: Scores, after: Scores) -> None:
    """Raises InputError where two scores are not of the same pairs in the same order."""
    if (before.ids, before.prompts) != (after.ids, after.prompts):
        raise InputError(f"scores to compare must be of the same pairs in the same order, got {len(before)} and {len(after)}")


def accuracy_change(before: Scores, after: Scores) -> Paired:
    """Of the share of pairs with a positive margin; a tie counts half.

    >>> one = Scores(("a", "b"), np.array([2.0, 0.0]), np.array([0.0, 1.0]), ("a", "b"), ("", ""))
    >>> accuracy_change(one, one).difference
    Estimate(value=0.0, low=0.0, high=0.0, n=2)
    """
    check_same_pairs(before, after)
    return mean_change(right(before.margin), right(after.margin), before.prompts)


def mean_change(before: np.ndarray, after: np.ndarray, prompts: tuple[str, ...]) -> Paired:
    """Of the mean of a number a pair."""
    return Paired(bootstrap_mean(before, prompts), bootstrap_mean(after, prompts), bootstrap_mean(after - before, prompts))


def sign_flip_p(before: Scores, after: Scores) -> float:
    """How often changes of accuracy as large would come about if each prompt were as likely to gain as to lose what it did: a two-sided
    test that flips the signs of prompts' changes. Where few prompts change, a bootstrap interval is too narrow: of 4 that gain and none
    that loses it is above 0, and this is 1/8.

    >>> one = Scores(("a", "b"), np.array([2.0, 0.0]), np.array([0.0, 1.0]), ("a", "b"), ("", ""))
    >>> sign_flip_p(one, one)
    1.0
    """
    check_same_pairs(before, after)
    _, prompt = np.unique(before.prompts, return_inverse=True)
    changes = np.bincount(prompt, right(after.margin) - right(before.margin))
    changed = changes[changes != 0]
    if len(changed) < 2:  # of one, either sign is as far from 0
        return 1.0
    at_once = max(1, 4_000_000 // len(changed))  # else all draws are in memory
    found = stats.permutation_test((changed,), np.sum, permutation_type="samples", vectorized=True, n_resamples=FLIPS, batch=at_once, rng=0)
    return float(found.pvalue)


def margin_change(before: Scores, after: Scores) -> Paired:
    """Of the mean margin, over the standard deviation of that model's own rewards of these transcripts.

    A model whose rewards are all multiplied by a positive number, or shifted, has the same: a mere rescaling is no gain.
    """
    check_same_pairs(before, after)
    return change_of([_moments(each) for each in (before, after)], before.prompts, _in_own_units)


def _moments(scores: Scores) -> np.ndarray:
    # Around the mean, so that the variance is no difference of two large numbers; it is the same whatever is subtracted.
    centre = np.mean([scores.chosen, scores.rejected])
    chosen, rejected = scores.chosen - centre, scores.rejected - centre
    return np.stack([scores.margin, chosen + rejected, chosen**2 + rejected**2, np.ones(len(scores))])


def _in_own_units(sums: np.ndarray) -> np.ndarray:
    margin, total, square, pairs = sums
    rewards = 2 * pairs
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.maximum(square / rewards - (total / rewards) ** 2, 0))
        return np.where(spread > 0, margin / pairs / spread, np.nan)


Statistic = Callable[[np.ndarray], np.ndarray]


def change_of(values: list[np.ndarray], prompts: tuple[str, ...], statistic: Statistic, *, size: bool = False) -> Paired:
    """Of whatever is a function of sums.

    Args:
        values: before and after: [quantity, pair].
        statistic: from sums [quantity, draw] to the figure [draw]; nan where there is none.
        size: the difference is of the figures' sizes, whatever their signs.
    """
    sums = [resampled_sums(each, prompts) for each in values]
    n = sums[0].n
    # [when, draw], of which the first is of all pairs as they are.
    found = np.stack([statistic(np.column_stack([each.whole, each.draws])) for each in sums])
    one, other = (Estimate.of(float(figures[0]), figures[1:], n) for figures in found)
    before, after = np.abs(found) if size else found
    difference = after - before
    return Paired(one, other, Estimate.of(float(difference[0]), difference[1:], n))


def spread_of(scores: Scores) -> float:
    """The standard deviation of a model's rewards over these transcripts, both sides of each pair."""
    return float(np.std([scores.chosen, scores.rejected]))
