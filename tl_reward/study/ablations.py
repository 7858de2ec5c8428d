"""What breaks when neurons are zeroed: curves over the share zeroed, sub-tasks, groups, and sets of two models in the mixed one."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from tl_reward.scores import Estimate
from tl_reward.study.benchmarks import OBJECTIVE_TEST, group_of
from tl_reward.study.figures import curves, dots
from tl_reward.study.matrix import Edit, Matrix
from tl_reward.study.rows import (
    GROUPS,
    Draws,
    Models,
    by_seed,
    correct,
    draws,
    edits_of,
    group_tasks,
    kinds,
    over_tasks,
    percent,
    ratio,
    rows_of,
    tasks_of,
)
from tl_reward.study.table import Table, signed, table
from tl_reward.study.table import interval as text
from tl_reward.study.transfer import bases_of, mean_kept

SHARES = (0.05, 0.1, 0.2)  # of the tables by sub-task and by set
SETS = ("helpful-only", "harmless-only", "shared")
EDITED = "scores of a model with top neurons zeroed"


class Line(NamedTuple):
    """A model under a kind of edit at some shares: the edits to average at each, such as the draws of random sets."""

    name: str
    edits: dict[float, tuple[Edit, ...]]


class Curve(NamedTuple):
    """Accuracy of one kind of model against the share of neurons edited.

    Attributes:
        on: "objective test", or a group, over whose sub-tasks it is averaged.
        drawn: a column a share, the first (0) unedited.
        tasks: how many sub-tasks.
    """

    cell: Models
    line: str
    on: str
    shares: tuple[float, ...]
    drawn: Draws
    tasks: int


def lines_of(matrix: Matrix, cell: Models) -> list[Line]:
    """Ranked neurons, random ones of the same layers, and patched ones, each with its shares."""
    lines: dict[str, dict[float, tuple[Edit, ...]]] = {}
    for edit in edits_of(matrix, cell):
        if edit.kind in ("top", "random", "patched"):
            name = f"{edit.kind} {edit.name.rpartition(' ')[0] if edit.kind == 'random' else edit.name}"
            shares = lines.setdefault(name, {})
            shares[edit.fraction] = (*shares.get(edit.fraction, ()), edit)
    return [Line(name, edits) for name, edits in sorted(lines.items(), key=lambda item: (not item[0].startswith("top"), item[0]))]


@lru_cache(maxsize=2)  # tables and claims ask for the same; a matrix does not change
def curves_of(matrix: Matrix) -> list[Curve]:
    found = []
    for cell in kinds(matrix):
        for line in lines_of(matrix, cell):
            for on in (OBJECTIVE_TEST, *GROUPS):
                tasks = [task for task in group_tasks(matrix, on) if by_seed(matrix, [cell], task)]
                edited = {share: Models(*cell[:2], edits) for share, edits in sorted(line.edits.items())}
                # A share that lacks a sub-task would be compared over others than the rest of its curve.
                shares = [share for share, each in edited.items() if all(by_seed(matrix, [cell, each], task) for task in tasks)]
                done = over_tasks(matrix, [cell, *(edited[share] for share in shares)], tasks) if shares else None
                if done is not None:
                    found.append(Curve(cell, line.name, on, (0.0, *shares), done, len(tasks)))
    return found


def averaged(found: Sequence[Curve], on: str, line: str) -> tuple[tuple[float, ...], Draws] | None:
    """The mean over all kinds of models, at the shares that each of them has."""
    some = [curve for curve in found if curve.on == on and curve.line == line]
    if not some:
        return None
    shares = tuple(share for share in some[0].shares if all(share in curve.shares for curve in some))
    values = np.mean([curve.drawn.values[:, [curve.shares.index(share) for share in shares]] for curve in some], axis=0)
    return shares, Draws(values, sum(curve.drawn.n for curve in some), min(curve.drawn.seeds for curve in some))


def ablation_curves(matrix: Matrix) -> Table:
    """Each model, and the mean of all."""
    found = curves_of(matrix)
    rows, panels = [], {}
    everything = [(c.cell.base, c.cell.objective, c.line, c.on, c.shares, c.drawn, c.tasks) for c in found]
    for on in (OBJECTIVE_TEST, *GROUPS):
        for line in dict.fromkeys(curve.line for curve in found):
            mean = averaged(found, on, line)
            if mean:
                tasks = max(curve.tasks for curve in found if curve.on == on and curve.line == line)
                everything.append(("mean", "all models", line, on, *mean, tasks))
    for base, objective, line, on, shares, drawn, tasks in everything:
        for i, share in enumerate(shares):
            value, change = drawn.cell(i), drawn.change(i)
            if i:
                rows.append((base, objective, line, percent(share), on, text(drawn.cell(0)), text(value), signed(change), tasks, drawn.n, drawn.seeds))  # fmt: skip # noqa: E501
            if on == OBJECTIVE_TEST and value is not None:
                panels.setdefault(base if base == "mean" else f"{base}, {objective}", {}).setdefault(line, {})[share] = value
    return table(
        "ablation-curves",
        "Accuracy with a share of all neurons zeroed ('patched': set to the helpful model's activations), on the test pairs of the model's "
        "own objective and as the mean over each group's sub-tasks. 'top RANKING': each model's own highest; 'top random': drawn over the "
        "whole model; 'random RANKING': as many of each layer as the ranking has there, draws averaged. 95 % intervals over n prompts; "
        "before and after are compared on the same rows.",
        ("base", "objective", "edit", "share", "on", "before", "after", "change", "sub-tasks", "n", "seeds"),
        rows,
        EDITED,
        curves(panels, ("neurons edited (%)", "accuracy on the objective's test pairs"), guide=0.5),
    )


class Delta(NamedTuple):
    cell: Models
    task: str
    before: Estimate
    changes: dict[float, Estimate]
    seeds: int


def deltas(matrix: Matrix, ranking: str = "mean") -> list[Delta]:
    """The change of each sub-task's accuracy at the shares of `SHARES`."""
    found = []
    for cell in kinds(matrix):
        for task in tasks_of(matrix, cell):
            changes, before, seeds = {}, None, 0
            for share in SHARES:
                part = rows_of(matrix, [cell, Models(*cell[:2], (Edit("top", ranking, share),))], task, correct)
                if part is not None:
                    drawn = draws([part])
                    before, changes[share], seeds = drawn.cell(0), drawn.change(1), drawn.seeds
            if before is not None:
                found.append(Delta(cell, task, before, changes, seeds))
    return found


def sub_task_deltas(matrix: Matrix) -> Table:
    found = deltas(matrix)
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for each in found:
        if 0.1 in each.changes:
            panels.setdefault(each.cell.base, {}).setdefault(each.cell.objective, {})[each.task] = each.changes[0.1]
    return table(
        "sub-task-deltas",
        "Change of each sub-task's accuracy when the model's own top neurons by mean (the study's magnitude) are zeroed, by the share of "
        "all neurons zeroed. 95 % intervals over n prompts, before and after on the same rows. The figure shows 10 %.",
        ("base", "objective", "sub-task", "group", "before", *map(percent, SHARES), "n", "seeds"),
        [
            (*d.cell[:2], d.task, group_of(d.task), text(d.before), *(signed(d.changes.get(s)) for s in SHARES), d.before.n, d.seeds)
            for d in found
        ],
        EDITED + " by mean, at 5, 10 or 20 %",
        dots(panels, "change of accuracy at 10 %", guide=0.0),
    )  # fmt: skip


def drop_of(curve: Curve, share: float) -> Draws | None:
    """The accuracy lost at a share over that before; None where the curve lacks it."""
    if share not in curve.shares[1:]:
        return None
    values = curve.drawn.values
    return curve.drawn._replace(values=1 - ratio(values[:, curve.shares.index(share)], values[:, 0])[:, None])


def relative_drops(matrix: Matrix) -> dict[str, dict[float, Draws]]:
    """By "ranked", and by "random" (of matched layers), and share: the accuracy lost on the objective's test pairs over that before, the
    mean over all models and rankings that have the share. A positive value is a loss."""
    found: dict[str, dict[float, list[Draws]]] = {"ranked": {}, "random": {}}
    for curve in curves_of(matrix):
        kind, _, ranking = curve.line.partition(" ")
        ranked = kind == "top" and ranking != "random"
        if curve.on == OBJECTIVE_TEST and (ranked or kind == "random"):
            for share in curve.shares[1:]:
                drop = drop_of(curve, share)
                assert drop is not None
                found["ranked" if ranked else "random"].setdefault(share, []).append(drop)
    return {
        kind: {
            share: Draws(np.mean([each.values for each in some], axis=0), sum(each.n for each in some), min(each.seeds for each in some))
            for share, some in sorted(shares.items())
        }
        for kind, shares in found.items()
    }


def relative_drop(matrix: Matrix) -> Table:
    found = relative_drops(matrix)
    rows = [
        (kind, percent(share), text(drawn.cell(0)), drawn.n, drawn.seeds)
        for kind, shares in found.items()
        for share, drawn in shares.items()
    ]
    points = {kind: {share: e for share, drawn in shares.items() if (e := drawn.cell(0))} for kind, shares in found.items()}
    return table(
        "relative-drop",
        "Accuracy lost on the objective's test pairs, as a share of that before: mean over every model and every ranking but the random "
        "one, and over layer-matched random sets. 95 % intervals; n counts a prompt once a model and ranking.",
        ("neurons", "share", "relative drop", "n", "seeds"),
        rows,
        EDITED,
        curves({"all models": points}, ("neurons zeroed (%)", "relative drop of accuracy"), guide=0.0) if rows else None,
    )


class SetDrop(NamedTuple):
    """The mixed model with sets of the helpful and the harmless model's top neurons zeroed, at one share.

    Attributes:
        groups: by group, and "all" sub-tasks: accuracy, a column a set that is there, the first unedited.
        kept: transferability, the same columns.
        sets: the names of the columns after the first.
    """

    base: str
    share: float
    sets: tuple[str, ...]
    groups: dict[str, Draws]
    kept: Draws | None


@lru_cache(maxsize=2)
def set_drops(matrix: Matrix) -> list[SetDrop]:
    found = []
    for base in bases_of(matrix):
        edits = [edit for edit in edits_of(matrix, Models(base, "mixed")) if edit.kind == "set"]
        for share in sorted({edit.fraction for edit in edits}):
            names = tuple(name for name in SETS if Edit("set", name, share) in edits)
            columns = [(Edit(),), *((Edit("set", name, share),) for name in names)]
            cells = [Models(base, "mixed", each) for each in columns]
            tasks = {group: group_tasks(matrix, group) for group in GROUPS}
            tasks["all"] = [task for each in tasks.values() for task in each]
            groups = {group: drawn for group, each in tasks.items() if (drawn := over_tasks(matrix, cells, each)) is not None}
            if groups:
                found.append(SetDrop(base, share, names, groups, mean_kept(matrix, base, columns)))
    return found


def set_ablation(matrix: Matrix) -> Table:
    rows, panels = [], {}
    for each in set_drops(matrix):
        for i, name in enumerate(each.sets, 1):
            changes = [drawn.change(i) if (drawn := each.groups.get(group)) else None for group in GROUPS]
            kept = (each.kept.cell(i), each.kept.change(i)) if each.kept else (None, None)
            n, seeds = each.groups["all"].n, each.groups["all"].seeds
            rows.append((each.base, percent(each.share), name, *map(signed, changes), text(kept[0]), signed(kept[1]), n, seeds))
            for group, value in zip((*GROUPS, "transferability"), (*changes, kept[1]), strict=True):
                if value is not None:
                    panels.setdefault(each.base, {}).setdefault(name, {})[f"{group}, {percent(each.share)}"] = value
    return table(
        "set-ablation",
        "The mixed model with sets zeroed that are made from the helpful and the harmless model's top neurons: change of accuracy, mean "
        "over each group's sub-tasks; transferability with the set zeroed, and its change. 95 % intervals over n prompts.",
        ("base", "share", "set", *(f"{g} change" for g in GROUPS), "transferability", "transferability change", "n", "seeds"),
        rows,
        "scores of the mixed model with specific and shared sets zeroed",
        dots(panels, "change", guide=0.0),
    )
