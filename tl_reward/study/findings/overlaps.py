"""Do the kinds of models rely on the same neurons, and how deep do these lie? Of neurons there is no sample to draw from: what stands
beside a value is the range over seeds."""

from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

import numpy as np

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.overlap import depth_thirds, overlap
from tl_reward.neurons import NeuronSet, tied_at_cut
from tl_reward.show.plots.estimates import dots
from tl_reward.study.matrix import FRACTION, Matrix, Model
from tl_reward.study.rows import OBJECTIVES, Models, kinds, percent
from tl_reward.study.table import NONE, Table, Value, interval, table
from tl_reward.study.top_sets import cut

PAIRS = (("helpful", "harmless"), ("mixed", "helpful"), ("mixed", "harmless"))
FOUND = "neurons found in a model"
FOUND_IN_TWO = "neurons found in two kinds of models of one base and seed"
THIRDS = ("early", "middle", "late")


class PairOverlap(NamedTuple):
    """Two kinds of models by one ranking; each value over the seeds that both have. `p_value` is the largest of any seed."""

    base: str
    ranking: str
    one: str
    other: str
    jaccard: Estimate
    chance: Estimate
    chance_by_layer: Estimate
    shared: Estimate
    neurons: int
    p_value: float


class Depth(NamedTuple):
    """Share of the top neurons in each third of the layers; `ties`: the most neurons of any seed that the cut left out by order alone."""

    base: str
    objective: str
    ranking: str
    early: Estimate
    middle: Estimate
    late: Estimate
    neurons: int
    ties: int


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean with the range; n is the number of seeds, and this no confidence interval."""
    return Estimate(float(np.mean(values)), float(min(values)), float(max(values)), len(values))


def spread(value: Estimate) -> Value:
    return interval(value) if value.n > 1 else value.value


def top_of(matrix: Matrix, model: Model, ranking: str, fraction: float = FRACTION) -> NeuronSet | None:
    """None where the neurons of a model were not found by this ranking."""
    found = matrix.found.get(model)
    return cut(found, ranking, fraction, matrix.conventions) if found and ranking in found.rankings else None


def rankings_of(matrix: Matrix) -> list[str]:
    """All but the random one: the order of a model's neurons says nothing there."""
    return [name for name in dict.fromkeys(name for found in matrix.found.values() for name in found.rankings) if name != "random"]


def top_by_seed(matrix: Matrix, base: str, objectives: Sequence[str], ranking: str) -> dict[int, list[NeuronSet]]:
    """The sets of each seed that has one for every objective."""
    seeds = sorted({model.seed for model in matrix.found if model.base == base})
    sets = {seed: [top_of(matrix, Model(base, objective, seed), ranking) for objective in objectives] for seed in seeds}
    return {seed: [one for one in found if one is not None] for seed, found in sets.items() if None not in found}


def overlaps(matrix: Matrix) -> list[PairOverlap]:
    found = []
    for base in dict.fromkeys(models.base for models in kinds(matrix)):
        for ranking in rankings_of(matrix):
            for one, other in PAIRS:
                sets = top_by_seed(matrix, base, (one, other), ranking)
                layers, width = _shape(matrix, base)
                each = [overlap(a, b, n_layers=layers, d_mlp=width) for a, b in sets.values()]
                if each:
                    found.append(
                        PairOverlap(
                            base,
                            ranking,
                            one,
                            other,
                            jaccard=over_seeds([both.jaccard for both in each]),
                            chance=over_seeds([both.chance for both in each]),
                            chance_by_layer=over_seeds([both.chance_by_layer for both in each]),
                            shared=over_seeds([both.shared for both in each]),
                            neurons=round(np.mean([len(one) for each in sets.values() for one in each])),
                            p_value=max(both.p_value for both in each),
                        )
                    )
    return found


def _shape(matrix: Matrix, base: str) -> tuple[int, int]:
    shape = next((next(iter(found.rankings.values())).shape for model, found in matrix.found.items() if model.base == base), (0, 0))
    return (int(shape[0]), int(shape[1]))


class OverlapRow(NamedTuple):
    base: str
    ranking: str
    models: str
    jaccard: Annotated[Value, "Jaccard"]
    chance: Value
    chance_by_layer: Annotated[Value, "chance, layers matched"]
    p: str
    shared: int
    neurons_in_a_set: int
    seeds: int


def top_overlap(matrix: Matrix) -> Table:
    """The Jaccard index of each two kinds of models, beside chance; and what of the single-objective neurons is in the mixed model."""
    found = overlaps(matrix)
    rows = [
        OverlapRow(
            base=each.base,
            ranking=each.ranking,
            models=f"{each.one}–{each.other}",
            jaccard=spread(each.jaccard),
            chance=round(each.chance.value, 3),
            chance_by_layer=round(each.chance_by_layer.value, 3),
            p=f"{each.p_value:.1e}" if each.p_value >= 1e-300 else "< 1e-300",
            shared=round(each.shared.value),
            neurons_in_a_set=each.neurons,
            seeds=each.jaccard.n,
        )
        for each in found
    ]
    for base in dict.fromkeys(p.base for p in found):
        for ranking in rankings_of(matrix):
            sets = top_by_seed(matrix, base, OBJECTIVES, ranking).values()
            if sets:
                within = [((a | b) & mixed, a | b | mixed) for a, b, mixed in sets]
                value = over_seeds([len(both) / len(either) for both, either in within])
                shared = round(float(np.mean([len(both) for both, _ in within])))
                neurons = round(np.mean([len(one) for each in sets for one in each]))
                three = "(helpful ∪ harmless) ∩ mixed / all three"
                rows.append(OverlapRow(base, ranking, three, spread(value), NONE, NONE, NONE, shared, neurons, value.n))
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for p in found:
        series = panels.setdefault(f"{p.base}, {p.ranking}", {})
        label = f"{p.one}–{p.other}"
        for name, value in (("observed", p.jaccard), ("chance, layers matched", p.chance_by_layer), ("chance", p.chance)):
            series.setdefault(name, {})[label] = value
    return table(
        "top-overlap",
        f"Jaccard index of the top {percent(FRACTION)} of neurons of each two kinds of models, of one seed (with several seeds: mean and "
        "range). Chance: independent sets of these sizes over the whole model, and within each layer with the same counts there; p: of as "
        "many shared neurons or more by chance over the whole model (hypergeometric; of seeds, the largest).",
        OverlapRow,
        rows,
        FOUND_IN_TWO,
        dots(panels, "Jaccard index"),
    )


def depths(matrix: Matrix) -> list[Depth]:
    found = []
    for models in kinds(matrix):
        for ranking in rankings_of(matrix):
            sets = [each[0] for each in top_by_seed(matrix, models.base, (models.objective,), ranking).values()]
            if sets:
                layers, _ = _shape(matrix, models.base)
                early, middle, late = (over_seeds(thirds) for thirds in zip(*(depth_thirds(one, layers) for one in sets), strict=True))
                ties = max(_ties(matrix, models, ranking))
                found.append(Depth(models.base, models.objective, ranking, early, middle, late, round(np.mean([*map(len, sets)])), ties))
    return found


def _ties(matrix: Matrix, models: Models, ranking: str) -> list[int]:
    """The study's rule leaves none out."""
    if matrix.conventions == "study":
        return [0]
    scores = [
        found.rankings[ranking]
        for model, found in matrix.found.items()
        if (model.base, model.objective) == (models.base, models.objective) and ranking in found.rankings
    ]
    return [tied_at_cut(score, round(FRACTION * score.numel())) for score in scores]


class DepthRow(NamedTuple):
    base: str
    objective: str
    ranking: str
    early: Value
    middle: Value
    late: Value
    neurons: int
    ties_at_the_cut: int
    seeds: int


def depth_of_top(matrix: Matrix) -> Table:
    found = depths(matrix)
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for each in found:
        series = panels.setdefault(f"{each.base}, {each.ranking}", {}).setdefault(each.objective, {})
        series |= {third: getattr(each, third) for third in THIRDS}
    return table(
        "depth-of-top-neurons",
        f"Share of the top {percent(FRACTION)} of neurons in the early, middle and late third of the layers (with several seeds: mean and "
        "range). Ties: neurons that score as the last one inside, and are left out only by their place.",
        DepthRow,
        [
            DepthRow(
                base=each.base,
                objective=each.objective,
                ranking=each.ranking,
                early=spread(each.early),
                middle=spread(each.middle),
                late=spread(each.late),
                neurons=each.neurons,
                ties_at_the_cut=each.ties,
                seeds=each.early.n,
            )
            for each in found
        ],
        FOUND,
        dots(panels, "share of the top neurons"),
    )


def compared(
    matrix: Matrix, base: str, objectives: Sequence[str], ranking: str, of: Callable[[Sequence[NeuronSet], int, int], float]
) -> Estimate | None:
    """A number from the sets of several objectives, over the seeds that have all."""
    layers, width = _shape(matrix, base)
    values = [of(sets, layers, width) for sets in top_by_seed(matrix, base, objectives, ranking).values()]
    return over_seeds(values) if values else None
