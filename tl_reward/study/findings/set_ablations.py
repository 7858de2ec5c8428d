"""What breaks in the mixed model when sets of the helpful and the harmless model's top neurons are zeroed?"""

from functools import lru_cache
from typing import Annotated, NamedTuple

from tl_reward.measures.intervals import Estimate
from tl_reward.show.plots.estimates import dots
from tl_reward.study.benchmarks import OBJECTIVE_TEST
from tl_reward.study.findings.transfer import bases_of, mean_kept
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.rows import FEWEST, GROUPS, Draws, Models, draws, edits_of, group_rows, mean_of, over_deviation, percent
from tl_reward.study.table import Table, Value, signed, table
from tl_reward.study.table import interval as text

SETS = ("helpful-only", "harmless-only", "shared")


class SetDrop(NamedTuple):
    """The mixed model with sets of the helpful and the harmless model's top neurons zeroed, at one share.

    Attributes:
        groups: by group, "all" of their sub-tasks, and the objective's test pairs: accuracy, a column a set that is there, the first
            unedited.
        kept: transferability, the same columns.
        margins: in standard deviations (`rows.over_deviation`), over the sub-tasks of "all", the same columns.
        sets: the names of the columns after the first.
    """

    base: str
    share: float
    sets: tuple[str, ...]
    groups: dict[str, Draws]
    kept: Draws | None
    margins: Draws | None


@lru_cache(maxsize=2)
def set_drops(matrix: Matrix) -> list[SetDrop]:
    found = []
    for base in bases_of(matrix):
        edits = [edit for edit in edits_of(matrix, Models(base, "mixed")) if edit.kind == "set"]
        for share in sorted({edit.fraction for edit in edits}):
            names = tuple(name for name in SETS if ModelEdit("set", name, share) in edits)
            edited = [(ModelEdit(),), *((ModelEdit("set", name, share),) for name in names)]
            columns = [Models(base, "mixed", each) for each in edited]
            rows = {group: list(group_rows(matrix, columns, group).values()) for group in GROUPS}
            rows["all"] = [part for parts in rows.values() for part in parts]
            tasks = [task for group in GROUPS for task in group_rows(matrix, columns, group)]
            margins = [drawn for task in tasks if (drawn := over_deviation(matrix, columns, task)) is not None]
            rows[OBJECTIVE_TEST] = list(group_rows(matrix, columns, OBJECTIVE_TEST).values())
            groups = {group: draws(parts) for group, parts in rows.items() if parts}
            if groups:
                found.append(SetDrop(base, share, names, groups, mean_kept(matrix, base, edited), mean_of(margins) if margins else None))
    return found


class SetRow(NamedTuple):
    base: str
    share: str
    set: str
    helpful: Annotated[Value, "Helpful change"]
    harmless: Annotated[Value, "Harmless change"]
    own: Annotated[Value, f"{OBJECTIVE_TEST} change"]
    transferability: Value
    transferability_change: Value
    n: int
    seeds: int


def set_ablation(matrix: Matrix) -> Table:
    rows: list[SetRow] = []
    panels: dict[str, dict[str, dict[str, Estimate]]] = {}
    for each in set_drops(matrix):
        for i, name in enumerate(each.sets, 1):
            changes = {group: drawn.change(i) for group, drawn in each.groups.items()}
            kept, lost = (each.kept.column(i), each.kept.change(i)) if each.kept else (None, None)
            there = mean_of([*each.groups.values()])
            helpful, harmless, own = (signed(changes.get(group)) for group in (*GROUPS, OBJECTIVE_TEST))
            row = SetRow(each.base, percent(each.share), name, helpful, harmless, own, text(kept), signed(lost), there.n, there.seeds)
            rows.append(row)
            for group in (*GROUPS, OBJECTIVE_TEST, "transferability"):
                value = lost if group == "transferability" else changes.get(group)
                if value is not None:
                    panels.setdefault(each.base, {}).setdefault(name, {})[f"{group}, {percent(each.share)}"] = value
    return table(
        "set-ablation",
        "The mixed model with sets zeroed that are made from the helpful and the harmless model's top neurons: change of accuracy, mean "
        f"over each group's sub-tasks of {FEWEST} prompts or more, and on its test pairs; transferability with the set zeroed, and its "
        "change. 95 % intervals over the n prompts of all.",
        SetRow,
        rows,
        "scores of the mixed model with specific and shared sets zeroed",
        dots(panels, "change of accuracy or transferability", guide=0.0),
    )
