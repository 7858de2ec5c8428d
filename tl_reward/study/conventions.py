"""The study's own conventions, behind `conventions = "study"`, each beside what we do, with the neurons that it changes counted.

Where its published code does something else than its text says, or than it should, a reproduction can do as the code does. Our own
definitions are `NeuronSet.top`, `overlap.regions` and `statistics.NeuronStatistics`.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.sites import NeuronSet, check_fraction
from tl_reward.study.matrix import Matrix, Model
from tl_reward.study.overlaps import FOUND, FRACTION
from tl_reward.study.rows import OBJECTIVES, percent, place
from tl_reward.study.table import Table, Value, table


def percentile_set(score: Float[Tensor, "layer neuron"], fraction: float) -> NeuronSet:
    """Every neuron whose score is at least the percentile: more than the fraction where scores tie there, all where all are equal.

    >>> score = torch.tensor([[0.0, 0.0, 0.0, 1.0]])
    >>> len(percentile_set(score, 0.5)), len(NeuronSet.top(score, fraction=0.5))
    (4, 2)
    """
    check_fraction(fraction)
    bar = np.percentile(score.float().numpy(), 100 * (1 - fraction))
    return NeuronSet.from_mask(score.float() >= float(bar))


def study_regions(one: NeuronSet, other: NeuronSet, names: tuple[str, str] = ("helpful", "harmless")) -> dict[str, NeuronSet]:
    """As `overlap.regions`, but that the shared set keeps whole layers that are found in only one of the sets.

    >>> {name: len(part) for name, part in study_regions(NeuronSet([(0, 1), (1, 4)]), NeuronSet([(1, 4), (2, 0)])).items()}
    {'helpful-only': 1, 'harmless-only': 1, 'shared': 3}
    """
    layers = ({layer for layer, _ in one}, {layer for layer, _ in other})
    alone = NeuronSet((layer, neuron) for layer, neuron in one | other if (layer in layers[0]) != (layer in layers[1]))
    return {f"{names[0]}-only": one - other, f"{names[1]}-only": other - one, "shared": (one & other) | alone}


def bf16_mean(activation: Float[Tensor, "token neuron"], *, at_once: int) -> Float[Tensor, " neuron"]:
    """The mean over tokens with its sum kept in bfloat16, which has 8 bits: once the sum is 256 times what is added, it stands still.

    Args:
        at_once: tokens that are added up before they join the sum, as a batch is.

    >>> bf16_mean(torch.ones(1000, 1), at_once=1).item()  # the mean is 1
    0.255859375
    """
    total = torch.zeros(activation.shape[1], dtype=torch.bfloat16)
    for start in range(0, len(activation), at_once):
        total += activation[start : start + at_once].to(torch.bfloat16).sum(0)
    return (total / len(activation)).float()


def mean_square_change(activation: Float[Tensor, "token neuron"], base: Float[Tensor, "token neuron"]) -> Float[Tensor, " neuron"]:
    """The change score as one of the study's paths has it, without the root. Over one set of tokens the order of neurons is the same;
    averaged over the chosen and the rejected transcripts it need not be (`change_ms` beside `change` in `statistics`).

    >>> mean_square_change(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [0.0]])).item()
    5.0
    """
    return (activation - base).double().square().mean(0).float()


def _counts(rankings: Mapping[str, Float[Tensor, "layer neuron"]]) -> list[tuple[str, str, int, int, int]]:
    """Of one model: the convention, the ranking, neurons by ours and by the study's, and neurons that are in only one of the two."""
    found = []

    def add(convention: str, ranking: str, ours: NeuronSet, theirs: NeuronSet) -> None:
        found.append((convention, ranking, len(ours), len(theirs), len((ours | theirs) - (ours & theirs))))

    for name, score in rankings.items():
        top = NeuronSet.top(score, fraction=FRACTION)
        add("score >= percentile, for the exact count", name, top, percentile_set(score, FRACTION))
        # Rounding the final score is the least that bf16 sums do.
        add("scores in bfloat16, for float32", name, top, percentile_set(score.bfloat16().float(), FRACTION))
    if "mean" in rankings:
        size = rankings["abs_mean"] if "abs_mean" in rankings else rankings["mean"].abs()
        ours, theirs = (NeuronSet.top(score, fraction=FRACTION) for score in (size, rankings["mean"]))
        add("signed mean, for " + ("the mean size" if "abs_mean" in rankings else "the size of the mean"), "mean", ours, theirs)
    if {"change", "change_ms"} <= set(rankings):
        ours, theirs = (NeuronSet.top(rankings[name], fraction=FRACTION) for name in ("change", "change_ms"))
        add("mean square, for its root", "change", ours, theirs)
    return found


def conventions(matrix: Matrix) -> Table:
    """What the study's conventions change in the top 10 % of each model."""
    rows: list[tuple[Value, ...]] = []
    order = sorted(matrix.found, key=lambda model: (model.base, place(OBJECTIVES, model.objective), model.seed))
    for model in order:
        rows += [(*model, *counts) for counts in _counts(matrix.found[model].rankings)]
    for model in order:
        other = matrix.found.get(Model(model.base, "harmless", model.seed))
        if model.objective == "helpful" and other is not None:
            for name in [name for name in matrix.found[model].rankings if name in other.rankings]:
                one, two = (NeuronSet.top(found.rankings[name], fraction=FRACTION) for found in (matrix.found[model], other))
                ours, theirs = one & two, study_regions(one, two)["shared"]
                row = (model.base, "helpful and harmless", model.seed, "shared set keeps layers of one set only", name)
                rows.append((*row, len(ours), len(theirs), len((ours | theirs) - (ours & theirs))))
    return table(
        "conventions",
        f"What the conventions of the study's code change in the top {percent(FRACTION)} of neurons: how many neurons a set has by our "
        "definition and by the study's, and how many are in only one of the two. The bfloat16 line rounds the final scores, which is less "
        "than sums in bfloat16 do.",
        ("base", "objective", "seed", "convention of the study", "ranking", "ours", "study", "in one only"),
        rows,
        FOUND,
    )
