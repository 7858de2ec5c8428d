"""How do rewards move when neurons are zeroed, and what does training do again without them?"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores
from tl_reward.show.plots.estimates import curves, distributions
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.findings.ablations import SHARES
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.rows import (
    GROUPS,
    Models,
    by_seed,
    draws,
    edits_of,
    group_rows,
    kinds,
    margins,
    mean_reward,
    percent,
    rows_of,
    tasks_of,
)
from tl_reward.study.table import Table, Value, signed, table
from tl_reward.study.table import interval as text


class Shift(NamedTuple):
    """Rewards of one kind of model on one sub-task before and after its own top neurons are zeroed, all in reward units.

    Attributes:
        reward, moved: mean over all responses, and by how much it moves; `deviation`: its standard deviation over responses, before and
            after, the mean over seeds.
        margin, margin_moved: chosen minus rejected.
    """

    models: Models
    task: str
    share: float
    reward: Estimate
    moved: Estimate
    deviation: tuple[float, float]
    margin: Estimate
    margin_moved: Estimate
    seeds: int


def shifts(matrix: Matrix, ranking: str = "mean") -> list[Shift]:
    found = []
    for models in kinds(matrix):
        for task in tasks_of(matrix, models):
            for share in SHARES:
                columns = [models, models.under(ModelEdit("top", ranking, share))]
                rewards, gaps = rows_of(matrix, columns, task, mean_reward), rows_of(matrix, columns, task, margins)
                if rewards is None or gaps is None:
                    continue
                level, gap = draws([rewards]), draws([gaps])
                seeds = by_seed(matrix, columns, task).values()
                before, after = (float(np.mean([each[i].std() for each in map(_rewards, seeds)])) for i in (0, 1))
                values = [level.column(0), level.change(1), gap.column(0), gap.change(1)]
                reward, moved, margin, margin_moved = (value for value in values if value is not None)
                found.append(Shift(models, task, share, reward, moved, (before, after), margin, margin_moved, level.seeds))
    return found


def _rewards(pair: Sequence[Sequence[Scores]]) -> list[np.ndarray]:
    """All rewards of one seed before and after, of the pairs that both have: edited models may be tested on fewer."""
    both = set(pair[0][0].ids) & set(pair[1][0].ids)
    parts = [scores.take([i for i, name in enumerate(scores.ids) if name in both]) for (scores, *_) in pair]
    return [np.concatenate([part.chosen, part.rejected]) for part in parts]


class ShiftRow(NamedTuple):
    base: str
    objective: str
    sub_task: Annotated[str, "sub-task"]
    share: str
    reward: Value
    moves_by: Value
    deviation: float
    deviation_after: float
    margin: Value
    margin_moves_by: Value
    n: int
    seeds: int


def score_shift(matrix: Matrix) -> Table:
    found = shifts(matrix)
    panels: dict[str, dict[str, np.ndarray]] = {}
    for models in kinds(matrix):
        columns = [models, models.under(ModelEdit("top", "mean", 0.1))]
        seeds = by_seed(matrix, columns, OBJECTIVE_TEST).values()
        for i, name in enumerate(("before", "10 % zeroed")):
            if seeds:
                series = panels.setdefault(f"{models.base}, {models.objective}", {})
                series[name] = np.concatenate([each[i] for each in map(_rewards, seeds)])
    return table(
        "score-shift",
        "Rewards before and after the model's own top neurons by mean are zeroed: mean over all responses and how it moves, standard "
        "deviation over responses, and margin. Reward units; 95 % intervals over n prompts. The figure shows the objective's test pairs.",
        ShiftRow,
        [
            ShiftRow(
                base=each.models.base,
                objective=each.models.objective,
                sub_task=each.task,
                share=percent(each.share),
                reward=text(each.reward),
                moves_by=signed(each.moved),
                deviation=round(each.deviation[0], 3),
                deviation_after=round(each.deviation[1], 3),
                margin=text(each.margin),
                margin_moves_by=signed(each.margin_moved),
                n=each.reward.n,
                seeds=each.seeds,
            )
            for each in found
        ],
        "scores of a model with top neurons by mean zeroed, at 5, 10 or 20 %",
        distributions(panels, "reward (reward units)"),
    )


class Retrained(NamedTuple):
    """Models that were trained again without their top neurons.

    Attributes:
        kind: "masked" or "pruned".
        control: what `change` compares with: "share 0" (trained alike, with all neurons), or "as trained first".
    """

    models: Models
    kind: str
    ranking: str
    share: float
    on: str
    control: str
    before: Estimate
    after: Estimate
    change: Estimate
    seeds: int


def retrained(matrix: Matrix) -> list[Retrained]:
    found = []
    for models in kinds(matrix):
        edits = edits_of(matrix, models)
        for edit in edits:
            if edit.kind not in ("masked", "pruned") or edit.fraction == 0:
                continue
            # A model without a mask is the same of both kinds.
            alike = [each for each in edits if each.kind in ("masked", "pruned") and each.name == edit.name and each.fraction == 0]
            for on in (OBJECTIVE_TEST, *GROUPS):
                columns = [models.under(*(alike[:1] or [ModelEdit()])), models.under(edit)]
                rows = group_rows(matrix, columns, on)
                if rows:
                    done = draws([*rows.values()])
                    before, after, change = (value for value in (done.column(0), done.column(1), done.change(1)) if value is not None)
                    control = "share 0" if alike else "as trained first"
                    found.append(Retrained(models, edit.kind, edit.name, edit.fraction, on, control, before, after, change, done.seeds))
    return found


class RetrainedRow(NamedTuple):
    base: str
    objective: str
    kind: str
    ranking: str
    share: str
    on: str
    control: str
    before: Value
    after: Value
    change: Value
    n: int
    seeds: int


def training_again(matrix: Matrix) -> Table:
    found = retrained(matrix)
    panels: dict[str, dict[str, dict[float, Estimate]]] = {}
    for r in found:
        if r.on == OBJECTIVE_TEST:
            points = panels.setdefault(f"{r.models.base}, {r.models.objective}", {}).setdefault(f"{r.kind}, {r.ranking}", {})
            points |= {0.0: r.before, r.share: r.after}
    return table(
        "training-again",
        "Accuracy of models trained again without their top neurons. Masked: these are zeroed in every forward pass; pruned: their weights "
        "are zero and get no gradient. Before: the control, trained alike with all neurons (share 0) where there is one, else the model "
        "as first trained. 95 % intervals over n prompts.",
        RetrainedRow,
        [
            RetrainedRow(
                base=each.models.base,
                objective=each.models.objective,
                kind=each.kind,
                ranking=each.ranking,
                share=percent(each.share),
                on=each.on,
                control=each.control,
                before=text(each.before),
                after=text(each.after),
                change=signed(each.change),
                n=each.after.n,
                seeds=each.seeds,
            )
            for each in found
        ],
        "models that were trained again with neurons masked or pruned",
        curves(panels, ("neurons left out (%)", "accuracy on the objective's test pairs"), guide=0.5),
    )
