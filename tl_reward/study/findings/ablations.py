"""What breaks when neurons are zeroed? Curves over the share zeroed, sub-tasks, and groups."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Annotated, Literal, NamedTuple

import numpy as np

from tl_reward.measures.intervals import Estimate
from tl_reward.show.plots.estimates import curves, dots
from tl_reward.study.benchmarks import OBJECTIVE_TEST, group_of
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.rows import (
    FEWEST,
    GROUPS,
    Draws,
    Models,
    Rows,
    correct,
    draws,
    edits_of,
    group_rows,
    kinds,
    mean_of,
    over_deviation,
    percent,
    ratio,
    rows_of,
    tasks_of,
)
from tl_reward.study.table import Table, Value, signed, table
from tl_reward.study.table import interval as text

Unit = Literal["accuracy", "margin"]  # see `claim_estimates`
SHARES = (0.05, 0.1, 0.2)  # of the tables by sub-task and by set
ALL = "mean of all models"
EDITED = "scores of a model with top neurons zeroed"


class Line(NamedTuple):
    """A model under a kind of edit at some shares: the edits to average at each, such as the draws of random sets."""

    name: str
    edits: dict[float, tuple[ModelEdit, ...]]


class Curve(NamedTuple):
    """Accuracy of one kind of model against the share of neurons edited.

    Attributes:
        on: "objective test", or a group, over whose sub-tasks it is averaged.
        rows: by share, and by sub-task, which are the same at each: before and after, over the same rows and seeds; a share that some
            seed lacks is over the others.
    """

    models: Models
    line: str
    on: str
    rows: dict[float, dict[str, Rows]]

    @property
    def tasks(self) -> set[str]:
        return set(next(iter(self.rows.values())))

    def at(self, share: float, tasks: Collection[str]) -> Draws:
        """The mean over these sub-tasks: a column before, and one after."""
        return draws([part for task, part in self.rows[share].items() if task in tasks])


def lines_of(matrix: Matrix, models: Models) -> list[Line]:
    """Ranked neurons, random ones of the same layers, and patched ones, each with its shares."""
    lines: dict[str, dict[float, tuple[ModelEdit, ...]]] = {}
    for edit in edits_of(matrix, models):
        if edit.kind in ("top", "random", "patched"):
            name = f"{edit.kind} {edit.name.rpartition(' ')[0] if edit.kind == 'random' else edit.name}"
            shares = lines.setdefault(name, {})
            shares[edit.fraction] = (*shares.get(edit.fraction, ()), edit)
    return [Line(name, edits) for name, edits in sorted(lines.items(), key=lambda item: (not item[0].startswith("top"), item[0]))]


@lru_cache(maxsize=2)  # tables and claims ask for the same; a matrix does not change
def curves_of(matrix: Matrix) -> list[Curve]:
    found = []
    for models in kinds(matrix):
        for line in lines_of(matrix, models):
            for on in (OBJECTIVE_TEST, *GROUPS):
                edited = {share: models.under(*edits) for share, edits in sorted(line.edits.items())}
                rows = {share: group_rows(matrix, [models, each], on) for share, each in edited.items()}
                # A share that lacks a sub-task would be compared over others than the rest of its curve.
                most = max(rows.values(), key=len)
                if most:
                    found.append(Curve(models, line.name, on, {share: each for share, each in rows.items() if each.keys() == most.keys()}))
    return found


def averaged(found: Sequence[Curve], on: str, line: str) -> tuple[set[str], dict[float, Draws]]:
    """The mean over all kinds of models, at the shares and over the sub-tasks that each of them has; nothing where there are not two. No
    model enters with less than `FEWEST` prompts."""
    some = [curve for curve in found if curve.on == on and curve.line == line and _enough(curve)]
    if len(some) < 2:
        return set(), {}
    tasks = set.intersection(*(curve.tasks for curve in some))
    shares = [share for share in some[0].rows if tasks and all(share in curve.rows for curve in some)]
    return tasks, {share: mean_of([curve.at(share, tasks) for curve in some]) for share in shares}


def _enough(curve: Curve) -> bool:
    return all(len(set(part.prompts)) >= FEWEST for each in curve.rows.values() for part in each.values())


class CurveRow(NamedTuple):
    base: str
    objective: str
    edit: str
    share: str
    on: str
    before: Value
    after: Value
    change: Value
    sub_tasks: Annotated[int, "sub-tasks"]
    n: int
    seeds: int


def ablation_curves(matrix: Matrix) -> Table:
    """Each model, and the mean of all."""
    found = curves_of(matrix)
    rows: list[CurveRow] = []
    panels: dict[str, dict[str, dict[float, Estimate]]] = {}
    everything = [
        (c.models.base, c.models.objective, c.line, c.on, c.tasks, {share: c.at(share, c.tasks) for share in c.rows}) for c in found
    ]
    for on in (OBJECTIVE_TEST, *GROUPS):
        for line in dict.fromkeys(curve.line for curve in found):
            everything.append((ALL, "all", line, on, *averaged(found, on, line)))
    for base, objective, line, on, tasks, points in everything:
        for share, drawn in points.items():
            before, after = drawn.column(0), drawn.column(1)
            values = {"before": text(before), "after": text(after), "change": signed(drawn.change(1))}
            size = {"sub_tasks": len(tasks), "n": drawn.n, "seeds": drawn.seeds}
            rows.append(CurveRow(base, objective, line, percent(share), on, **values, **size))
            if on == OBJECTIVE_TEST and before is not None and after is not None:
                shown = panels.setdefault(base if base == ALL else f"{base}, {objective}", {}).setdefault(line, {0.0: before})
                shown[share] = after
    return table(
        "ablation-curves",
        "Accuracy with a share of all neurons zeroed ('patched': set to the helpful model's activations), on the test pairs of the model's "
        "own objective and as the mean over each group's sub-tasks. 'top RANKING': each model's own highest; 'top random': drawn over the "
        "whole model; 'random RANKING': as many of each layer as the ranking has there, draws averaged. 95 % intervals over n prompts; "
        f"before and after are compared on the same rows. {ALL[0].upper()}{ALL[1:]}: over all models that were tested so, and their common "
        "sub-tasks. Beside ranked neurons that are more than half of a layer there is no room for random ones.",
        CurveRow,
        rows,
        EDITED,
        curves(panels, ("neurons edited (%)", "accuracy on the objective's test pairs"), guide=0.5),
    )


class Delta(NamedTuple):
    models: Models
    task: str
    before: Estimate
    changes: dict[float, Estimate]
    seeds: int


def deltas(matrix: Matrix, ranking: str = "mean") -> list[Delta]:
    """The change of each sub-task's accuracy at the shares of `SHARES`."""
    found = []
    for models in kinds(matrix):
        for task in tasks_of(matrix, models):
            changes, before, seeds = {}, None, 0
            for share in SHARES:
                part = rows_of(matrix, [models, models.under(ModelEdit("top", ranking, share))], task, correct)
                if part is not None:
                    drawn = draws([part])
                    before, changes[share], seeds = drawn.column(0), drawn.change(1), drawn.seeds
            if before is not None:
                found.append(Delta(models, task, before, changes, seeds))
    return found


class DeltaRow(NamedTuple):
    base: str
    objective: str
    sub_task: Annotated[str, "sub-task"]
    group: str
    before: Value
    at_5: Annotated[Value, percent(0.05)]
    at_10: Annotated[Value, percent(0.1)]
    at_20: Annotated[Value, percent(0.2)]
    n: int
    seeds: int


def sub_task_deltas(matrix: Matrix) -> Table:
    found = deltas(matrix)
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for each in found:
        if 0.1 in each.changes:
            panels.setdefault(each.models.base, {}).setdefault(each.models.objective, {})[each.task] = each.changes[0.1]
    return table(
        "sub-task-deltas",
        "Change of each sub-task's accuracy when the model's own top neurons by mean (the study's magnitude) are zeroed, by the share of "
        "all neurons zeroed. 95 % intervals over n prompts, before and after on the same rows. The figure shows 10 %.",
        DeltaRow,
        [
            DeltaRow(
                base=each.models.base,
                objective=each.models.objective,
                sub_task=each.task,
                group=group_of(each.task),
                before=text(each.before),
                at_5=signed(each.changes.get(0.05)),
                at_10=signed(each.changes.get(0.1)),
                at_20=signed(each.changes.get(0.2)),
                n=each.before.n,
                seeds=each.seeds,
            )
            for each in found
        ],
        EDITED + " by mean, at 5, 10 or 20 %",
        dots(panels, "change of accuracy at 10 %", guide=0.0),
    )


class Drops(NamedTuple):
    """Accuracy lost on the objective's test pairs, as a share of that before; or margin lost, in standard deviations of the rewards of each
    condition. A positive value is a loss.

    Attributes:
        drawn: a column for each of several edits, the mean over `lines`.
        lines: how many kinds of models and rankings are averaged.
    """

    drawn: Draws
    lines: int


def drops(matrix: Matrix, *shares: float, unit: Unit = "accuracy") -> Drops | None:
    """Of top neurons zeroed, a column a share: over every kind of model and every ranking but the random one that have all of them."""
    lines = [(models, line) for models in kinds(matrix) for line in lines_of(matrix, models)]
    ranked = [(models, line) for models, line in lines if line.name.startswith("top ") and line.name != "top random"]
    some = [(models, [line.edits[share] for share in shares]) for models, line in ranked if set(shares) <= set(line.edits)]
    return _drops(matrix, some, unit)


def drops_beside_random(matrix: Matrix, share: float, *, objective: str | None = None, unit: Unit = "accuracy") -> Drops | None:
    """Of top neurons, and of random ones of the same layers: over the kinds of models, seeds and rankings that have both, or of one
    objective's models by mean. Beside more than half of a layer no random set fits."""
    lines = [(models, line) for models in kinds(matrix) for line in lines_of(matrix, models)]
    random = [(models, line) for models, line in lines if line.name.startswith("random ") and share in line.edits]
    if objective is not None:
        random = [(models, line) for models, line in random if (models.objective, line.name) == (objective, "random mean")]
    some = [(models, [(ModelEdit("top", line.name.removeprefix("random "), share),), line.edits[share]]) for models, line in random]
    return _drops(matrix, some, unit)


def _drops(matrix: Matrix, lines: Sequence[tuple[Models, Sequence[tuple[ModelEdit, ...]]]], unit: Unit) -> Drops | None:
    """Of kinds of models, each with its edits. No model enters with less than `FEWEST` prompts."""
    found = []
    for models, edits in lines:
        columns = [models, *(models.under(*each) for each in edits)]
        rows = rows_of(matrix, columns, OBJECTIVE_TEST, correct)
        if rows is None or len(set(rows.prompts)) < FEWEST:
            continue
        if unit == "accuracy":
            drawn = draws([rows])
            lost = np.stack([1 - ratio(drawn.values[:, i], drawn.values[:, 0]) for i in range(1, len(edits) + 1)], axis=1)
            found.append(drawn._replace(values=lost))
        elif (drawn := over_deviation(matrix, columns, OBJECTIVE_TEST)) is not None:
            found.append(drawn._replace(values=drawn.values[:, :1] - drawn.values[:, 1:]))
    return Drops(mean_of(found), len(found)) if found else None


class DropRow(NamedTuple):
    neurons: str
    share: str
    relative_drop: Value
    lines: Annotated[int, "models × rankings"]
    n: int
    seeds: int


def relative_drop(matrix: Matrix) -> Table:
    rows: list[DropRow] = []
    points: dict[str, dict[float, Estimate]] = {"ranked": {}, "ranked, where random fits": {}, "random": {}}
    for share in sorted({edit.fraction for _, edit in matrix.scores if edit.kind == "top"}):
        alone, beside = drops(matrix, share), drops_beside_random(matrix, share)
        for name, found, column in zip(points, (alone, beside, beside), (0, 0, 1), strict=True):
            value = found.drawn.column(column) if found else None
            if found and value:
                rows.append(DropRow(name, percent(share), text(value), found.lines, value.n, found.drawn.seeds))
                points[name][share] = value
    return table(
        "relative-drop",
        "Accuracy lost on the objective's test pairs, as a share of that before: mean over every kind of model and every ranking but the "
        "random one that have the share (entropy ranks only the neurons that fire often); and, where as many random neurons of the same "
        "layers fit beside the ranked ones, of both. 95 % intervals over n prompts.",
        DropRow,
        rows,
        EDITED,
        curves(
            {"all models": {name: some for name, some in points.items() if some}},
            ("neurons zeroed (%)", "relative drop of accuracy"),
            guide=0.0,
        ),
    )
