"""Rewards of pairs, and what follows from them: margins, accuracies, and bootstrap intervals."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tl_reward.data.pairs import PreferencePair, Transcript
from tl_reward.errors import InputError


class Estimate(NamedTuple):
    """A number with its 95 % bootstrap interval over `n` prompts (of which each may have several pairs)."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, eq=False)
class Scores:
    """The rewards of pairs, in raw reward units.

    Attributes:
        ids, chosen, rejected: one a pair.
        groups: the best-of-n row that a pair is part of; a pair that is part of none is its own.
        subsets: the task that a pair is about, or "".
        dropped: pairs left out because they were over-long.
        prompts: what intervals resample, since pairs of one prompt are not independent: a name for each pair's prompt, which is the
            same in whatever data the prompt is. By default its group.
        objectives: what a pair is about, "helpful" or "harmless", or "" where it does not say.
    """

    ids: tuple[str, ...]
    chosen: np.ndarray
    rejected: np.ndarray
    groups: tuple[str, ...]
    subsets: tuple[str, ...]
    dropped: int = 0
    prompts: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.prompts:
            object.__setattr__(self, "prompts", self.groups)
        if not self.objectives:
            object.__setattr__(self, "objectives", ("",) * len(self.ids))

    @classmethod
    def of(cls, pairs: Sequence[PreferencePair], chosen: Sequence[float], rejected: Sequence[float], dropped: int = 0) -> "Scores":
        return cls(
            ids=tuple(pair.id for pair in pairs),
            chosen=np.asarray(chosen, dtype=np.float64),
            rejected=np.asarray(rejected, dtype=np.float64),
            groups=tuple(pair.group or pair.id for pair in pairs),
            subsets=tuple(pair.subset or "" for pair in pairs),
            dropped=dropped,
            prompts=tuple(_prompt_name(pair.chosen[:-1]) for pair in pairs),
            objectives=tuple(pair.objective or "" for pair in pairs),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def margin(self) -> np.ndarray:
        """Reward of chosen minus reward of rejected; positive: the model agrees with the preference."""
        return self.chosen - self.rejected

    def accuracy(self) -> Estimate:
        """Share of pairs with a positive margin; a tie counts half.

        >>> Scores(("a", "b"), np.array([2.0, 0.0]), np.array([0.0, 1.0]), ("a", "b"), ("", "")).accuracy().value
        0.5
        """
        return bootstrap_mean(right(self.margin), self.prompts)

    def mean_margin(self) -> Estimate:
        return bootstrap_mean(self.margin, self.prompts)

    def best_of_n(self) -> Estimate:
        """Share of rows with min(chosen) > max(rejected), which is: with every pair of the row right. A tie at the edge counts half."""
        worst: dict[str, float] = {}
        for group, margin in zip(self.groups, self.margin, strict=True):
            worst[group] = min(margin, worst.get(group, np.inf))
        prompts = dict(zip(self.groups, self.prompts, strict=True))
        return bootstrap_mean(right(np.array(list(worst.values()))), [prompts[group] for group in worst])

    def by_subset(self) -> dict[str, "Scores"]:
        """The scores of each subset, in the order of their names."""
        return {name: self.take(index) for name, index in _places(self.subsets).items()}

    def by_objective(self) -> dict[str, "Scores"]:
        """The scores of each objective that pairs name, in the order of their names."""
        return {name: self.take(index) for name, index in _places(self.objectives).items() if name}

    def relative_drop(self, clean: "Scores") -> Estimate:
        """The accuracy lost, as a share of the clean model's on the same pairs; 0.1 is 10 %. Negative: these scores are more accurate."""
        before = right(clean.margin)
        return bootstrap_ratio(before - right(self.margin), before, self.prompts)

    def take(self, index: Sequence[int]) -> "Scores":
        def pick(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in index)

        rows = np.asarray(index, dtype=int)
        return Scores(
            pick(self.ids),
            self.chosen[rows],
            self.rejected[rows],
            pick(self.groups),
            pick(self.subsets),
            prompts=pick(self.prompts),
            objectives=pick(self.objectives),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but the rewards themselves, which `Results` keeps as tensors."""
        subsets = self.by_subset() if len(set(self.subsets)) > 1 else {}
        objectives = self.by_objective() if len(set(self.objectives)) > 1 else {}
        return self._summary() | {
            "dropped": self.dropped,
            "subsets": {name: part._summary() for name, part in subsets.items()},
            "objectives": {name: part._summary() for name, part in objectives.items()},
        }

    def _summary(self) -> dict[str, Any]:
        best = self.best_of_n() if len(set(self.groups)) < len(self) else None
        return {
            "pairs": len(self),
            "ties": int((self.margin == 0).sum()),
            "accuracy": self.accuracy()._asdict(),
            "mean_margin": self.mean_margin()._asdict(),
            "best_of_n": best._asdict() if best else None,
        }


def _prompt_name(prompt: Transcript) -> str:
    """The first 16 hex digits of a sha256 over the text of a prompt."""
    return hashlib.sha256(json.dumps([list(message) for message in prompt]).encode()).hexdigest()[:16]


def right(margin: np.ndarray) -> np.ndarray:
    """1 where the margin is positive, 0 where it is negative; a tie counts half."""
    return (margin > 0) + 0.5 * (margin == 0)


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
