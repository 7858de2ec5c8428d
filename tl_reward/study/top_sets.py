"""Which neurons count as the top of a ranking, and which as shared? By our definition, or as the code of the study has it.

Our own definitions are `NeuronSet.top` and `overlap.regions`. Where the published code does something else than its text says, or than it
should, a reproduction with `conventions = "study"` does as the code does.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_reward.neurons import NeuronSet, check_fraction
from tl_reward.study.matrix import BF16, Conventions, Found


def percentile_set(score: Float[Tensor, "layer neuron"], fraction: float) -> NeuronSet:
    """Every neuron whose score is at least the percentile: more than the fraction where scores tie there, all where all are equal.

    >>> import torch
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


def cut(found: Found, ranking: str, fraction: float, conventions: Conventions) -> NeuronSet | None:
    """The top share of a model's neurons: exactly so many; or, by the study, all that reach the percentile of a score that was summed in
    bfloat16 (where it is a sum over tokens). None where entropy, which ranks only the neurons that fire often, ranks fewer."""
    score = found.rankings[ranking]
    if ranking == "entropy" and int((score > 0).sum()) < round(fraction * score.numel()):
        return None
    if conventions == "ours":
        return NeuronSet.top(score, fraction=fraction)
    return percentile_set(found.beside.get(ranking + BF16, score), fraction)
