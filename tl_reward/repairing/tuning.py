"""Which of the candidates is the repair? Decided on the tune pairs alone, by a rule that is fixed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tl_reward.measures.json_types import TriedJson
from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.paired import Paired, accuracy_change, margin_change
from tl_reward.repairing.ways.candidates import Candidate


@dataclass(frozen=True)
class Tried:
    """What a candidate did to each objective's tune pairs: its accuracy, and its margin in the rewards' own standard deviations.

    Attributes:
        finalist: all tune pairs were read, not some of them.
    """

    candidate: Candidate
    accuracy: Mapping[str, Paired]
    margin: Mapping[str, Paired]
    finalist: bool = True

    @property
    def gain(self) -> float:
        """The mean over objectives of the accuracy gained, without what rounding leaves of gains and losses that add up to nothing."""
        return round(sum(each.difference.value for each in self.accuracy.values()) / len(self.accuracy), 12)

    @property
    def error(self) -> float:
        """The standard error of `gain`, from the widths of its objectives' intervals, whose prompts are different ones."""
        widths = [(each.difference.high - each.difference.low) / 3.92 for each in self.accuracy.values()]
        return math.hypot(*widths) / len(widths)

    @property
    def worst(self) -> float:
        """The smallest gain of accuracy; negative where an objective loses."""
        return min(each.difference.value for each in self.accuracy.values())

    def to_json(self, *, chosen: bool) -> TriedJson:
        return {
            "name": self.candidate.name,
            "way": self.candidate.way,
            "about": self.candidate.about,
            "neurons": self.candidate.neurons,
            "finalist": self.finalist,
            "chosen": chosen,
            "accuracy": {name: each.to_json() for name, each in self.accuracy.items()},
            "margin": {name: each.to_json() for name, each in self.margin.items()},
        }


def tried(candidate: Candidate, before: Mapping[str, Scores], after: Mapping[str, Scores]) -> Tried:
    """Scores of the tune pairs by objective, of the model as it is and with the candidate's edit."""
    return Tried(
        candidate,
        {name: accuracy_change(before[name], after[name]) for name in before},
        {name: margin_change(before[name], after[name]) for name in before},
    )


# What is done, for whoever reads a run.
RULE = (
    "all candidates are tried on some of the tune pairs, and those that gain most accuracy, on average over objectives, on all of them. Of "
    "these, leaving out any by which an objective loses more than is tolerated, the one that edits fewest neurons while its gain is within "
    "one standard error of the best."
)


def best_of(every: Sequence[Tried], tolerance: float) -> Tried | None:
    """The candidate that edits fewest neurons, among those that gain nearly as much accuracy over all objectives as the best does: within
    one standard error of the best's gain (Breiman et al. 1984). Only candidates count by which no objective loses more than `tolerance`,
    and which gain. None where there is none."""
    allowed = [each for each in every if each.worst >= -tolerance and each.gain > 0]
    if not allowed:
        return None
    best = max(allowed, key=lambda each: each.gain)
    near = [each for each in allowed if each.gain >= best.gain - best.error]
    return min(near, key=lambda each: (each.candidate.neurons, -each.gain))
