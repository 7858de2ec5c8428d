"""Each table, against numbers computed by hand; what is missing; and how tables are written."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.study_matrices import BASE, HARMLESS, HELPFUL, OWN, TOP, best_of_nine, found, pairs, scored, whole

from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.neurons import NeuronSet
from tl_reward.study.findings.ablations import ALL, ablation_curves, relative_drop, sub_task_deltas
from tl_reward.study.findings.accuracy import accuracies, margins_on_right_rows, rm_bench_styles, sub_task_accuracy
from tl_reward.study.findings.claim_estimates import drop
from tl_reward.study.findings.convention_counts import convention_table
from tl_reward.study.findings.overlaps import depth_of_top, top_overlap
from tl_reward.study.findings.set_ablations import set_ablation
from tl_reward.study.findings.shifts import score_shift, training_again
from tl_reward.study.findings.transfer import rewards_both_right, transferability
from tl_reward.study.matrix import Found, Matrix, Model, ModelEdit
from tl_reward.study.report.all_tables import TABLES, tables_of
from tl_reward.study.rows import Models, group_rows
from tl_reward.study.table import Interval, Table, latex, markdown, signed
from tl_reward.study.top_sets import cut, percentile_set, study_regions

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "reproduction" / "tables"


def rows(table: Table, **where) -> list[dict]:
    """The rows that have these values in these columns; intervals as their first number."""
    named = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    kept = [row for row in named if all(row[key.replace("_", "-" if "_task" in key else " ")] == value for key, value in where.items())]
    return [{key: number(value) for key, value in row.items()} for row in kept]


def number(value):
    try:
        return round(float(str(value).split(" [")[0]), 3)
    except ValueError:
        return value


@pytest.mark.parametrize("make", TABLES)
def test_an_empty_matrix_gives_no_rows_and_says_what_is_missing(make):
    table = make(Matrix())
    assert table.rows == () and table.figure is None
    assert "Not computed: this run has no " in table.caption and "Not computed" in table.to_markdown()
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [list(table.columns)]


def test_a_whole_matrix_fills_every_table():
    tables = tables_of(whole())
    assert [table.name for table in tables if not table.rows] == []
    assert [table.name for table in tables if table.figure is None] == ["conventions"]
    assert len({table.name for table in tables}) == len(tables) == 14


def test_headers_are_those_of_the_published_report():
    for table in tables_of(Matrix()):
        with (PUBLISHED / f"{table.name}.csv").open(newline="", encoding="utf-8") as file:
            published = next(csv.reader(file))
        assert [name for name in published if not name.endswith((" low", " high"))] == list(table.columns)


def test_sub_task_accuracy():
    table = sub_task_accuracy(whole())
    (helpful,) = rows(table, objective="helpful", sub_task=HELPFUL)
    assert (helpful["accuracy"], helpful["rows"], helpful["n"], helpful["seeds"], helpful["group"]) == (0.5, 40, 40, 1, "Helpful")
    (chat,) = rows(table, objective="helpful", sub_task="RM-Bench chat")
    assert (chat["accuracy"], chat["whole rows"], chat["rows"], chat["n"]) == (0.667, 0, 10, 10)  # 6 of 9 pairs, and not the row
    (own,) = rows(table, objective="mixed", sub_task=OWN)
    assert (own["accuracy"], own["group"]) == (0.75, "")


def test_a_row_of_several_pairs_is_right_when_all_are():
    runs = {
        (Model(BASE, "mixed", 0), ModelEdit()): {"RewardBench 2 Focus": pairs([1, -1, 2, 2, 0, 1], groups=["a", "a", "b", "b", "c", "c"])}
    }
    (focus,) = rows(sub_task_accuracy(Matrix(runs)))
    assert (focus["accuracy"], focus["rows"]) == (0.5, 3)  # wrong, right, and a tie


def test_seeds_are_averaged_row_by_row_and_intervals_are_those_of_scores():
    runs = scored({"mixed": {ModelEdit(): {OWN: [1, 1, -1, 1]}}}) | scored({"mixed": {ModelEdit(): {OWN: [1, -1, -1]}}}, seed=1)
    (found_,) = accuracies(Matrix(runs))
    assert (found_.accuracy.value, found_.seeds, found_.accuracy.n) == (0.5, 2, 3)  # the row that one seed lacks is left out
    values = np.random.default_rng(0).choice([-1.0, 1.0], 300)
    (mine,) = accuracies(Matrix(scored({"mixed": {ModelEdit(): {OWN: values.tolist()}}})))
    theirs = bootstrap_mean((values > 0).astype(float))
    assert mine.accuracy == pytest.approx(theirs, abs=0.01)


def test_rm_bench_styles():
    runs = {(Model(BASE, "mixed", 0), ModelEdit()): {"RM-Bench chat": best_of_nine([[1, -1, -1], [1, 0, 1], [1, 1, 1]])}}
    (chat,) = rows(rm_bench_styles(Matrix(runs)))
    assert (chat["easy"], chat["normal"], chat["hard"]) == (1, 0.833, 0.333)


def test_transferability_and_jaccard():
    table = transferability(whole())
    (row,) = rows(table, sub_task=HELPFUL)  # helpful 1100, harmless 0110, mixed 1110: 1 right
    assert (row["transferability"], row["mixed–helpful"], row["mixed–harmless"], row["helpful–harmless"]) == (1, 0.667, 0.667, 0.333)
    (turned,) = rows(table, sub_task=HARMLESS)  # helpful 0011, harmless 1001, mixed 0001
    assert (turned["transferability"], turned["mixed–helpful"], turned["n"]) == (0.333, 0.5, 40)
    (chat,) = rows(table, sub_task="RM-Bench chat")  # of whole rows, only the mixed model has one right
    assert (chat["transferability"], chat["mixed–helpful"]) == ("–", 0)
    assert rows(table, sub_task=OWN) == []


def test_transferability_compares_models_of_one_seed():
    runs = {}
    for seed, (helpful, mixed) in enumerate([([1, -1], [1, -1]), ([-1, 1], [-1, -1])]):
        margins = {"helpful": helpful, "harmless": [-1, -1], "mixed": mixed}
        runs |= scored({objective: {ModelEdit(): {HELPFUL: each}} for objective, each in margins.items()}, seed=seed)
    (row,) = rows(transferability(Matrix(runs)))
    assert (row["transferability"], row["seeds"]) == (0.5, 2)


def test_rewards_and_margins_on_right_rows():
    runs = scored({"helpful": {ModelEdit(): {HELPFUL: [2, 4, -1]}}, "mixed": {ModelEdit(): {HELPFUL: [1, -1, 1]}}})
    (row,) = rows(rewards_both_right(Matrix(runs)))  # the first row alone: rewards 2 and 0, and 1 and 0
    assert [row[key] for key in ("reward", "reward, mixed", "difference", "margin", "margin, mixed", "rows")] == [1, 0.5, 0.5, 2, 1, 1]
    margins = margins_on_right_rows(Matrix(runs))
    assert [row["margin on right rows"] for row in rows(margins)] == [3, 1]
    assert [row["share right"] for row in rows(margins)] == [0.667, 0.667]


def test_overlap_and_depth():
    table = top_overlap(whole())  # 3 of 30 neurons: expected overlap 0.3
    named = {row["models"]: row for row in rows(table)}
    assert [named[name]["Jaccard"] for name in ("helpful–harmless", "mixed–helpful", "mixed–harmless")] == [0.2, 0.5, 0.5]
    assert {row["chance"] for row in rows(table)} == {round(0.3 / 5.7, 3), "–"}
    assert named["helpful–harmless"]["chance, layers matched"] == round(0.3 / 5.7, 3) and named["helpful–harmless"]["shared"] == 1
    # helpful or harmless: (0,0) (1,0) (2,0) (1,1) (2,1); mixed: (0,0) (1,0) (2,1), all among them
    assert named["(helpful ∪ harmless) ∩ mixed / all three"]["Jaccard"] == 0.6
    (depth, *_) = rows(depth_of_top(Matrix(found=found({"helpful": [(0, 0), (2, 0), (2, 1)]}))))
    assert (depth["early"], depth["middle"], depth["late"], depth["ties at the cut"]) == (0.333, 0, 0.667, 0)
    (tied,) = rows(depth_of_top(Matrix(found=found({"helpful": [(0, 0)]}))))  # two more by place, of 29 with 0
    assert tied["ties at the cut"] == 27


def test_overlap_has_a_range_over_seeds():
    both = found({"helpful": [(0, 0), (0, 1), (0, 2)], "mixed": [(0, 0), (0, 1), (0, 2)]})
    both |= found({"helpful": [(0, 0), (0, 1), (0, 2)], "mixed": [(1, 0), (1, 1), (1, 2)]}, seed=1)
    (row,) = top_overlap(Matrix(found=both)).rows
    assert str(row[3]) == "0.500 [0.000, 1.000]" and row[-1] == 2


def test_ablation_curves():
    table = ablation_curves(whole())
    (own,) = rows(table, objective="helpful", edit="top mean", on=OWN)
    assert (own["before"], own["after"], own["change"], own["sub-tasks"]) == (0.5, 0.25, -0.25, 1)
    (group,) = rows(table, objective="helpful", edit="top mean", on="Helpful")
    assert (group["before"], group["after"], group["sub-tasks"], group["n"]) == (0.583, 0.292, 2, 50)
    (random,) = rows(table, objective="helpful", edit="random mean", on=OWN)
    assert random["after"] == 0.75  # two draws, 0.5 and 1
    (mean,) = rows(table, base=ALL, edit="top mean", on=OWN)
    # The three models are tested on the same 40 prompts, which count once.
    assert (mean["before"], mean["after"], mean["objective"], mean["n"]) == (0.583, 0.25, "all", 40)


def test_a_share_that_one_seed_lacks_is_over_the_others_alone():
    later = ModelEdit("top", "mean", 0.2)
    runs = scored({"helpful": {ModelEdit(): {OWN: [1, 1]}, TOP: {OWN: [1, -1]}, later: {OWN: [1, 1]}}})
    runs |= scored({"helpful": {ModelEdit(): {OWN: [-1, 1]}, TOP: {OWN: [-1, -1]}}}, seed=1)
    found_ = rows(ablation_curves(Matrix(runs)), on=OWN, base=BASE)
    assert [(row["share"], row["before"], row["after"], row["seeds"]) for row in found_] == [("10 %", 0.75, 0.25, 2), ("20 %", 1, 1, 1)]


def test_a_prompt_that_models_share_is_drawn_once_for_all():
    """Two models that answer alike are no more certain than one, also where one of them left a prompt out."""
    margins = np.random.default_rng(1).choice([-1.0, 1.0], 200).tolist()
    one = scored({"mixed": {ModelEdit(): {OWN: margins}, TOP: {OWN: margins}}})
    other = scored({"mixed": {ModelEdit(): {OWN: margins[:-1]}, TOP: {OWN: margins[:-1]}}}, base="gpt2")
    table = ablation_curves(Matrix(one | other))
    widths = []
    for base in (BASE, ALL):
        (row,) = [row for row in table.rows if row[0] == base and row[4] == OWN]
        before = row[5]
        assert isinstance(before, Interval)
        widths.append(before.estimate.high - before.estimate.low)
        assert row[-2] == 200
    assert widths[1] == pytest.approx(widths[0], rel=0.03) and widths[0] == pytest.approx(2 * 1.96 * 0.5 / 200**0.5, rel=0.1)


def test_no_mean_goes_over_a_sub_task_of_fewer_than_ten_prompts():
    tasks = {"HH-RLHF helpful": [1] * 9 + [-1], HELPFUL: [-1] * 9}
    for edit in (ModelEdit(), TOP):
        assert list(group_rows(Matrix(scored({"mixed": {edit: tasks}})), [Models(BASE, "mixed", (edit,))], "Helpful")) == [
            "HH-RLHF helpful"
        ]
    (group,) = rows(ablation_curves(Matrix(scored({"mixed": {ModelEdit(): tasks, TOP: tasks}}))), base=BASE)
    assert (group["before"], group["sub-tasks"], group["n"]) == (0.9, 1, 10)
    few = {"HH-RLHF helpful": [1] * 9}
    assert ablation_curves(Matrix(scored({"mixed": {ModelEdit(): few, TOP: few}}))).rows == ()


def test_a_share_that_lacks_a_sub_task_is_left_out_of_its_groups_curve_alone():
    later, other = ModelEdit("top", "mean", 0.2), "HH-RLHF helpful"
    edits = {ModelEdit(): {HELPFUL: [1, 1], other: [1, 1], OWN: [1, 1]}, TOP: {HELPFUL: [1, -1], other: [1, 1], OWN: [1, -1]}}
    # Sub-tasks on which only the unedited model was tested are no part of the curve.
    edits[ModelEdit()]["RM-Bench math"] = [1, 1]
    runs = scored({"helpful": edits | {later: {OWN: [-1, -1], other: [1, 1]}}}, times=10)
    table = ablation_curves(Matrix(runs))
    assert [row["after"] for row in rows(table, on=OWN, base=BASE)] == [0.5, 0]
    assert [(row["share"], row["after"], row["sub-tasks"]) for row in rows(table, on="Helpful", base=BASE)] == [("10 %", 0.75, 2)]


def test_relative_drop():
    named = {row["neurons"]: row["relative drop"] for row in rows(relative_drop(whole()))}
    assert named["ranked"] == pytest.approx((0.5 + 0.5 + 2 / 3) / 3, abs=6e-4)
    assert named["random"] == pytest.approx(-(0.5 + 0.5 + 1 / 6) / 3, abs=6e-4)
    # Beside random sets stand only the ranked ones of the models that have them.
    lacking = {key: tasks for key, tasks in whole().scores.items() if (key[0].objective, key[1].kind) != ("mixed", "random")}
    named = {row["neurons"]: row["relative drop"] for row in rows(relative_drop(Matrix(lacking)))}
    assert named["ranked"] == pytest.approx((0.5 + 0.5 + 2 / 3) / 3, abs=6e-4)
    assert (named["ranked, where random fits"], named["random"]) == (0.5, -0.5)


def test_drops_at_two_shares_are_of_the_same_rankings():
    """Entropy ranks too few neurons for the larger share: what is larger there is not what it lacks."""
    edits = {ModelEdit(): [1, 1], TOP: [1, -1], ModelEdit("top", "mean", 0.2): [1, -1], ModelEdit("top", "entropy", 0.1): [1, 1]}
    matrix = Matrix(scored({"mixed": {edit: {OWN: margins} for edit, margins in edits.items()}}, times=10))
    found_ = rows(relative_drop(matrix))
    assert [(row["relative drop"], row["models × rankings"]) for row in found_] == [(0.25, 2), (0.5, 1)]
    larger = drop(matrix, 0.2, less_share=0.1)
    assert larger is not None and larger.value == 0


def test_no_model_with_few_prompts_enters_a_mean_over_models():
    few = scored({"mixed": {ModelEdit(): {OWN: [1, 1]}, TOP: {OWN: [-1, -1]}}}, base="gpt2")
    edits = {ModelEdit(): {OWN: [1, 1]}, TOP: {OWN: [1, -1]}}
    enough = scored({"mixed": edits, "helpful": edits}, times=10)
    (drop_,) = rows(relative_drop(Matrix(few | enough)))
    (mean,) = rows(ablation_curves(Matrix(few | enough)), base=ALL)
    assert (drop_["relative drop"], drop_["n"], mean["after"], mean["n"]) == (0.5, 20, 0.5, 20)
    assert relative_drop(Matrix(few)).rows == () and rows(ablation_curves(Matrix(few)), base=ALL) == []


def test_the_mean_over_models_goes_over_their_common_sub_tasks():
    both = {HELPFUL: [1, 1], "HH-RLHF helpful": [1, 1]}
    runs = scored({"mixed": {ModelEdit(): both, TOP: {HELPFUL: [1, -1], "HH-RLHF helpful": [-1, -1]}}}, times=10)
    runs |= scored({"mixed": {ModelEdit(): {HELPFUL: [1, 1]}, TOP: {HELPFUL: [-1, -1]}}}, base="gpt2", times=10)
    table = ablation_curves(Matrix(runs))
    assert [(row["after"], row["sub-tasks"]) for row in rows(table, base=BASE)] == [(0.25, 2)]
    assert [(row["after"], row["sub-tasks"]) for row in rows(table, base=ALL)] == [(0.25, 1)]  # HELPFUL: a half, and nothing


def test_sub_task_deltas():
    (row,) = rows(sub_task_deltas(whole()), objective="harmless", sub_task=HELPFUL)
    assert (row["before"], row["5 %"], row["10 %"], row["20 %"]) == (0.5, "–", -0.25, "–")


def test_set_ablation():
    named = {row["set"]: row for row in rows(set_ablation(whole()))}
    # Helpful: RM-Bench chat (1 before; 2/3, 1, 1/3 after) and RMB helpful (3/4 before; 2/4, 3/4, 1/4 after).
    assert [named[name]["Helpful change"] for name in ("helpful-only", "harmless-only", "shared")] == [-0.292, 0, -0.583]
    # Transferability with the shared set zeroed: RMB helpful 0010 of 1110, and RMB harmless 1101 of 1011.
    assert named["shared"]["transferability"] == pytest.approx((1 / 3 + 2 / 3) / 2, abs=6e-4)
    assert named["shared"]["transferability change"] == pytest.approx(0.5 - (1 + 1 / 3) / 2, abs=6e-4)


def test_a_ratio_is_drawn_over_the_rows_that_count():
    """Of 60 rows one is right in the helpful model: what the mixed one keeps of it is no estimate over 60 prompts."""
    margins = {"helpful": [1] + [-1] * 59, "harmless": [-1] * 60, "mixed": [1] * 60}
    matrix = Matrix(scored({name: {ModelEdit(): {HELPFUL: each}} for name, each in margins.items()}))
    (row,) = rows(transferability(matrix))
    assert (row["transferability"], row["n"], row["n that count"]) == (1, 60, 1)
    assert [(both["n"], both["rows"]) for both in rows(rewards_both_right(matrix))] == [(1, 1)]
    assert [row["n"] for row in rows(margins_on_right_rows(matrix), objective="helpful")] == [1]
    sets = {ModelEdit("set", name, 0.1): {HELPFUL: [1] * 60} for name in ("helpful-only", "shared")}
    edited = Matrix({**matrix.scores, **scored({"mixed": sets})})
    assert {row["transferability"] for row in rows(set_ablation(edited))} == {"–"}


def test_ties_are_no_part_of_means():
    """The study has not this sub-task; a table by sub-task shows it."""
    ties = "RewardBench 2 Ties"
    right, wrong = [1.0] * 20, [-1.0] * 20
    runs = {name: {ModelEdit(): {HELPFUL: right, ties: right}} for name in ("helpful", "harmless")}
    runs["mixed"] = {edit: {HELPFUL: right, ties: wrong} for edit in (ModelEdit(), ModelEdit("set", "shared", 0.1))}
    matrix = Matrix(scored(runs))
    (row,) = rows(set_ablation(matrix))
    assert row["transferability"] == 1
    assert {row["sub-task"]: row["transferability"] for row in rows(transferability(matrix))} == {HELPFUL: 1, ties: 0}
    assert [row["rows"] for row in rows(rewards_both_right(matrix))] == [20, 20]


def test_score_shift():
    runs = {(Model(BASE, "mixed", 0), ModelEdit()): {OWN: pairs([2, 2])}, (Model(BASE, "mixed", 0), TOP): {OWN: pairs([1, 1], rejected=3)}}
    (row,) = rows(score_shift(Matrix(runs)))  # rewards 2 and 0, then 4 and 3
    assert [row[key] for key in ("reward", "moves by", "deviation", "deviation after", "margin", "margin moves by")] == [
        1, 2.5, 1, 0.5, 2, -1,
    ]  # fmt: skip
    # An edited model may be tested on fewer pairs: what is compared is of these.
    fewer = {(Model(BASE, "mixed", 0), ModelEdit()): {OWN: pairs([2, 2, 90])}, (Model(BASE, "mixed", 0), TOP): {OWN: pairs([2, 2])}}
    table = score_shift(Matrix(fewer))
    (row,) = rows(table)
    assert (row["deviation"], row["deviation after"], row["moves by"]) == (1, 1, 0)
    assert table.figure is not None
    before, after = table.figure.to_dict()["data"]
    assert list(before["y"]) == list(after["y"])


def test_training_again_is_compared_with_its_control():
    (row,) = rows(training_again(whole()), objective="helpful", on=OWN)
    assert (row["kind"], row["control"], row["before"], row["after"]) == ("pruned", "share 0", 0.75, 0.5)
    runs = scored({"mixed": {ModelEdit(): {OWN: [1, 1]}, ModelEdit("masked", "mean", 0.1): {OWN: [1, -1]}}})
    (alone,) = rows(training_again(Matrix(runs)))
    assert (alone["control"], alone["change"]) == ("as trained first", -0.5)


def test_conventions_count_what_they_change():
    score = torch.zeros(3, 10)
    score[0, 0], score[1, 1] = 5, -7  # 3 neurons: the first, and two by place; by percentile all that are at least 0
    rounded = torch.zeros(3, 10)
    rounded[2, 7] = 5
    beside = {"abs_mean": score.abs(), "change_ms": 9 - score, "mean, bfloat16 sums": rounded}
    matrix = Matrix(found={Model(BASE, "helpful", 0): Found({"mean": score, "change": score}, beside)})
    named = {row["convention of the study"]: row for row in rows(convention_table(matrix)) if row["ranking"] == "mean"}
    exact = named["score >= percentile, for the exact count"]
    assert (exact["ours"], exact["study"], exact["in one only"]) == (3, 29, 26)
    assert named["signed mean, for the mean size"]["in one only"] == 2  # the strongly negative one takes another's place
    exact = named["sums in bfloat16, for float64, both with the exact count"]
    assert (exact["ours"], exact["study"], exact["in one only"]) == (3, 3, 2) and named["both"]["study"] == 30
    (root,) = rows(convention_table(matrix), ranking="change", convention_of_the_study="mean square, for its root")
    assert root["in one only"] == 2  # 4 and 16 change places
    pair = found({"helpful": [(0, 0), (1, 0), (1, 1)], "harmless": [(0, 0), (0, 1), (2, 2)]})
    (shared,) = rows(convention_table(Matrix(found=pair)), objective="helpful and harmless")
    assert (shared["ours"], shared["study"], shared["in one only"]) == (1, 4, 3)  # layers 1 and 2 are in one set only


def test_the_studys_own_functions():
    one, other = NeuronSet([(0, 1), (1, 4)]), NeuronSet([(1, 4), (1, 5), (2, 0)])
    assert study_regions(one, other, ("a", "b")) == {
        "a-only": NeuronSet([(0, 1)]), "b-only": NeuronSet([(1, 5), (2, 0)]), "shared": NeuronSet([(0, 1), (1, 4), (2, 0)]),
    }  # fmt: skip
    distinct = torch.arange(30.0).reshape(3, 10)
    assert percentile_set(distinct, 0.1) == NeuronSet.top(distinct, fraction=0.1)
    assert len(percentile_set(torch.zeros(3, 10), 0.1)) == 30
    rounded = Found({"mean": distinct}, {"mean, bfloat16 sums": distinct.clamp(max=20)})
    assert cut(rounded, "mean", 0.1, "ours") == NeuronSet.top(distinct, fraction=0.1)
    tied = cut(rounded, "mean", 0.1, "study")
    assert tied is not None and len(tied) == 10  # all that tie at 20


def test_entropy_ranks_the_neurons_that_fire_often_and_no_others():
    score = torch.zeros(3, 10)
    score[1, :3] = 0.5
    found = Found({"entropy": score, "mean": score})
    assert cut(found, "entropy", 0.1, "ours") == NeuronSet([(1, 0), (1, 1), (1, 2)])
    assert cut(found, "entropy", 0.2, "ours") is cut(found, "entropy", 0.2, "study") is None
    by_mean = cut(found, "mean", 0.2, "ours")
    assert by_mean is not None and len(by_mean) == 6


HOSTILE = "<script>x</script> | `a` _b_ $c$ \\d {e} 50% & ~^\n=1+1"


def test_tables_are_written_without_markup():
    table = Table(
        "a-table", HOSTILE, ("name", "#"), ((HOSTILE, 0.12345), ("=SUM(A1)", 3), ("-1+2|cmd", 1), (signed(Estimate(0.1, -0.2, 0.3, 9)), 2))
    )
    text = table.to_markdown()
    assert "<" not in text.replace("&lt;", "") and "\\|" in text and "\\`a\\`" in text and "\\$c\\$" in text
    assert len(text.splitlines()) == 1 + 1 + 2 + 4  # a line end in a name is none in the file
    assert "| 0.123 |" in text and "| +0.100 \\[-0.200, +0.300\\] | 2 |" in text
    read = list(csv.reader(io.StringIO(table.to_csv())))
    # A column with an interval is three of numbers.
    assert read[0] == ["name", "name low", "name high", "#"] and read[1] == [HOSTILE, "", "", "0.12345"]
    assert read[2][0] == "'=SUM(A1)" and read[3][0] == "'-1+2|cmd" and read[4] == ["0.1", "-0.2", "0.3", "2"]
    written = table.to_latex()
    assert r"\textless{}script\textgreater{}" in written and r"\_b\_ \$c\$ \textbackslash{}d \{e\} 50\% \& \textasciitilde{}" in written
    assert r"\begin{tabular}{lr}" in written and written.count(r"\\") == 1 + 4
    assert latex("a#b") == r"a\#b" and markdown("a*b") == r"a\*b"


def test_hostile_names_stay_text_in_figures():
    runs = scored({"mixed": {ModelEdit(): {HOSTILE: [1, -1]}}})
    table = sub_task_accuracy(Matrix(runs))
    assert table.figure is not None and table.rows[0][2:4] == (HOSTILE, "")
    labels = table.figure.layout.yaxis.ticktext
    assert "<" not in labels[0] and "$" not in labels[0] and "&lt;script&gt;" in labels[0]


def test_tables_are_made_without_the_model_code():
    code = "import sys, tl_reward.study.findings.claims, tl_reward.study.report.write, tl_reward.study.report.all_tables\n"
    code += 'assert not {"transformer_lens", "transformers", "tl_reward.model.reward_model"} & set(sys.modules)'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
