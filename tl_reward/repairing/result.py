"""What a repair is: the edit, how it was chosen, and the evidence for it."""

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError, summary_of
from tl_reward.interventions.folding import with_gates
from tl_reward.interventions.gates import Gates
from tl_reward.measures.agreement import Precision
from tl_reward.measures.frames.columns import SHARE, DataFrame, estimates, frame
from tl_reward.measures.json_types import RepairJson, SplitSizeJson
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.repairing.evidence.battery import Shift
from tl_reward.repairing.evidence.compared import Compared
from tl_reward.repairing.tuning import RULE, Tried


@dataclass(frozen=True, eq=False)
class Repair:
    """An edit of few neurons, and what it did to pairs by which nothing was chosen.

    Attributes:
        gates: what each neuron is multiplied by; 1 for all where no candidate was an improvement on the tune pairs.
        chosen: the candidate that the gates are of; None where there is none.
        tried: every candidate on the tune pairs. The rule of `tuning.best_of` chose among them before the test pairs were read.
        tolerance: how much accuracy an objective could lose on the tune pairs.
        objectives: their names.
        splits: how many pairs and prompts of each are in which split.
        evidence: the repair and its controls on each objective's test pairs and on each protected set.
        shifts: by what was tested, what else moved.
        precision: of the passes over test pairs.
        output: as in `Scores`.
        weights: of the model that was repaired, as in `Origin`; "" where that is not known.
        interventions: how many of the options the model was run with. What is said here is true of it with these alone.
    """

    gates: Float[Tensor, "layer neuron"]
    chosen: str | None
    tried: tuple[Tried, ...]
    tolerance: float
    objectives: tuple[str, ...]
    splits: tuple[SplitSizeJson, ...]
    evidence: tuple[Compared, ...]
    shifts: Mapping[str, tuple[Shift, ...]]
    precision: Precision
    output: str = ""
    weights: str = ""
    interventions: int = 0

    __repr__ = summary_of

    @property
    def neurons(self) -> NeuronSet:
        """Those that are edited."""
        return NeuronSet.from_mask(self.gates != 1)

    @property
    def intervention(self) -> Gates:
        """The edit as one, for `score`, `discover` and whatever else takes interventions."""
        return Gates(self.gates)

    def applied(self, model: HookedRewardModel) -> HookedRewardModel:
        """A copy of the model with the edit in its weights: `save_pretrained` then writes an ordinary checkpoint.

        Raises:
            InputError: as `folding.with_gates`; a model of other weights than the one that was repaired, for which nothing here is true; a
                repair of a model that was run with interventions, which weights cannot hold.
        """
        if self.interventions:
            raise InputError(
                f"the model was repaired under {self.interventions} interventions, which a copy of it has not, so that what was tested is "
                "not true of that copy: run the model with both instead, interventions=[*those, repaired.intervention]"
            )
        if self.weights and self.weights != model.origin.weights:
            raise InputError(f"{model.cfg.model_name} is not the model that was repaired: its weights are others, and so its neurons")
        return with_gates(model, self.gates)

    def to_frame(self) -> DataFrame:
        """A row for the repair and each of its controls, on each objective's test pairs and each protected set: accuracy before, after and
        their paired difference, and margins, in standard deviations of that model's own rewards."""
        unit = "standard deviations of the rewards"
        columns: dict[str, object] = {
            "kind": [each.kind for each in self.evidence],
            "name": [each.name for each in self.evidence],
            "tested on": [each.tested for each in self.evidence],
            "protected": [each.protected for each in self.evidence],
            "verdict": [each.verdict for each in self.evidence],
            "p_value": [each.p_value for each in self.evidence],
        }
        for what, of in (("accuracy", SHARE), ("margin", unit)):
            for part in ("before", "after", "difference"):
                columns |= estimates(f"{what} {part}", of, [getattr(getattr(each, what), part) for each in self.evidence])
        return frame(columns)

    def to_json(self) -> RepairJson:
        edited = self.gates != 1
        return {
            "objectives": list(self.objectives),
            "shape": list(self.gates.shape),
            "chosen": self.chosen,
            "neurons": self.neurons.to_json(),
            "gates": self.gates[edited].tolist(),
            "splits": list(self.splits),
            "tried": [each.to_json(chosen=each.candidate.name == self.chosen) for each in self.tried],
            "rule": RULE,
            "tolerance": self.tolerance,
            "precision": self.precision.to_json(),
            "evidence": [each.to_json() for each in self.evidence],
            "shifts": {name: [each.to_json() for each in found] for name, found in self.shifts.items()},
        }
