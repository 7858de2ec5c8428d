"""What did a reproduction compute? Rewards of every model under every edit, on every sub-task, and the neurons that were found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from tl_reward.measures.scores import Scores

FRACTION = 0.1  # of all neurons: the top sets that are compared, as the study's
BF16 = ", bfloat16 sums"
Conventions = Literal["ours", "study"]


class Model(NamedTuple):
    """A reward model of the matrix.

    Attributes:
        base: the language model that it was trained from, such as "smollm2-135m-instruct".
        objective: "helpful", "harmless" or "mixed": the pairs that it was trained on.
        seed: of its training.
    """

    base: str
    objective: str
    seed: int


class ModelEdit(NamedTuple):
    """What was done to a model.

    Attributes:
        kind: "none"; "top" zeroes the first neurons of a ranking; "random" layer-matched random ones; "set" zeroes a set of the helpful
            and the harmless model's top neurons; "patched" takes the top neurons' activations from the helpful model; "masked" and
            "pruned" models were trained again without the top neurons ("masked": zeroed in every forward pass, their weights train on
            unseen; "pruned": their weights are zero and get no gradient).
        name: the ranking ("mean", "change", "random") of "top", "masked", "pruned" and "patched"; the ranking and the draw, such as
            "mean 0", of "random"; "helpful-only", "harmless-only" or "shared" of "set"; "" of "none".
        fraction: the share of all neurons, in (0, 1]; of "set", that of the top sets it was made from.
    """

    kind: str = "none"
    name: str = ""
    fraction: float = 0.0


class Found(NamedTuple):
    """The neurons of a model, found on pairs of its own objective.

    Attributes:
        rankings: by name, [layer, neuron], higher first.
        beside: what the study's conventions are shown by: "abs_mean" and "change_ms"; and, where it is they that are followed, each
            statistic from sums in bfloat16, under the name of its ranking and `BF16`.
    """

    rankings: Mapping[str, Float[Tensor, "layer neuron"]]
    beside: Mapping[str, Float[Tensor, "layer neuron"]] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Matrix:
    """What the cells that are done hold.

    Attributes:
        scores: by model and edit, then by sub-task (`benchmarks.SubTask.name`, or "objective test" for the test pairs of the model's own
            objective), the rewards of its pairs.
        found: by model.
        conventions: how top sets are cut (`top_sets.cut`).
    """

    scores: Mapping[tuple[Model, ModelEdit], Mapping[str, Scores]] = field(default_factory=dict)
    found: Mapping[Model, Found] = field(default_factory=dict)
    conventions: Conventions = "ours"
