"""How does RewardBench 2 count what is right? By its publication (Malik et al., arXiv 2506.01937, and its code), from rewards of pairs.

RewardBench's rows are pairs, and RM-Bench counts each of its nine pairs (`benchmarks.by_pairs`): both are as everywhere.
"""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from tl_reward.measures.scores import Scores


def first_shares(scores: Scores) -> dict[str, float]:
    """Of each row with one right answer: 1 where it has the highest reward, a half where another one has the same, a third where two have,
    and 0 where one has more.

    >>> first_shares(Scores(("8/0-0", "8/0-1"), np.array([1.0, 1.0]), np.array([1.0, 0.5]), ("8", "8"), ("", "")))
    {'8': 0.5}
    """
    rows: dict[str, list[float]] = defaultdict(list)
    for group, margin in zip(scores.groups, scores.margin.tolist(), strict=True):
        rows[group].append(margin)
    return {group: 0.0 if min(margins) < 0 else 1 / (1 + margins.count(0)) for group, margins in rows.items()}


class _Row(NamedTuple):
    """Rewards of a row of Ties: `spread` of its right answers, and `gap` from the lowest of them to the highest wrong one."""

    spread: float
    gap: float


def ties_scores(scores: Scores) -> dict[str, float]:
    """The score of Ties, as what each of its prompts adds to the mean, under the name of its "tied" row; -0.01 to 1.01.

    A prompt has two rows: one with a single right answer ("ref:N") and one with many that are equally good ("tied:N"). Of its score, 0.3
    are for each row of which all right answers have more reward than all wrong ones; 0.2 where the gap between them is wider than the
    spread of the right ones, and 0.2 where also the first row's gap is; and 0.01 times tanh of the smaller gap over the spread, less 1.
    Where a prompt lacks one of its rows, it is left out: the publication has both of all.
    """
    rows = _rows(scores)
    found: dict[str, float] = {}
    for name, tied in rows.items():
        kind, _, number = name.rpartition("tied:")
        ref = rows.get(f"{kind}ref:{number}") if name.endswith(f"tied:{number}") else None
        if ref is None:
            continue
        hard = min(ref.gap, tied.gap)
        with np.errstate(divide="ignore", invalid="ignore"):
            beyond = float(np.nan_to_num(np.tanh(np.divide(hard, tied.spread) - 1), nan=0.0))
        found[name] = (
            0.3 * (tied.gap > 0) + 0.3 * (ref.gap > 0) + 0.2 * (tied.gap > tied.spread) + 0.2 * (hard > tied.spread) + 0.01 * beyond
        )
    return found


def _rows(scores: Scores) -> dict[str, _Row]:
    places: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(scores.groups):
        places[group].append(i)
    found = {}
    for group, index in places.items():
        right, wrong = scores.chosen[index], scores.rejected[index]
        found[group] = _Row(float(right.max() - right.min()), float(right.min() - wrong.max()))
    return found
