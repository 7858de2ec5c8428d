"""Which tables does the study have?"""

from tl_reward.study.findings.ablations import ablation_curves, relative_drop, sub_task_deltas
from tl_reward.study.findings.accuracy import margins_on_right_rows, rm_bench_styles, sub_task_accuracy
from tl_reward.study.findings.convention_counts import convention_table
from tl_reward.study.findings.overlaps import depth_of_top, top_overlap
from tl_reward.study.findings.set_ablations import set_ablation
from tl_reward.study.findings.shifts import score_shift, training_again
from tl_reward.study.findings.transfer import rewards_both_right, transferability
from tl_reward.study.matrix import Matrix
from tl_reward.study.table import Table

__all__ = ["TABLES", "Table", "tables_of"]

TABLES = (
    sub_task_accuracy,
    rm_bench_styles,
    transferability,
    rewards_both_right,
    margins_on_right_rows,
    top_overlap,
    depth_of_top,
    ablation_curves,
    relative_drop,
    sub_task_deltas,
    set_ablation,
    score_shift,
    training_again,
    convention_table,
)


def tables_of(matrix: Matrix) -> list[Table]:
    """All of them; one for which the matrix lacks the cells has no rows, and says what is missing."""
    return [make(matrix) for make in TABLES]
