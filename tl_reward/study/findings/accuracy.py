"""How right is each kind of reward model? By sub-task, by RM-Bench style, and by how much on the rows that it has right."""

from typing import Annotated, NamedTuple

import numpy as np

from tl_reward.data.styles import style_of
from tl_reward.measures.intervals import Estimate
from tl_reward.show.plots.estimates import dots
from tl_reward.study.benchmarks import by_pairs, group_of
from tl_reward.study.matrix import Matrix
from tl_reward.study.rows import (
    Models,
    Rows,
    by_seed,
    correct,
    draws,
    kinds,
    pooled,
    prompts_of,
    rows_of,
    shared,
    shares_of,
    take,
    tasks_of,
    whole_rows,
)
from tl_reward.study.table import Table, Value, table
from tl_reward.study.table import interval as text

SCORES = "scores of an unedited model"


class Accuracy(NamedTuple):
    """Of one kind of model on one sub-task; `whole` is the share of rows with every pair right, `dropped` the over-long pairs (of seeds,
    the most)."""

    models: Models
    task: str
    accuracy: Estimate
    whole: Estimate
    rows: int
    dropped: int
    seeds: int


def accuracies(matrix: Matrix) -> list[Accuracy]:
    found = []
    for models in kinds(matrix):
        for task in tasks_of(matrix, models):
            part, whole = rows_of(matrix, [models], task, correct), rows_of(matrix, [models], task, whole_rows)
            if part is not None and whole is not None:
                values = draws([part]).column(0), draws([whole]).column(0)
                assert values[0] is not None and values[1] is not None
                dropped = max(scores.dropped for (each,) in by_seed(matrix, [models], task).values() for scores in each)
                found.append(Accuracy(models, task, values[0], values[1], len(whole.prompts), dropped, part.seeds))
    return found


class AccuracyRow(NamedTuple):
    base: str
    objective: str
    sub_task: Annotated[str, "sub-task"]
    group: str
    accuracy: Value
    whole_rows: Value
    rows: int
    over_long: Annotated[int, "over-long"]
    n: int
    seeds: int


def sub_task_accuracy(matrix: Matrix) -> Table:
    """The study's radar of sub-tasks by objective, as points with intervals."""
    found = accuracies(matrix)
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for each in found:
        panels.setdefault(each.models.base, {}).setdefault(each.models.objective, {})[each.task] = each.accuracy
    return table(
        "sub-task-accuracy",
        "Accuracy of each kind of reward model on each sub-task, with 95 % intervals over n prompts, averaged over seeds. A row with "
        "several candidates is right when min(chosen) > max(rejected); RM-Bench counts each of its nine style pairs, as it is defined, and "
        "its whole rows are beside. A tie counts half. RewardBench 2 is counted as it is published: a row whose right answer shares the "
        "highest reward counts by how many share it, and Ties has a score of its own, up to 1.01. Over-long: pairs that were left out. "
        "'objective test': the test pairs of the model's own objective.",
        AccuracyRow,
        [
            AccuracyRow(
                base=each.models.base,
                objective=each.models.objective,
                sub_task=each.task,
                group=group_of(each.task),
                accuracy=text(each.accuracy),
                whole_rows=text(each.whole),
                rows=each.rows,
                over_long=each.dropped,
                n=each.accuracy.n,
                seeds=each.seeds,
            )
            for each in found
        ],
        SCORES,
        dots(panels, "accuracy", guide=0.5),
    )


class StylesRow(NamedTuple):
    base: str
    objective: str
    sub_task: Annotated[str, "sub-task"]
    easy: Value
    normal: Value
    hard: Value
    n: int
    seeds: int


def rm_bench_styles(matrix: Matrix) -> Table:
    """RM-Bench's easy, normal and hard pairs."""
    rows: list[StylesRow] = []
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for models in kinds(matrix):
        for task in filter(by_pairs, tasks_of(matrix, models)):
            part = rows_of(matrix, [models], task, correct)
            seeds = by_seed(matrix, [models], task)
            if part is None:
                continue
            names = shared(correct(task, scores) for (each,) in seeds.values() for scores in each)
            styles = np.array([style_of(name) for name in names])
            values: dict[str, Estimate | None] = {}
            for style in ("easy", "normal", "hard"):
                here = styles == style
                values[style] = value = draws([take(part, here)]).column(0) if here.any() else None
                if value:
                    panels.setdefault(models.base, {}).setdefault(models.objective, {})[f"{task}, {style}"] = value
            shown = {style: text(value) for style, value in values.items()}
            rows.append(StylesRow(models.base, models.objective, task, **shown, n=len(set(part.prompts)), seeds=part.seeds))
    return table(
        "rm-bench-styles",
        "RM-Bench by style: easy pairs have the better answer styled more (more detail, then markdown), normal ones alike, hard ones less. "
        "95 % intervals over n prompts.",
        StylesRow,
        rows,
        "RM-Bench",
        dots(panels, "accuracy", guide=0.5),
    )


def right_margins(matrix: Matrix, compared: list[Models], tasks: list[str]) -> Rows | None:
    """For each kind of model two columns: whether it has a row right, and the row's margin if so, else 0. All sub-tasks' rows together."""
    parts = dict[str, Rows]()
    for task in tasks:
        seeds = by_seed(matrix, compared, task)
        found = [[scores.row_margins() for each in seeds.values() for scores in each[i]] for i in range(len(compared))]
        names = shared(margins for each in found for margins in each) if seeds else []
        if names:
            margins = np.array([[[part[name] for part in each] for each in found] for name in names])  # [row, kind of model, seed]
            values = np.concatenate([(margins > 0).mean(2), np.maximum(margins, 0).mean(2)], axis=1)
            prompts = prompts_of(next(iter(seeds.values()))[0][0])
            parts[task] = Rows(values, tuple(prompts[name] for name in names), len(seeds))
    return pooled(parts) if parts else None


class MarginsRow(NamedTuple):
    base: str
    objective: str
    sub_task: Annotated[str, "sub-task"]
    group: str
    margin_on_right_rows: Value
    share_right: float
    n: int
    seeds: int


def margins_on_right_rows(matrix: Matrix) -> Table:
    """The study's confidence by model type."""
    rows: list[MarginsRow] = []
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for models in kinds(matrix):
        for task in tasks_of(matrix, models):
            part = right_margins(matrix, [models], [task])
            if part is None:
                continue
            drawn, share = shares_of(part, [1], 0), draws([part]).column(0)
            value = drawn.column(0) if drawn else None
            if value is not None and share is not None:
                rows.append(
                    MarginsRow(
                        base=models.base,
                        objective=models.objective,
                        sub_task=task,
                        group=group_of(task),
                        margin_on_right_rows=text(value),
                        share_right=round(share.value, 3),
                        n=value.n,
                        seeds=part.seeds,
                    )
                )
                panels.setdefault(models.base, {}).setdefault(models.objective, {})[task] = value
    return table(
        "margins-on-right-rows",
        "Mean margin on the rows that a model has right: min(chosen) - max(rejected), in its own reward units (95 % interval over the n "
        "prompts that have such rows), and the share of rows that are right.",
        MarginsRow,
        rows,
        SCORES,
        dots(panels, "margin on right rows (reward units)"),
    )
