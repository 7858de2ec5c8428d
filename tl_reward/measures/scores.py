"""Rewards of pairs, and what follows from them: margins, accuracies, and bootstrap intervals."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tl_reward.data.pairs import PreferencePair, Transcript
from tl_reward.data.reading import Reading
from tl_reward.errors import summary_of
from tl_reward.measures.frames.columns import REWARD, DataFrame, frame
from tl_reward.measures.intervals import Estimate, _places, bootstrap_mean, bootstrap_ratio
from tl_reward.measures.json_types import ScoresJson, ScoreSummaryJson


@dataclass(frozen=True, eq=False)
class Scores:
    """The rewards of pairs, in raw reward units.

    Attributes:
        ids, chosen, rejected: one a pair.
        groups: the best-of-n row that a pair is part of; a pair that is part of none is its own.
        subsets: the task that a pair is about, or "".
        dropped: pairs left out, of which `reading` says why.
        prompts: what intervals resample, since pairs of one prompt are not independent: a name for each pair's prompt, which is the
            same in whatever data the prompt is. By default its group.
        objectives: what a pair is about, "helpful" or "harmless", or "" where it does not say.
        reading: how many pairs were given, and how many left out, by reason; None where that is not known, as for a part.
        output: of a head of several outputs, the one that the rewards are of (`helpfulness`), or weights over them; "" for any other.
    """

    ids: tuple[str, ...]
    chosen: np.ndarray
    rejected: np.ndarray
    groups: tuple[str, ...]
    subsets: tuple[str, ...]
    dropped: int = 0
    prompts: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    reading: Reading | None = None
    output: str = ""

    def __post_init__(self) -> None:
        if not self.prompts:
            object.__setattr__(self, "prompts", self.groups)
        if not self.objectives:
            object.__setattr__(self, "objectives", ("",) * len(self.ids))

    @classmethod
    def of(
        cls,
        pairs: Sequence[PreferencePair],
        chosen: Sequence[float],
        rejected: Sequence[float],
        reading: Reading | None = None,
        output: str = "",
    ) -> "Scores":
        return cls(
            ids=tuple(pair.id for pair in pairs),
            chosen=np.asarray(chosen, dtype=np.float64),
            rejected=np.asarray(rejected, dtype=np.float64),
            groups=tuple(pair.group or pair.id for pair in pairs),
            subsets=tuple(pair.subset or "" for pair in pairs),
            dropped=reading.dropped if reading else 0,
            prompts=tuple(prompt_name(pair.chosen[:-1]) for pair in pairs),
            objectives=tuple(pair.objective or "" for pair in pairs),
            reading=reading,
            output=output,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def margin(self) -> np.ndarray:
        """Reward of chosen minus reward of rejected; positive: the model agrees with the preference."""
        return self.chosen - self.rejected

    def accuracy(self) -> Estimate:
        """Share of pairs with a positive margin; a tie, a margin of exactly 0, counts half. Sides that the model reads as the same tokens
        always tie.

        >>> Scores(("a", "b"), np.array([2.0, 0.0]), np.array([0.0, 1.0]), ("a", "b"), ("", "")).accuracy().value
        0.5
        """
        return bootstrap_mean(right(self.margin), self.prompts)

    def mean_margin(self) -> Estimate:
        """In raw reward units, with its bootstrap interval over prompts."""
        return bootstrap_mean(self.margin, self.prompts)

    def row_margins(self) -> dict[str, float]:
        """By best-of-n row, min(chosen) - max(rejected): the smallest margin of its pairs. Positive: the row is right."""
        worst: dict[str, float] = {}
        for group, margin in zip(self.groups, self.margin.tolist(), strict=True):
            worst[group] = min(margin, worst.get(group, np.inf))
        return worst

    def best_of_n(self) -> Estimate:
        """Share of rows with min(chosen) > max(rejected), which is: with every pair of the row right. A tie at the edge counts half."""
        worst = self.row_margins()
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
        """Those of the pairs at these places alone."""

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
            output=self.output,
        )

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a pair: its rewards and its margin in reward units, and what it is part of; empty text where it does not say."""
        named = {"id": self.ids, "objective": self.objectives, "subset": self.subsets, "group": self.groups, "prompt": self.prompts}
        rewards = {"chosen": self.chosen, "rejected": self.rejected, "margin": self.margin}
        return frame(named | {f"{name} ({REWARD})": values for name, values in rewards.items()})

    def to_json(self) -> ScoresJson:
        """Everything but the rewards themselves, which `Results` keeps as tensors."""
        subsets = self.by_subset() if len(set(self.subsets)) > 1 else {}
        objectives = self.by_objective() if len(set(self.objectives)) > 1 else {}
        return {
            **self._summary(),
            "dropped": self.dropped,
            "subsets": {name: part._summary() for name, part in subsets.items()},
            "objectives": {name: part._summary() for name, part in objectives.items()},
        }

    def _summary(self) -> ScoreSummaryJson:
        best = self.best_of_n() if len(set(self.groups)) < len(self) else None
        return {
            "pairs": len(self),
            "ties": int((self.margin == 0).sum()),
            "accuracy": self.accuracy().to_json(),
            "mean_margin": self.mean_margin().to_json(),
            "best_of_n": best.to_json() if best else None,
        }


def prompt_name(prompt: Transcript) -> str:
    """The first 16 hex digits of a sha256 over the text of a prompt."""
    return hashlib.sha256(json.dumps([list(message) for message in prompt]).encode()).hexdigest()[:16]


def loss_weights(margin: np.ndarray, unit: float) -> np.ndarray:
    """How much the Bradley-Terry loss of each pair falls as its margin rises, `sigmoid(-margin / unit)`: near 1 where it is ranked wrong,
    near 0 where it is ranked right by far.

    Args:
        unit: reward units that count as 1 in the loss, such as the standard deviation of the model's rewards.

    >>> loss_weights(np.array([0.0, 100.0]), 1.0).round(2).tolist()
    [0.5, 0.0]
    """
    return (1 - np.tanh(margin / (2 * unit))) / 2  # the same, and nothing overflows


def right(margin: np.ndarray) -> np.ndarray:
    """1 where the margin is positive, 0 where it is negative; a tie counts half."""
    return (margin > 0) + 0.5 * (margin == 0)
