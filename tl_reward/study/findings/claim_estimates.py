"""What is our figure for each of the study's claims? None where the matrix lacks what it needs.

`base` is the study's name of a base model; ours counts as it where its name begins with it, an instruction-tuned version too. "" is the
mean over all base models. By neurons, "top" means by `mean`, the study's magnitude.

`unit` says what a difference between conditions is of: "accuracy", the study's measure, or "margin": the mean margin of each condition in
standard deviations of its own rewards (`rows.over_deviation`), which moves also where no row changes sides.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.overlap import depth_thirds, overlap
from tl_reward.neurons import NeuronSet
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.findings.ablations import Unit, drops, drops_beside_random
from tl_reward.study.findings.overlaps import THIRDS, compared
from tl_reward.study.findings.set_ablations import set_drops
from tl_reward.study.findings.transfer import bases_of, both_right, right_sets
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.rows import Draws, Models, draws, group_rows, mean_of, over_deviation, over_tasks, shares_of


def bases(matrix: Matrix, base: str) -> list[str]:
    return [name for name in bases_of(matrix) if name.lower().startswith(base.lower())]


def own_accuracy(matrix: Matrix, base: str, objective: str) -> Estimate | None:
    return task_accuracy(matrix, base, objective, OBJECTIVE_TEST)


def task_accuracy(matrix: Matrix, base: str, objective: str, task: str) -> Estimate | None:
    done = _mean([over_tasks(matrix, [Models(name, objective)], [task]) for name in bases(matrix, base)])
    return done.column(0) if done else None


def accuracy_difference(matrix: Matrix, one: tuple[str, str], other: tuple[str, str], *, unit: Unit = "accuracy") -> Estimate | None:
    """Of (objective, sub-task) over (objective, sub-task), over all base models."""
    found = []
    for base in bases(matrix, ""):
        sides = [_in_unit(matrix, [Models(base, objective)], [task], unit) for objective, task in (one, other)]
        if one[1] == other[1]:
            both = _in_unit(matrix, [Models(base, one[0]), Models(base, other[0])], [one[1]], unit)
            found.append(both and both._replace(values=both.values[:, :1] - both.values[:, 1:]))
        elif sides[0] and sides[1]:
            found.append(_difference(sides[0], sides[1]))
    done = _mean(found)
    return done.column(0) if done else None


def group_change(matrix: Matrix, objective: str, group: str, *, base: str, share: float = 0.1, unit: Unit = "accuracy") -> Estimate | None:
    """Accuracy after the top neurons are zeroed minus before. Over all base models there must be two or more."""
    found = []
    for name in bases(matrix, base):
        columns = [Models(name, objective), Models(name, objective, (ModelEdit("top", "mean", share),))]
        rows = group_rows(matrix, columns, group)
        done = (draws([*rows.values()]) if unit == "accuracy" else _in_unit(matrix, columns, [*rows], unit)) if rows else None
        found.append(done and done._replace(values=done.values[:, 1:] - done.values[:, :1]))
    done = _mean(found) if base or sum(each is not None for each in found) > 1 else None
    return done.column(0) if done else None


def drop(matrix: Matrix, share: float, *, less_share: float | None = None, unit: Unit = "accuracy") -> Estimate | None:
    """The drop at a share, or by how much it exceeds that at a smaller one: relative, of accuracy; of the margin, what is lost of it."""
    done = drops(matrix, share, unit=unit) if less_share is None else drops(matrix, share, less_share, unit=unit)
    if done is None:
        return None
    return done.drawn.column(0) if less_share is None else done.drawn.change(0, before=1)


def drop_beyond_random(matrix: Matrix, share: float, *, objective: str | None = None, unit: Unit = "accuracy") -> Estimate | None:
    """The drop of ranked neurons minus that of as many random ones of the same layers: over all kinds of models and rankings, or of one
    objective's models by mean."""
    done = drops_beside_random(matrix, share, objective=objective, unit=unit)
    return done.drawn.change(0, before=1) if done else None


def jaccard(matrix: Matrix, base: str, pair: tuple[str, str], *, beyond_chance: bool = False) -> Estimate | None:
    def of(sets: Sequence[NeuronSet], layers: int, width: int) -> float:
        found = overlap(sets[0], sets[1], n_layers=layers, d_mlp=width)
        return found.jaccard - found.chance if beyond_chance else found.jaccard

    return _over([compared(matrix, name, pair, "mean", of) for name in bases(matrix, base)])


def jaccard_difference(matrix: Matrix, one: tuple[str, str], other: tuple[str, str]) -> Estimate | None:
    names = ("helpful", "harmless", "mixed")

    def of(sets: Sequence[NeuronSet], layers: int, width: int) -> float:
        found = [overlap(*(sets[names.index(name)] for name in pair), n_layers=layers, d_mlp=width).jaccard for pair in (one, other)]
        return found[0] - found[1]

    return _over([compared(matrix, base, names, "mean", of) for base in bases(matrix, "")])


def depth(matrix: Matrix, objective: str, third: str) -> Estimate | None:
    place = THIRDS.index(third)
    found = [compared(matrix, b, (objective,), "mean", lambda s, n, _: depth_thirds(s[0], n)[place]) for b in bases(matrix, "")]
    return _over(found)


def late_over_early(matrix: Matrix, objective: str) -> Estimate | None:
    def of(sets: Sequence[NeuronSet], layers: int, width: int) -> float:
        early, _, late = depth_thirds(sets[0], layers)
        return late - early

    return _over([compared(matrix, base, (objective,), "mean", of) for base in bases(matrix, "")])


def later(matrix: Matrix, one: str, other: str) -> Estimate | None:
    def of(sets: Sequence[NeuronSet], layers: int, width: int) -> float:
        return depth_thirds(sets[0], layers)[2] - depth_thirds(sets[1], layers)[2]

    return _over([compared(matrix, base, (one, other), "mean", of) for base in bases(matrix, "")])


def set_difference(matrix: Matrix, share: float, one: str, other: str, *, of: Unit | Literal["kept"] = "accuracy") -> Estimate | None:
    """How much more zeroing one set costs than zeroing the other, over all sub-tasks of a group and of `FEWEST` prompts or more."""
    found = []
    for each in set_drops(matrix):
        drawn = each.kept if of == "kept" else each.groups.get("all") if of == "accuracy" else each.margins
        if each.share == share and {one, other} <= set(each.sets) and drawn:
            cost = [drawn.values[:, [1 + each.sets.index(name)]] for name in (other, one)]
            found.append(drawn._replace(values=cost[0] - cost[1]))
    done = _mean(found)
    return done.column(0) if done else None


def level_difference(matrix: Matrix, objective: str) -> Estimate | None:
    """Mean reward of a single-objective model minus the mixed one's, on rows that both have right."""
    found = [each.drawn for each in both_right(matrix) if each.objective == objective]
    done = _mean(found)
    return done.change(0, before=1) if done else None


def transferability(matrix: Matrix, task: str) -> Estimate | None:
    found = []
    for base in bases(matrix, ""):
        rows = right_sets(matrix, base, task)
        found.append(shares_of(rows, [1], 0) if rows else None)
    done = _mean(found)
    return done.column(0) if done else None


def _in_unit(matrix: Matrix, columns: Sequence[Models], tasks: Sequence[str], unit: Unit) -> Draws | None:
    """The mean over those of the sub-tasks that all columns have."""
    if unit == "accuracy":
        return over_tasks(matrix, columns, tasks)
    return _mean([over_deviation(matrix, columns, task) for task in tasks])


def _difference(one: Draws, other: Draws) -> Draws:
    """Of two sub-tasks; the prompts are those of the smaller one."""
    return Draws(one.values - other.values, min(one.prompts, other.prompts, key=len), min(one.seeds, other.seeds))


def _mean(found: Sequence[Draws | None]) -> Draws | None:
    """Over those base models that have a value."""
    there = [each for each in found if each is not None]
    return mean_of(there) if there else None


def _over(found: Sequence[Estimate | None]) -> Estimate | None:
    """The mean of numbers over base models; low and high are means too, of each one's range over seeds."""
    there = [each for each in found if each is not None]
    if not there:
        return None
    value, low, high = (float(np.mean([each[i] for each in there])) for i in range(3))
    return Estimate(value, low, high, min(each.n for each in there))
