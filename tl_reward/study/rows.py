"""How does a matrix give numbers with intervals? Rows averaged over seeds, means over sub-tasks, a bootstrap over prompts.

A *row* is a best-of-n row, or a pair that is part of none. A column's value is the mean over its rows of the mean over seeds (and over
draws); of several sub-tasks, the mean of theirs. Intervals are percentile intervals at 95 % of a Poisson bootstrap over prompts: in each
draw a prompt counts as often as a Poisson variable of mean 1 says, which depends on the prompt alone. So a prompt that several models or
sub-tasks share is drawn once for all of them, also where some left it out, and what is compared or averaged is not taken for independent.
Each sub-task is a stratum: what is drawn of it is scaled to its own size, so that no draw has more of one sub-task than the data have.
Intervals say nothing about how training varies: seeds are averaged, not drawn.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores, right
from tl_reward.study.benchmarks import OBJECTIVE_TEST, SUBTASKS, TIES, by_pairs, group_of
from tl_reward.study.matrix import Matrix, Model, ModelEdit
from tl_reward.study.published import first_shares, ties_scores

RESAMPLES = 2000
FEWEST = 10  # prompts: a bootstrap over fewer says little, and over one nothing
OBJECTIVES = ("helpful", "harmless", "mixed")
GROUPS = ("Helpful", "Harmless")
Measure = Callable[[str, Scores], dict[str, float]]  # of a sub-task and its scores: a value for each row


class Models(NamedTuple):
    """A kind of model: reward models of one base and objective, all seeds, under one edit, or under several that are averaged (random
    draws). What is compared is a column each."""

    base: str
    objective: str
    edits: tuple[ModelEdit, ...] = (ModelEdit(),)

    def under(self, *edits: ModelEdit) -> "Models":
        return self._replace(edits=edits)


class Rows(NamedTuple):
    """The rows of one sub-task, or of several that are pooled, that every compared column has.

    Attributes:
        values: one a row and column, averaged over seeds.
        prompts: what is drawn, one a row.
        seeds: how many were averaged.
        strata: of rows that are pooled, the sub-task of each, within which it is drawn; else "" or nothing.
    """

    values: Float[np.ndarray, "row column"]
    prompts: tuple[str, ...]
    seeds: int
    strata: tuple[str, ...] = ()


class Draws(NamedTuple):
    """Bootstrap draws.

    Attributes:
        values: the first is of the data itself, the others are of `RESAMPLES` draws. Sums, differences and ratios of columns are
            those of what the columns stand for, draw by draw.
        prompts: the different ones that were drawn.
        seeds: the fewest that any part has.
    """

    values: Float[np.ndarray, "draw column"]
    prompts: frozenset[str]
    seeds: int

    @property
    def n(self) -> int:
        return len(self.prompts)

    def estimate(self, values: Float[np.ndarray, " draw"]) -> Estimate | None:
        """Of a combination of columns; None where the data itself have no value (a ratio to 0). Draws that have none are left out."""
        if not np.isfinite(values[0]):
            return None
        low, high = np.nanquantile(values[1:], [0.025, 0.975])
        return Estimate(float(values[0]), float(low), float(high), self.n)

    def column(self, index: int) -> Estimate | None:
        return self.estimate(self.values[:, index])

    def change(self, index: int, before: int = 0) -> Estimate | None:
        return self.estimate(self.values[:, index] - self.values[:, before])


def draws(parts: Sequence[Rows]) -> Draws:
    """The mean over the parts of the mean over their rows."""
    return mean_of([Draws(_draws(part), frozenset(part.prompts), part.seeds) for part in parts])


def mean_of(parts: Sequence[Draws]) -> Draws:
    """Draw by draw."""
    assert parts
    values = np.mean([part.values for part in parts], axis=0)
    return Draws(values, frozenset().union(*(part.prompts for part in parts)), min(part.seeds for part in parts))


def pooled(parts: Mapping[str, Rows]) -> Rows:
    """The rows of several sub-tasks, by their names, as those of one: every row counts the same, and is drawn within its sub-task."""
    prompts = tuple(prompt for part in parts.values() for prompt in part.prompts)
    strata = tuple(task for task, part in parts.items() for _ in part.prompts) if len(parts) > 1 else ()
    return Rows(np.concatenate([part.values for part in parts.values()]), prompts, min(part.seeds for part in parts.values()), strata)


def ratio(over: Float[np.ndarray, " draw"], under: Float[np.ndarray, " draw"]) -> Float[np.ndarray, " draw"]:
    """NaN where there is nothing to divide by."""
    return np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)


def shares_of(rows: Rows, overs: Sequence[int], under: int) -> Draws | None:
    """Ratios of columns, a column for each of `overs`, which are 0 where `under` is. Only the rows that count in `under` are drawn, so that
    `n` says how many prompts these have; None where there are none."""
    counts = rows.values[:, under] > 0
    if not counts.any():
        return None
    drawn = draws([take(rows, counts)])
    return drawn._replace(values=np.stack([ratio(drawn.values[:, i], drawn.values[:, under]) for i in overs], axis=1))


def take(rows: Rows, kept: Bool[np.ndarray, " row"]) -> Rows:
    """Some of the rows."""
    index = np.flatnonzero(kept)
    strata = tuple(rows.strata[i] for i in index) if rows.strata else ()
    return Rows(rows.values[index], tuple(rows.prompts[i] for i in index), rows.seeds, strata)


def _draws(part: Rows) -> Float[np.ndarray, "draw column"]:
    """Of each draw the means over all rows: those of the strata, by the size that each has in the data."""
    if not part.strata:
        return _draws_of_one(part)
    prompts = Counter(task for task, _ in set(zip(part.strata, part.prompts, strict=True)))
    # One of few prompts would have no draw of its own to vary by, or none at all: these are drawn together.
    strata = np.array([task if prompts[task] >= FEWEST else "" for task in part.strata])
    parts = [(strata == task) for task in dict.fromkeys(strata.tolist())]
    found = np.sum([here.mean() * _draws_of_one(take(part, here)) for here in parts], axis=0)
    found[0] = part.values.mean(0)
    return found


def _draws_of_one(part: Rows) -> Float[np.ndarray, "draw column"]:
    names: dict[str, int] = {}
    index = [names.setdefault(prompt, len(names)) for prompt in part.prompts]
    sums = np.zeros((len(names), part.values.shape[1]))
    np.add.at(sums, index, part.values)
    sizes = np.bincount(index).astype(float)
    found = [part.values.mean(0, keepdims=True)]
    counts = _counts(tuple(names))
    for start in range(0, RESAMPLES, 200):  # all at once would hold RESAMPLES * prompts numbers of 8 bytes
        some = counts[start : start + 200].astype(float)
        size = (some @ sizes)[:, None]
        found.append(np.divide(some @ sums, size, out=np.full((len(some), sums.shape[1]), np.nan), where=size > 0))
    return np.concatenate(found)


@lru_cache(maxsize=64)
def _counts(prompts: tuple[str, ...]) -> UInt8[np.ndarray, "draw prompt"]:
    return np.stack([_counts_of(prompt) for prompt in prompts], axis=1)


@lru_cache(maxsize=2**16)
def _counts_of(prompt: str) -> UInt8[np.ndarray, " draw"]:
    """How often a prompt is in each draw: always the same."""
    generator = np.random.default_rng(zlib.crc32(prompt.encode("utf-8", "surrogatepass")))
    return generator.poisson(1.0, RESAMPLES).astype(np.uint8)


def whole_rows(task: str, scores: Scores) -> dict[str, float]:
    """1 where all of a row is right, 0 where not; a tie counts half."""
    margins = scores.row_margins()
    return dict(zip(margins, right(np.array(list(margins.values()))).tolist(), strict=True))


def correct(task: str, scores: Scores) -> dict[str, float]:
    """What a sub-task's accuracy is the mean of: rows, or pairs (`benchmarks.by_pairs`); of RewardBench 2 as it is published."""
    if by_pairs(task):
        return dict(zip(scores.ids, right(scores.margin).tolist(), strict=True))
    if task == TIES:
        return ties_scores(scores)
    return first_shares(scores) if task in SUBTASKS and SUBTASKS[task].benchmark == "RewardBench 2" else whole_rows(task, scores)


def mean_reward(task: str, scores: Scores) -> dict[str, float]:
    """By pair, the mean of both rewards, in reward units."""
    return dict(zip(scores.ids, ((scores.chosen + scores.rejected) / 2).tolist(), strict=True))


def margins(task: str, scores: Scores) -> dict[str, float]:
    """By pair, in reward units."""
    return dict(zip(scores.ids, scores.margin.tolist(), strict=True))


def over_deviation(matrix: Matrix, columns: Sequence[Models], task: str) -> Draws | None:
    """A column each: the mean margin in standard deviations of that condition's own rewards, chosen and rejected ones, over the pairs that
    all columns have; of each seed and edit by itself, then averaged. The deviation is drawn with the margin. None where a column has no
    such pairs; NaN where all rewards are equal."""
    seeds = by_seed(matrix, columns, task)
    parts = [[scores for each in seeds.values() for scores in each[i]] for i in range(len(columns))]
    names = shared(dict.fromkeys(scores.ids) for column in parts for scores in column) if seeds else []
    if not names:
        return None
    values: list[np.ndarray] = []
    for scores in (scores for column in parts for scores in column):
        places = {name: i for i, name in enumerate(scores.ids)}
        index = [places[name] for name in names]
        chosen, rejected = scores.chosen[index], scores.rejected[index]
        middle = (chosen.mean() + rejected.mean()) / 2  # of the difference of squares of large numbers little would be left
        chosen, rejected = chosen - middle, rejected - middle
        values += [chosen - rejected, (chosen + rejected) / 2, (chosen**2 + rejected**2) / 2]
    prompts = prompts_of(parts[0][0])
    drawn = draws([Rows(np.stack(values, axis=1), tuple(prompts[name] for name in names), len(seeds))])
    margin, level, square = (drawn.values[:, i::3] for i in range(3))
    deviation = np.sqrt(np.maximum(square - level**2, 0))
    each = np.divide(margin, deviation, out=np.full(margin.shape, np.nan), where=deviation > 0)
    ends = np.cumsum([len(column) for column in parts])[:-1]
    return drawn._replace(values=np.stack([part.mean(1) for part in np.split(each, ends, axis=1)], axis=1))


def prompts_of(scores: Scores) -> dict[str, str]:
    """By pair and by row."""
    return dict(zip(scores.ids, scores.prompts, strict=True)) | dict(zip(scores.groups, scores.prompts, strict=True))


def by_seed(matrix: Matrix, columns: Sequence[Models], task: str) -> dict[int, list[list[Scores]]]:
    """For each seed that all columns have, the scores of each under each of its edits that is there."""
    seeds = sorted({model.seed for model, _ in matrix.scores})
    found = {seed: [_edited(matrix, models, seed, task) for models in columns] for seed in seeds}
    return {seed: scores for seed, scores in found.items() if all(scores)}


def _edited(matrix: Matrix, models: Models, seed: int, task: str) -> list[Scores]:
    found = [matrix.scores.get((Model(models.base, models.objective, seed), edit), {}).get(task) for edit in models.edits]
    return [scores for scores in found if scores is not None and len(scores)]


def rows_of(matrix: Matrix, columns: Sequence[Models], task: str, measure: Measure) -> Rows | None:
    """A measure of each column, over the rows that all of them have; None where one has none."""
    seeds = by_seed(matrix, columns, task)
    if not seeds:
        return None
    parts = [[measure(task, scores) for per_seed in seeds.values() for scores in per_seed[i]] for i in range(len(columns))]
    names = shared(part for column in parts for part in column)
    if not names:
        return None
    values = np.stack([np.mean([[part[name] for name in names] for part in column], axis=0) for column in parts], axis=1)
    prompts = prompts_of(next(iter(seeds.values()))[0][0])
    return Rows(values, tuple(prompts[name] for name in names), len(seeds))


def shared(parts: Iterable[Mapping[str, object]]) -> list[str]:
    """The rows that all parts have, in the order of the first."""
    first, *rest = parts
    return [name for name in first if all(name in part for part in rest)]


def kinds(matrix: Matrix) -> list[Models]:
    """The unedited models, without their seeds."""
    found = {(model.base, model.objective) for model in [*(model for model, _ in matrix.scores), *matrix.found]}
    return [Models(base, objective) for base, objective in sorted(found, key=lambda kind: (kind[0], place(OBJECTIVES, kind[1])))]


def edits_of(matrix: Matrix, models: Models) -> list[ModelEdit]:
    found = {edit for model, edit in matrix.scores if (model.base, model.objective) == (models.base, models.objective)}
    return sorted(found, key=lambda edit: (edit.kind, edit.name, edit.fraction))


def tasks_of(matrix: Matrix, models: Models | None = None) -> list[str]:
    """The sub-tasks, in the order of the map, then the objective's test pairs, then those that no map knows."""
    found = {
        task
        for (model, _), tasks in matrix.scores.items()
        if models is None or (model.base, model.objective) == (models.base, models.objective)
        for task in tasks
    }
    return sorted(found, key=lambda task: (place([*SUBTASKS, OBJECTIVE_TEST], task), task))


def over_tasks(matrix: Matrix, columns: Sequence[Models], tasks: Sequence[str], measure: Measure = correct) -> Draws | None:
    """The mean over those of the sub-tasks that all columns have; None where there are none."""
    parts = [rows for task in tasks if (rows := rows_of(matrix, columns, task, measure)) is not None]
    return draws(parts) if parts else None


def group_rows(matrix: Matrix, columns: Sequence[Models], group: str) -> dict[str, Rows]:
    """The rows of each sub-task of a group that all columns have. Without Ties, which the study has not, and without those of less than
    `FEWEST` prompts, whose draws would make the mean's interval as poor as their own. The test pairs of an objective are a group of their
    own, and taken as they are."""
    own = group == OBJECTIVE_TEST
    tasks = [task for task in tasks_of(matrix) if (task == group if own else group_of(task) == group) and task != TIES]
    found = {task: rows for task in tasks if (rows := rows_of(matrix, columns, task, correct)) is not None}
    return {task: rows for task, rows in found.items() if own or len(set(rows.prompts)) >= FEWEST}


def place(order: Sequence[str], name: str) -> int:
    return list(order).index(name) if name in order else len(order)


def percent(fraction: float) -> str:
    return f"{100 * fraction:g} %"
