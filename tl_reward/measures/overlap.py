"""How much two reward models rely on the same neurons, beside what chance alone would give."""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import hypergeom
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.measures.json_types import OverlapsJson, PairOverlapJson
from tl_reward.neurons import NeuronSet

# What the models are called that most comparisons are of: those of arXiv 2606.13209, which are the embedded ones.
OBJECTIVES = ("helpful", "harmless")
MIXED = "mixed"


class Overlap(NamedTuple):
    """Two sets of neurons, out of `n_layers * d_mlp`.

    Attributes:
        shared: neurons in both.
        jaccard: shared over the neurons in either.
        chance: the Jaccard index at the expected overlap of two independent sets of these sizes (hypergeometric mean).
        chance_by_layer: the same for sets that are independent within each layer, with these sets' own sizes there: what agreement
            on the layers alone would give.
        p_value: probability that independent sets of these sizes share as many neurons or more (hypergeometric).
    """

    shared: int
    jaccard: float
    chance: float
    chance_by_layer: float
    p_value: float


def overlap(a: NeuronSet, b: NeuronSet, *, n_layers: int, d_mlp: int) -> Overlap:
    """Compares two sets.

    >>> both = overlap(NeuronSet([(0, 0), (0, 1)]), NeuronSet([(0, 1), (1, 0)]), n_layers=2, d_mlp=2)
    >>> both.shared, round(both.jaccard, 3), round(both.chance, 3), round(both.p_value, 3)
    (1, 0.333, 0.333, 0.833)
    """
    if not a or not b:
        raise InputError("overlap needs two sets that are not empty")
    mask_a, mask_b = a.mask(n_layers, d_mlp), b.mask(n_layers, d_mlp)
    shared = len(a & b)
    in_layer = (mask_a.sum(1) * mask_b.sum(1)).sum().item() / d_mlp

    def jaccard(both: float) -> float:
        return both / (len(a) + len(b) - both)

    total = n_layers * d_mlp
    return Overlap(
        shared=shared,
        jaccard=jaccard(shared),
        chance=jaccard(len(a) * len(b) / total),
        chance_by_layer=jaccard(in_layer),
        p_value=float(hypergeom.sf(shared - 1, total, len(a), len(b))),
    )


def depth_thirds(neurons: NeuronSet, n_layers: int) -> tuple[float, float, float]:
    """Share of the neurons in the early, middle and late third of the layers.

    >>> depth_thirds(NeuronSet([(0, 0), (5, 0), (5, 1), (5, 2)]), 6)
    (0.25, 0.0, 0.75)
    """
    if not neurons:
        raise InputError("depth needs a set that is not empty")
    deepest = max(layer for layer, _ in neurons)
    if deepest >= n_layers:
        raise InputError(f"layer must be in [0, {n_layers}), got {deepest}")
    thirds = np.bincount([3 * layer // n_layers for layer, _ in neurons], minlength=3) / len(neurons)
    return (float(thirds[0]), float(thirds[1]), float(thirds[2]))


def regions(one: NeuronSet, other: NeuronSet, names: tuple[str, str] = OBJECTIVES) -> dict[str, NeuronSet]:
    """The neurons of one set alone, of the other alone, and shared, by plain set algebra."""
    return {f"{names[0]}-only": one - other, f"{names[1]}-only": other - one, "shared": one & other}


class Region(NamedTuple):
    """How many neurons are in just these sets and in no other, and how many would be if the sets were independent within each layer."""

    observed: int
    expected: float


def independent_regions(sets: Mapping[str, NeuronSet], *, n_layers: int, d_mlp: int) -> dict[str, Region]:
    """Every combination of sets, the largest first; those that nothing is in, and nothing would be, are left out.

    >>> a, b = NeuronSet([(0, 0), (0, 1)]), NeuronSet([(0, 1)])
    >>> independent_regions({"a": a, "b": b}, n_layers=1, d_mlp=4)["a and b"]
    Region(observed=1, expected=0.5)
    """
    masks = np.stack([neurons.mask(n_layers, d_mlp).numpy() for neurons in sets.values()])
    share = masks.mean(2)
    found = {}
    for size in range(1, len(sets) + 1):
        for inside in combinations(range(len(sets)), size):
            chosen = np.isin(np.arange(len(sets)), inside)
            observed = int((masks == chosen[:, None, None]).all(0).sum())
            expected = float(np.where(chosen[:, None], share, 1 - share).prod(0).sum() * d_mlp)
            names = [name for name, own in zip(sets, chosen, strict=True) if own]
            if observed or expected >= 0.5:
                found[f"{names[0]} only" if size == 1 else " and ".join(names)] = Region(observed, expected)
    return dict(sorted(found.items(), key=lambda item: -item[1].observed))


def shape_in_common(rankings: Mapping[str, Float[Tensor, "layer neuron"]]) -> tuple[int, int]:
    """How many layers, and neurons in each, all rankings are of. Raises InputError where they differ, or are fewer than two."""
    shapes = {name: list(ranking.shape) for name, ranking in rankings.items()}
    if len(shapes) < 2 or len({tuple(shape) for shape in shapes.values()}) > 1:
        raise InputError(f"overlap needs two or more rankings of one shape, got {shapes}")
    n_layers, d_mlp = next(iter(rankings.values())).shape
    return n_layers, d_mlp


def compare(
    sets: Mapping[str, NeuronSet], *, n_layers: int, d_mlp: int, single: tuple[str, str] = OBJECTIVES, mixed: str = MIXED
) -> OverlapsJson:
    """Every pair of reward models, and the depth of each one's neurons. Of a pair: how many neurons they share, the Jaccard index of the
    two sets, the index that sets of these sizes have by chance, and how likely at least so many shared ones are by chance.

    Args:
        single: the names of two models of one objective each. Where both are among the sets, their regions are counted.
        mixed: the name of a model of both objectives. Where it is there too, "single_in_mixed" is the Jaccard index of its neurons and
            those of either single model.
    """
    result: OverlapsJson = {
        "neurons": {name: len(neurons) for name, neurons in sets.items()},
        "depth": {name: depth_thirds(neurons, n_layers) for name, neurons in sets.items()},
        "pairs": [_pair(a, b, overlap(sets[a], sets[b], n_layers=n_layers, d_mlp=d_mlp)) for a, b in combinations(sets, 2)],
    }
    if set(single) <= set(sets):
        one, other = (sets[name] for name in single)
        result["regions"] = {name: len(part) for name, part in regions(one, other, single).items()}
        if mixed in sets:
            either = one | other
            result["single_in_mixed"] = len(either & sets[mixed]) / len(either | sets[mixed])
    return result


def _pair(a: str, b: str, found: Overlap) -> PairOverlapJson:
    return {
        "a": a,
        "b": b,
        "shared": found.shared,
        "jaccard": found.jaccard,
        "chance": found.chance,
        "chance_by_layer": found.chance_by_layer,
        "p_value": found.p_value,
    }
