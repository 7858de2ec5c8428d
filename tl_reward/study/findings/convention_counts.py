"""How many neurons does each of the study's own conventions, behind `conventions = "study"`, change, beside what we do?

Where its published code does something else than its text says, or than it should, a reproduction can do as the code does. Our own
definitions are `NeuronSet.top`, `overlap.regions` and `neuron_statistics.NeuronStatistics`.
"""

from typing import NamedTuple

from tl_reward.neurons import NeuronSet
from tl_reward.study.matrix import BF16, FRACTION, Found, Matrix, Model
from tl_reward.study.rows import OBJECTIVES, percent, place
from tl_reward.study.table import Table, table
from tl_reward.study.top_sets import cut, percentile_set, study_regions


class ConventionRow(NamedTuple):
    """The neurons of a set by our definition and by the study's, and those that are in only one of the two."""

    base: str
    objective: str
    seed: int
    convention_of_the_study: str
    ranking: str
    ours: int
    study: int
    in_one_only: int


def _row(model: Model, convention: str, ranking: str, ours: NeuronSet, theirs: NeuronSet) -> ConventionRow:
    return ConventionRow(*model, convention, ranking, len(ours), len(theirs), len((ours | theirs) - (ours & theirs)))


def _rows_of(model: Model, found: Found) -> list[ConventionRow]:
    rows = []

    def add(convention: str, ranking: str, ours: NeuronSet, theirs: NeuronSet) -> None:
        rows.append(_row(model, convention, ranking, ours, theirs))

    for name, score in found.rankings.items():
        top = cut(found, name, FRACTION, "ours") if name != "random" else None
        if top is None:
            continue
        add("score >= percentile, for the exact count", name, top, percentile_set(score, FRACTION))
        if name + BF16 in found.beside:
            rounded = NeuronSet.top(found.beside[name + BF16], fraction=FRACTION)
            add("sums in bfloat16, for float64, both with the exact count", name, top, rounded)
            add("both", name, top, percentile_set(found.beside[name + BF16], FRACTION))
    for name, other, convention in (
        ("mean", "abs_mean", "signed mean, for the mean size"),
        ("change", "change_ms", "mean square, for its root"),
    ):
        if name in found.rankings and other in found.beside:
            one, two = (NeuronSet.top(score, fraction=FRACTION) for score in (found.rankings[name], found.beside[other]))
            add(convention, name, *((two, one) if name == "mean" else (one, two)))
    return rows


def convention_table(matrix: Matrix) -> Table:
    """What the study's conventions change in the top 10 % of each model."""
    rows: list[ConventionRow] = []
    order = sorted(matrix.found, key=lambda model: (model.base, place(OBJECTIVES, model.objective), model.seed))
    for model in order:
        rows += _rows_of(model, matrix.found[model])
    for model in order:
        other = matrix.found.get(Model(model.base, "harmless", model.seed))
        if model.objective == "helpful" and other is not None:
            for name in [name for name in matrix.found[model].rankings if name in other.rankings and name != "random"]:
                one, two = (cut(found, name, FRACTION, "ours") for found in (matrix.found[model], other))
                if one is not None and two is not None:
                    both = model._replace(objective="helpful and harmless")
                    convention = "shared set keeps layers of one set only"
                    rows.append(_row(both, convention, name, one & two, study_regions(one, two)["shared"]))
    return table(
        "conventions",
        f"What the conventions of the study's code change in the top {percent(FRACTION)} of neurons: how many neurons a set has by our "
        "definition and by the study's, and how many are in only one of the two. Sums in bfloat16 are there where a run follows the "
        "study's conventions.",
        ConventionRow,
        rows,
        "neurons found in a model",
    )
