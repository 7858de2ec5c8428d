"""What does the mixed model keep of what the single-objective models can do? Transferability, shared right rows, and their rewards."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, NamedTuple

import numpy as np

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores
from tl_reward.show.plots.estimates import distributions, dots
from tl_reward.study.benchmarks import OBJECTIVE_TEST, TIES, group_of
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.rows import (
    FEWEST,
    Draws,
    Models,
    Rows,
    by_seed,
    kinds,
    mean_of,
    pooled,
    prompts_of,
    shared,
    shares_of,
    tasks_of,
)
from tl_reward.study.table import Table, Value, signed, table
from tl_reward.study.table import interval as text

TRIO = "scores of all three kinds of models on one sub-task"
# Columns of `_sets`: rows right in either of two models, and in both.
_COLUMNS = (
    "single",  # the helpful or the harmless model has it right
    "kept",  # of these, the mixed one too
    "mixed or helpful",
    "mixed and helpful",
    "mixed or harmless",
    "mixed and harmless",
    "helpful or harmless",
    "helpful and harmless",
)


class Transfer(NamedTuple):
    """Of the mixed models of one base on one sub-task; None where no row counts.

    Attributes:
        kept: of the rows that the helpful or the harmless model has right, the share that the mixed one has right too.
        helpful, harmless: the Jaccard index of its right rows and theirs; `singles` of theirs.
        n: prompts of the sub-task. Each estimate's own n is of those alone that have a row in its denominator.
    """

    base: str
    task: str
    kept: Estimate | None
    helpful: Estimate | None
    harmless: Estimate | None
    singles: Estimate | None
    n: int
    seeds: int


def bases_of(matrix: Matrix) -> list[str]:
    return list(dict.fromkeys(models.base for models in kinds(matrix)))


def benchmark_tasks(matrix: Matrix) -> list[str]:
    """Every sub-task but the test pairs of an objective, which differ by model."""
    return [task for task in tasks_of(matrix) if task != OBJECTIVE_TEST]


def right_sets(matrix: Matrix, base: str, task: str, edits: Sequence[tuple[ModelEdit, ...]] = ((ModelEdit(),),)) -> Rows | None:
    """By row, the columns of `_COLUMNS` with the mixed model under each of the edits, side by side; averaged over seeds."""
    columns = [Models(base, "helpful"), Models(base, "harmless"), *(Models(base, "mixed", each) for each in edits)]
    seeds = by_seed(matrix, columns, task)
    if not seeds:
        return None
    margins = {seed: [[scores.row_margins() for scores in column] for column in found] for seed, found in seeds.items()}
    names = shared(part for found in margins.values() for column in found for part in column)
    if not names:
        return None
    values = []
    for found in margins.values():
        right = [[np.array([part[name] > 0 for name in names]) for part in column] for column in found]
        helpful, harmless = right[0][0], right[1][0]
        values.append(np.concatenate([np.mean([_sets(helpful, harmless, one) for one in column], axis=0) for column in right[2:]], axis=1))
    prompts = prompts_of(next(iter(seeds.values()))[0][0])
    return Rows(np.mean(values, axis=0), tuple(prompts[name] for name in names), len(seeds))


def _sets(helpful: np.ndarray, harmless: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    single = helpful | harmless
    pairs = ((mixed, helpful), (mixed, harmless), (helpful, harmless))
    columns = [single, single & mixed, *(each for a, b in pairs for each in (a | b, a & b))]
    return np.stack(columns, axis=1).astype(float)


def transfers(matrix: Matrix) -> list[Transfer]:
    found = []
    for base in bases_of(matrix):
        for task in benchmark_tasks(matrix):
            rows = right_sets(matrix, base, task)
            if rows is not None:
                shares = [shares_of(rows, [i + 1], i) for i in range(0, len(_COLUMNS), 2)]
                kept, helpful, harmless, singles = (share.column(0) if share else None for share in shares)
                found.append(Transfer(base, task, kept, helpful, harmless, singles, len(set(rows.prompts)), rows.seeds))
    return found


def mean_kept(matrix: Matrix, base: str, edits: Sequence[tuple[ModelEdit, ...]]) -> Draws | None:
    """Transferability under each edit: the mean over the sub-tasks, Ties left out, of which the single-objective models have rows of
    `FEWEST` prompts or more right."""
    found = [rows for task in benchmark_tasks(matrix) if task != TIES and (rows := right_sets(matrix, base, task, edits)) is not None]
    kept = [shares_of(rows, [len(_COLUMNS) * i + 1 for i in range(len(edits))], 0) for rows in found]
    usable = [part for part in kept if part is not None and part.n >= FEWEST]
    return mean_of(usable) if usable else None


class TransferRow(NamedTuple):
    base: str
    sub_task: Annotated[str, "sub-task"]
    group: str
    transferability: Value
    mixed_helpful: Annotated[Value, "mixed–helpful"]
    mixed_harmless: Annotated[Value, "mixed–harmless"]
    helpful_harmless: Annotated[Value, "helpful–harmless"]
    n: int
    n_that_count: int
    seeds: int


def transferability(matrix: Matrix) -> Table:
    found = transfers(matrix)
    panels = {
        base: {
            name: {each.task: value for each in found if each.base == base and (value := getattr(each, key)) is not None}
            for name, key in (("transferability", "kept"), ("Jaccard with helpful", "helpful"), ("Jaccard with harmless", "harmless"))
        }
        for base in bases_of(matrix)
    }
    return table(
        "transferability",
        "Of the rows that the helpful or the harmless model has right, the share that the mixed one has right too (transferability); and "
        "Jaccard indices of the rows that two kinds of models have right. A row is right when min(chosen) > max(rejected); ties are not. "
        "Models of one seed are compared, then seeds averaged; 95 % intervals over prompts. n: prompts of the sub-task; n that count: "
        "those with a row that transferability is a share of.",
        TransferRow,
        [
            TransferRow(
                base=each.base,
                sub_task=each.task,
                group=group_of(each.task),
                transferability=text(each.kept),
                mixed_helpful=text(each.helpful),
                mixed_harmless=text(each.harmless),
                helpful_harmless=text(each.singles),
                n=each.n,
                n_that_count=each.kept.n if each.kept else 0,
                seeds=each.seeds,
            )
            for each in found
        ],
        TRIO,
        dots(panels, "share of rows"),
    )


class Both(NamedTuple):
    """Rewards on the rows that a single-objective and the mixed model both have right.

    Attributes:
        drawn: mean reward over all candidates of a row, of the single-objective and of the mixed model; then the margins of both,
            min(chosen) - max(rejected).
        rows: that both have right in any seed.
        rewards: of the single-objective and of the mixed model, a number a row and seed.
    """

    base: str
    objective: str
    drawn: Draws
    rows: int
    rewards: tuple[np.ndarray, np.ndarray]


@lru_cache(maxsize=2)  # tables and claims ask for the same; a matrix does not change
def both_right(matrix: Matrix) -> list[Both]:
    found = []
    for base in bases_of(matrix):
        for objective in ("helpful", "harmless"):
            both = [Models(base, objective), Models(base, "mixed")]
            parts, rewards, counted = dict[str, Rows](), ([], []), 0
            for task in benchmark_tasks(matrix):
                seeds = by_seed(matrix, both, task) if task != TIES else {}
                tables = [[_levels(one[0]), _levels(other[0])] for one, other in seeds.values()]
                names = shared(each for pair in tables for each in pair) if tables else []
                if not names:
                    continue
                values = np.array([[list(zip(one[name], other[name], strict=True)) for one, other in tables] for name in names])
                values = values.reshape(len(names), len(tables), 4)  # [row, seed]: both rewards, then both margins
                right = (values[:, :, 2] > 0) & (values[:, :, 3] > 0)
                counted += int(right.any(1).sum())
                rewards[0].append(values[:, :, 0][right])
                rewards[1].append(values[:, :, 1][right])
                columns = np.concatenate([right[:, :, None], np.where(right[:, :, None], values, 0)], axis=2).mean(1)
                prompts = prompts_of(next(iter(seeds.values()))[0][0])
                parts[task] = Rows(columns, tuple(prompts[name] for name in names), len(seeds))
            drawn = shares_of(pooled(parts), range(1, 5), 0) if parts else None
            if drawn is not None:
                levels = (np.concatenate(rewards[0]), np.concatenate(rewards[1]))
                found.append(Both(base, objective, drawn, counted, levels))
    return found


def _levels(scores: Scores) -> dict[str, tuple[float, float]]:
    """By row: the mean reward of all its candidates, and its smallest margin."""
    sums: dict[str, list[float]] = {}
    for group, chosen, rejected in zip(scores.groups, scores.chosen.tolist(), scores.rejected.tolist(), strict=True):
        sums.setdefault(group, []).append((chosen + rejected) / 2)
    return {group: (float(np.mean(sums[group])), margin) for group, margin in scores.row_margins().items()}


class BothRightRow(NamedTuple):
    base: str
    objective: str
    reward: Value
    reward_mixed: Annotated[Value, "reward, mixed"]
    difference: Value
    margin: Value
    margin_mixed: Annotated[Value, "margin, mixed"]
    rows: int
    n: int
    seeds: int


def rewards_both_right(matrix: Matrix) -> Table:
    found = both_right(matrix)
    panels = {f"{e.base}, {e.objective} and mixed": {e.objective: e.rewards[0], "mixed": e.rewards[1]} for e in found}
    return table(
        "rewards-both-right",
        "Rewards on the rows that a single-objective and the mixed model both have right, all sub-tasks' rows together (Ties left out): "
        "mean reward over all candidates, and margin. 95 % intervals over n prompts. "
        "Training fixes differences of rewards, not their level.",
        BothRightRow,
        [
            BothRightRow(
                base=each.base,
                objective=each.objective,
                reward=text(each.drawn.column(0)),
                reward_mixed=text(each.drawn.column(1)),
                difference=signed(each.drawn.change(0, before=1)),
                margin=text(each.drawn.column(2)),
                margin_mixed=text(each.drawn.column(3)),
                rows=each.rows,
                n=each.drawn.n,
                seeds=each.drawn.seeds,
            )
            for each in found
        ],
        TRIO,
        distributions(panels, "mean reward of a row's candidates (reward units)"),
    )
