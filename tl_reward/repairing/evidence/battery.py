"""What else did an edit move? A repair often only swaps one bias for another (arXiv 2605.27996), so the same questions are asked before and
after it. It runs no model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata

from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.styles import style_of
from tl_reward.measures.intervals import FEW
from tl_reward.measures.json_types import Good, ShiftJson, ShiftVerdict
from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.paired import Paired, Statistic, accuracy_change, change_of, check_same_pairs, mean_change, spread_of

DRAWN = (4, 16)  # candidates of a best-of-n


class Answers(NamedTuple):
    """Which answers pairs are of: an answer that is in several pairs is one.

    Attributes:
        chosen, rejected: the number of each pair's answer.
        length: of each answer, in tokens of the model, from where it begins to the read-out.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    length: np.ndarray

    @property
    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        """Of both answers of each pair."""
        return self.length[self.chosen], self.length[self.rejected]


def answers_of(encoded: EncodedPairs) -> Answers:
    """Answers as the model reads them: two that are the same tokens after the same prompt are one."""
    long = np.array([len(row.ids) - row.response_start for row in encoded.rows], dtype=float)
    return Answers(np.array(encoded.chosen), np.array(encoded.rejected), long)


@dataclass(frozen=True)
class Shift:
    """One figure before and after an edit.

    Attributes:
        question: in words.
        good: which way is better; "near 0" for a bias, whose `change.difference` is then of its size; "high", as for an accuracy;
            "neither", as for a drift.
    """

    name: str
    question: str
    good: Good
    change: Paired

    @property
    def verdict(self) -> ShiftVerdict:
        """Of the interval of the difference: a drift can only be said to have moved. A bias whose interval is on the one side of 0 before,
        and on the other after, is reversed, whatever its size: that is one bias in the place of another."""
        before, after, difference = self.change
        if self.good == "near 0" and ((before.low > 0 and after.high < 0) or (before.high < 0 and after.low > 0)):
            return "reversed"
        if not (difference.low > 0 or difference.high < 0):
            return "no clear change"
        if self.good == "neither":
            return "moved"
        return "better" if (difference.low > 0) == (self.good == "high") else "worse"

    def to_json(self) -> ShiftJson:
        return {"name": self.name, "question": self.question, "good": self.good, "verdict": self.verdict, **self.change.to_json()}


def battery(before: Scores, after: Scores, answers: Answers) -> tuple[Shift, ...]:
    """Every figure that these pairs have: of length, of style where they are rows of RM-Bench, of each subset of at least `FEW` prompts, of
    the rewards' mean, spread and order, and of what is selected from the answers to a prompt.

    Raises:
        InputError: scores of other pairs.
    """
    check_same_pairs(before, after)
    return (
        *_of_length(before, after, answers.lengths),
        *_of_parts(before, after, answers),
        *_of_drift(before, after),
        *_of_selection(before, after, answers),
    )


def _of_length(before: Scores, after: Scores, lengths: tuple[np.ndarray, np.ndarray]) -> list[Shift]:
    long = rankdata(np.concatenate(lengths))
    if long.min() == long.max():
        return []
    sides = [np.split(rankdata(np.concatenate([each.chosen, each.rejected])), 2) for each in (before, after)]
    on_each_side = [[rankdata(each.chosen), rankdata(each.rejected)] for each in (before, after)]
    both = [
        np.concatenate([_products(rewards, long_here) for rewards, long_here in zip(own, np.split(long, 2), strict=True)]) for own in sides
    ]
    within = [
        np.concatenate([_products(rewards, rankdata(each)) for rewards, each in zip(own, lengths, strict=True)]) for own in on_each_side
    ]
    found = [
        Shift(
            "reward and length",
            "Does a longer answer get more reward? Spearman's correlation over all answers.",
            "near 0",
            change_of(both, before.prompts, _correlation_of_all, size=True),
        ),
        Shift(
            "reward and length, given correctness",
            "The same among chosen answers and among rejected ones, on average.",
            "near 0",
            change_of(within, before.prompts, _mean_correlation, size=True),
        ),
    ]
    chosen, rejected = lengths
    for name, here in (("shorter", chosen < rejected), ("longer", chosen > rejected)):
        if part := _part(before, after, here):
            question = f"Accuracy where the chosen answer is the {name} one."
            found.append(Shift(f"chosen is {name}", question, "high", accuracy_change(*part)))
    return found


def _products(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What a correlation is a function of, value by value."""
    return np.stack([one, other, one * one, other * other, one * other, np.ones(len(one))])


def _correlation(sums: np.ndarray) -> np.ndarray:
    one, other, square, other_square, product, count = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(np.maximum(square / count - (one / count) ** 2, 0) * np.maximum(other_square / count - (other / count) ** 2, 0))
        return np.where(spread > 0, (product / count - one * other / count**2) / spread, np.nan)


def _correlation_of_all(sums: np.ndarray) -> np.ndarray:
    """Of both sides together, whose sums come one after the other."""
    return _correlation(sums[:6] + sums[6:])


def _mean_correlation(sums: np.ndarray) -> np.ndarray:
    return np.asarray((_correlation(sums[:6]) + _correlation(sums[6:])) / 2)


def _of_parts(before: Scores, after: Scores, answers: Answers) -> list[Shift]:
    styles = _styles(before, answers)
    parts = [(f"style: {name}", f"Accuracy where the chosen answer {says}.", styles == name) for name, says in _STYLES.items()]
    subsets = np.array(before.subsets)
    named = sorted(set(before.subsets) - {""})
    if len(named) > 1:
        parts += [(f"subset: {name}", f"Accuracy on {name}.", subsets == name) for name in named]
    return [Shift(name, question, "high", accuracy_change(*part)) for name, question, here in parts if (part := _part(before, after, here))]


_STYLES = {
    "easy": "is styled more than the rejected one",
    "normal": "is styled as the rejected one",
    "hard": "is styled less than the rejected one",
}


def _styles(scores: Scores, answers: Answers) -> np.ndarray:
    """`style_of` each pair; "" where pairs are not rows of RM-Bench: nine pairs each, of three answers on either side, of which the first
    style is the shortest on average."""
    none = np.full(len(scores), "")
    ends = [name.removeprefix(f"{group}/") for name, group in zip(scores.ids, scores.groups, strict=True)]
    rows: dict[str, set[str]] = {}
    for group, end in zip(scores.groups, ends, strict=True):
        rows.setdefault(group, set()).add(end)
    nine = {f"{i}-{j}" for i in range(3) for j in range(3)}
    if any(found != nine for found in rows.values()):
        return none
    concise, other = (answers.lengths[0][[end.startswith(style) for end in ends]].mean() for style in ("0", ("1", "2")))
    return np.array([style_of(name) for name in scores.ids]) if concise < other else none


def _part(before: Scores, after: Scores, here: np.ndarray) -> tuple[Scores, Scores] | None:
    """Both scores of some pairs; None where these are of too few prompts."""
    index = np.flatnonzero(here).tolist()
    if len({before.prompts[i] for i in index}) < FEW:
        return None
    return before.take(index), after.take(index)


def _of_drift(before: Scores, after: Scores) -> list[Shift]:
    unit = spread_of(before) or 1.0
    means = [(each.chosen + each.rejected) / 2 / unit for each in (before, after)]
    centred = [(each.chosen - each.chosen.mean()) ** 2 + (each.rejected - each.rejected.mean()) ** 2 for each in (before, after)]
    spread = change_of([np.stack([each, np.ones(len(before))]) for each in centred], before.prompts, _spread_in(unit))
    ranks = [np.split(rankdata(np.concatenate([each.chosen, each.rejected])), 2) for each in (before, after)]
    order = np.concatenate([_products(one, other) for one, other in zip(*ranks, strict=True)])
    same = np.concatenate([_products(one, one) for one in ranks[0]])
    return [
        Shift("mean reward", "In standard deviations of the rewards before.", "neither", mean_change(means[0], means[1], before.prompts)),
        Shift("spread of rewards", "Of the rewards on each side, in standard deviations of the rewards before.", "neither", spread),
        Shift(
            "order of rewards",
            "Spearman's correlation of the rewards with those before.",
            "neither",
            change_of([same, order], before.prompts, _correlation_of_all),
        ),
    ]


def _spread_in(unit: float) -> Statistic:
    def spread(sums: np.ndarray) -> np.ndarray:
        return np.asarray(np.sqrt(sums[0] / (2 * sums[1])) / unit)

    return spread


def _of_selection(before: Scores, after: Scores, answers: Answers) -> list[Shift]:
    found = []
    for count in DRAWN:
        one, other = (_picked(each, answers, count) for each in (before, after))
        prompts = tuple(one)
        if len(prompts) < FEW:
            continue
        of = f"best of {count}"
        asked = f"Of the answer with the most reward among {count} drawn from those to a prompt"
        wins, long = (mean_change(_each(one, name), _each(other, name), prompts) for name in ("wins", "length"))
        found += [
            Shift(f"{of}: wins", f"{asked}: its share of pairs in which it is the chosen one.", "high", wins),
            Shift(f"{of}: length", f"{asked}: its length in tokens.", "neither", long),
        ]
    return found


def _each(picked: Mapping[str, "Picked"], name: str) -> np.ndarray:
    return np.array([getattr(found, name) for found in picked.values()])


class Picked(NamedTuple):
    """What a best-of-n selects, on average over all ways to draw n of a prompt's answers."""

    wins: float
    length: float


class _Candidates(NamedTuple):
    reward: list[float]
    wins: list[float]
    length: list[float]


def _picked(scores: Scores, answers: Answers, count: int) -> dict[str, Picked]:
    """By prompt, of those with at least `count` different answers."""
    return {
        prompt: Picked(_expected(found.reward, found.wins, count), _expected(found.reward, found.length, count))
        for prompt, found in _candidates(scores, answers).items()
        if len(found.reward) >= count
    }


def _candidates(scores: Scores, answers: Answers) -> dict[str, _Candidates]:
    """The answers to each prompt, the share of pairs that each wins among those it is in, and its length."""
    reward: dict[str, dict[int, float]] = {}
    won: dict[int, list[bool]] = {}
    sides = ((answers.chosen, scores.chosen, True), (answers.rejected, scores.rejected, False))
    for which, rewards, wins in sides:
        for prompt, answer, own in zip(scores.prompts, which.tolist(), rewards.tolist(), strict=True):
            reward.setdefault(prompt, {})[answer] = own
            won.setdefault(answer, []).append(wins)
    return {
        prompt: _Candidates(
            [*own.values()], [float(np.mean(won[answer])) for answer in own], [float(answers.length[answer]) for answer in own]
        )
        for prompt, own in reward.items()
    }


def _expected(reward: Sequence[float], value: Sequence[float], count: int) -> float:
    """The mean value of the answer with the most reward, over all draws of `count` without replacement. Answers that tie are as likely.

    >>> _expected([3.0, 1.0, 2.0], [1.0, 0.0, 0.5], 2), _expected([1.0, 1.0], [1.0, 0.0], 2)
    (0.8333333333333333, 0.5)
    """
    order = np.argsort(-np.asarray(reward), kind="stable")
    ties: dict[float, list[float]] = {}
    for of, own in zip(reward, value, strict=True):
        ties.setdefault(of, []).append(own)
    n = len(order)
    draws = comb(n, count)
    return float(sum(np.mean(ties[reward[i]]) * comb(n - 1 - place, count - 1) / draws for place, i in enumerate(order)))
