"""What a repair did to pairs that nothing was chosen by, beside what else could have done it. It runs no model."""

from dataclasses import dataclass

from tl_reward.measures.json_types import ComparedJson, CompareKind, CompareVerdict
from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.paired import Paired, accuracy_change, margin_change, sign_flip_p

LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """An edit of the model, or another model, beside the model as it is, on one set of test pairs.

    Attributes:
        kind: "repaired", the claim; "random", the same gates on other neurons of the same layers; "uniform", all neurons scaled alike;
            "model", another one, such as of a single objective, or trained on the pairs that the repair was made from.
        name: of the edit or the model.
        tested: the objective or the protected set.
        accuracy: shares of pairs.
        margin: means, each in the standard deviation of that model's own rewards, so that a mere rescaling of rewards is no gain.
        p_value: of the change of accuracy (`paired.sign_flip_p`).
    """

    kind: CompareKind
    name: str
    tested: str
    protected: bool
    accuracy: Paired
    margin: Paired
    p_value: float

    @property
    def verdict(self) -> CompareVerdict:
        """Of accuracy: whether the interval of the difference is on one side of 0, and the test that flips signs says so too."""
        low, high = self.accuracy.difference.low, self.accuracy.difference.high
        if self.p_value > LEVEL:
            return "no clear change"
        return "better" if low > 0 else "worse" if high < 0 else "no clear change"

    def to_json(self) -> ComparedJson:
        return {
            "kind": self.kind,
            "name": self.name,
            "tested": self.tested,
            "protected": self.protected,
            "verdict": self.verdict,
            "p_value": self.p_value,
            "accuracy": self.accuracy.to_json(),
            "margin": self.margin.to_json(),
        }


def compared(kind: CompareKind, name: str, tested: str, before: Scores, after: Scores, *, protected: bool) -> Compared:
    """Raises InputError for scores of other pairs."""
    return Compared(kind, name, tested, protected, accuracy_change(before, after), margin_change(before, after), sign_flip_p(before, after))
