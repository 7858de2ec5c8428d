"""What a repair did to pairs that nothing was chosen by, beside what else could have done it. It runs no model."""

from dataclasses import dataclass
from typing import Literal

from tl_reward.measures.json_types import ComparedJson
from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.paired import Paired, accuracy_change, margin_change

# "repaired": the claim. "random": the same gates on other neurons of the same layers. "uniform": all neurons scaled alike. "model": another
# model, such as one of a single objective, or one that was trained on the pairs that the repair was made from.
Kind = Literal["repaired", "random", "uniform", "model"]
Verdict = Literal["better", "worse", "no clear change"]


@dataclass(frozen=True)
class Compared:
    """An edit of the model, or another model, beside the model as it is, on one set of test pairs.

    Attributes:
        name: of the edit or the model.
        tested: the objective or the protected set.
        accuracy: shares of pairs.
        margin: means, each in the standard deviation of that model's own rewards, so that a mere rescaling of rewards is no gain.
    """

    kind: Kind
    name: str
    tested: str
    protected: bool
    accuracy: Paired
    margin: Paired

    @property
    def verdict(self) -> Verdict:
        """Of accuracy: whether the interval of the difference is on one side of 0."""
        low, high = self.accuracy.difference.low, self.accuracy.difference.high
        return "better" if low > 0 else "worse" if high < 0 else "no clear change"

    def to_json(self) -> ComparedJson:
        return {
            "kind": self.kind,
            "name": self.name,
            "tested": self.tested,
            "protected": self.protected,
            "verdict": self.verdict,
            "accuracy": self.accuracy.to_json(),
            "margin": self.margin.to_json(),
        }


def compared(kind: Kind, name: str, tested: str, before: Scores, after: Scores, *, protected: bool) -> Compared:
    """Raises InputError for scores of other pairs."""
    return Compared(kind, name, tested, protected, accuracy_change(before, after), margin_change(before, after))
