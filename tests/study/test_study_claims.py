"""Every branch of the verdicts' rule, and that each claim is judged from the right numbers."""

from dataclasses import replace

import pytest
from helpers.study_matrices import HARMLESS, HELPFUL, OWN, TOP, found, scored, whole

from tl_reward.measures.intervals import Estimate
from tl_reward.study.findings.claims import NEURONS, Claim, Judged, Verdict, claims, claims_table, judge
from tl_reward.study.matrix import Matrix, ModelEdit

FALLS = Claim("it falls", "below", -0.1, "s")
RISES = Claim("it rises", "above", 0.1, "s")
NUMBER = Claim("it is 0.7", "number", 0.7, "s", tolerance=0.03)


@pytest.mark.parametrize(
    ("claim", "ours", "word", "why"),
    [
        (FALLS, (-0.08, -0.12, -0.04), "agrees", "claimed side"),
        (RISES, (0.08, 0.04, 0.12), "agrees", "claimed side"),
        (FALLS, (0.08, 0.04, 0.12), "differs", "other side"),
        (RISES, (-0.08, -0.12, -0.04), "differs", "other side"),
        (FALLS, (0.0, -0.04, 0.04), "differs", "below half of the study"),  # half-width 0.04 < 0.05
        (FALLS, (0.0, -0.05, 0.05), "cannot be tested here", "too wide"),  # just not
        (RISES, (0.06, -0.01, 0.13), "cannot be tested here", "too wide"),
        (RISES, (0.048, -0.002, 0.098), "cannot be tested here", "too wide"),  # holds 0, and the claimed effect too
        (RISES._replace(study=None), (0.0, -0.001, 0.001), "cannot be tested here", "no effect"),
        (RISES._replace(study=None), (0.1, 0.05, 0.15), "agrees", "claimed side"),
        (RISES._replace(tolerance=0.01), (0.009, 0.009, 0.009), "differs", "below half of the study"),
        (RISES._replace(tolerance=0.01), (0.011, 0.011, 0.011), "agrees", "claimed side"),
        (RISES._replace(tolerance=0.01), (-0.011, -0.011, -0.011), "differs", "other side"),
        (NUMBER, (0.72, 0.71, 0.73), "agrees", "within the tolerance"),
        (NUMBER, (0.74, 0.69, 0.79), "agrees", "in our interval"),
        (NUMBER, (0.74, 0.73, 0.75), "differs", "off by 0.04, more than the tolerance of 0.03"),
        (NUMBER, (0.9, 0.8, 1.0), "differs", "off by 0.2,"),  # wide, and still elsewhere
        (NUMBER, (0.7, 0.6, 0.8), "cannot be tested here", "too wide"),
    ],
)
def test_the_rule(claim, ours, word, why):
    value, low, high = ours
    judged = judge(claim, Estimate(value, low, high, 100))
    assert judged.word == word and why in judged.why


def test_an_empty_matrix_can_test_nothing_and_says_what_is_missing():
    verdicts = claims(Matrix())
    assert len(verdicts) >= 15 and {each.judged.word for each in verdicts} == {"cannot be tested here"}
    assert all(each.judged.why.startswith("no ") and each.ours is None for each in verdicts)
    table = claims_table(verdicts)
    assert f"{len(verdicts)} claims" in table.caption and f"{len(verdicts)} cannot be tested here" in table.caption
    assert {row[4] for row in table.rows} == {"–"}


def test_every_claim_is_there_once():
    texts = [each.claim.text for each in claims(whole())]
    assert len(set(texts)) == len(texts)
    assert [each.claim.text for each in claims(Matrix())] == texts


def claimed(matrix: Matrix, start: str) -> Verdict:
    (only,) = [each for each in claims(matrix) if each.claim.text.startswith(start)]
    return only


def value(matrix: Matrix, start: str) -> Estimate:
    ours = claimed(matrix, start).ours
    assert ours is not None
    return ours


def test_figures_come_from_the_right_scores():
    matrix = whole()
    assert value(matrix, "SmolLM2-135M: the helpful model has 70.3%").value == 0.5
    assert claimed(matrix, "SmolLM2-1.7B: the helpful model has").ours is None
    # RM-Bench chat: of each row's nine pairs, the helpful model has two columns of three right.
    assert value(matrix, "SmolLM2-135M: the helpful model has 50.1% of RM-Bench chat").value == pytest.approx(2 / 3)
    # Helpful sub-tasks are RM-Bench chat and RMB helpful: 2/3 and 2/4 before, 1/3 and 1/4 after.
    change = value(matrix, "SmolLM2-135M: zeroing the helpful model's top 10 % by magnitude costs Helpful")
    assert change.value == pytest.approx((1 / 3 + 1 / 4) / 2 - (2 / 3 + 2 / 4) / 2)
    assert claimed(matrix, "mean over base models: zeroing the helpful model's top 10 % by magnitude costs Helpful").ours is None
    # Test pairs: 2/4, 2/4 and 3/4 right before, 1/4 after: half, half and two thirds are lost.
    assert value(matrix, "Zeroing the top neurons costs a relative 11.5%").value == pytest.approx((0.5 + 0.5 + 2 / 3) / 3)
    # Two random draws, the first as before, the second all right: a gain of 0.5, 0.5 and 1/6, relative to what was there.
    random = -((0.75 / 0.5 - 1) * 2 + (0.875 / 0.75 - 1)) / 3
    assert value(matrix, "Random neurons matter less").value == pytest.approx((0.5 + 0.5 + 2 / 3) / 3 - random)
    assert value(matrix, "SmolLM2-135M: the top 10 % of mixed and helpful have").value == pytest.approx(2 / 4)
    assert value(matrix, "mixed and helpful share more of their top 10 % than mixed and harmless").value == pytest.approx(0)
    assert value(matrix, "mixed and harmless share more of their top 10 % than helpful and").value == pytest.approx(2 / 4 - 1 / 5)
    assert value(matrix, "helpful and harmless share more of their top 10 % than chance").value == pytest.approx(1 / 5 - 0.3 / 5.7)
    assert value(matrix, "More of the helpful model's top 10 % lie late than early").value == 0


def of(margins_by_task, objective="mixed", **kwargs):
    return scored({objective: {ModelEdit(): margins_by_task}}, **kwargs)


def test_differences_between_two_models_or_sub_tasks():
    refuse, respond = "RM-Bench safety-refuse", "RM-Bench safety-response"
    runs = of({refuse: [1] * 9 + [-1] * 3, respond: [-1] * 12}, "harmless") | of({refuse: [-1] * 6 + [1] * 6}, "mixed")
    assert value(Matrix(runs), "RM-Bench: the harmless model refuses where it should more than it answers").value == 0.75
    assert value(Matrix(runs), "RM-Bench: the mixed model refuses where it should less than the harmless").value == 0.25
    assert claimed(Matrix(runs), "RM-Bench: the mixed model answers where it should more than the harmless").ours is None
    tops = found({"helpful": [(0, 0), (2, 0), (2, 1)], "harmless": [(0, 0), (0, 1), (2, 1)]})
    assert value(Matrix(found=tops), "The helpful model's top 10 % lie later than the harmless one's").value == pytest.approx(1 / 3)


def test_transferability_claims():
    focus = "RewardBench 2 Focus"
    runs = of({focus: [1] * 16}, "helpful") | of({focus: [-1] * 16}, "harmless") | of({focus: [1] * 4 + [-1] * 12}, "mixed")
    assert value(Matrix(runs), f"The mixed model's transferability on {focus}")[::3] == (0.25, 16)
    sets = {ModelEdit("set", "shared", 0.1): {focus: [-1] * 16}, ModelEdit("set", "helpful-only", 0.1): {focus: [1, -1] * 2 + [-1] * 12}}
    matrix = Matrix(runs | scored({"mixed": sets}))
    start = "Shared neurons matter most: at 10%, zeroing the shared set in the mixed model costs more transferability than the helpful"
    assert value(matrix, start).value == 0.125


def verdict(matrix: Matrix, start: str) -> Judged:
    return claimed(matrix, start).judged


def test_no_verdict_rests_on_few_prompts_or_on_such_as_answer_alike():
    task, start = "RM-Bench safety-refuse", "SmolLM2-135M: the harmless model has 92.3%"
    alike = verdict(Matrix(of({task: [1] * 30}, "harmless")), start)
    assert alike == ("cannot be tested here", "all 30 prompts answer alike, which leaves no interval")
    assert verdict(Matrix(of({task: [1] * 8 + [-1]}, "harmless")), start).why == "too few prompts for an interval: 9"
    assert verdict(Matrix(of({task: [1] * 60 + [-1] * 60}, "harmless")), start).word == "differs"
    # One row of 60 is right in both: its rewards say nothing of the others.
    margins = {"helpful": [1] + [-1] * 59, "mixed": [1] * 60}
    lone = scored({name: {ModelEdit(): {HELPFUL: each}} for name, each in margins.items()})
    assert verdict(Matrix(lone), "On rows that both have right, the helpful").why == "too few prompts for an interval: 1"


def test_sets_are_compared_by_what_they_cost():
    matrix = whole()
    # Accuracy with the shared set zeroed minus that with the helpful-only set: RM-Bench chat 1/3 and 2/3, RMB helpful 1/4 and 2/4,
    # RMB harmless (all margins turned) 3/4 and 2/4. What shared costs more is the mean of these, turned.
    ours = value(
        matrix, "Shared neurons matter most: at 10%, zeroing the shared set in the mixed model costs more accuracy than the helpful"
    )
    assert ours.value == pytest.approx(((2 / 3 + 2 / 4) / 1 - (1 / 3 + 1 / 4) + (2 / 4 - 3 / 4)) / 3)


COSTS = "SmolLM2-135M: zeroing the helpful model's top 10 % by magnitude costs Helpful"


@pytest.mark.parametrize(
    ("after", "scale", "change", "word"),
    [
        # Before: chosen answers have 1 and 3, rejected ones 0. Of all rewards the mean is 1, the variance 10 / 4 - 1; the mean margin is 2.
        ([1, 3], 1, 0, "cannot be tested here"),
        ([1, 3], 5, 0, "cannot be tested here"),  # in standard deviations of its own rewards nothing moves
        ([1, 1], 1, 1 / 0.5 - 2 / 1.5**0.5, "differs"),
        ([0.1, 0.3], 1, 0, "cannot be tested here"),
        ([0.5, 4.5], 1, 2.5 / (20.5 / 4 - 1.25**2) ** 0.5 - 2 / 1.5**0.5, "agrees"),  # as often right as before
    ],
)
def test_a_second_verdict_is_by_margin_in_standard_deviations(after, scale, change, word):
    edits = {ModelEdit(): [1, 3, 1, 3], TOP: [scale * each for each in after * 2]}
    runs = scored({"helpful": {edit: {HELPFUL: margins} for edit, margins in edits.items()}}, times=50)
    judged = claimed(Matrix(runs), COSTS)
    assert judged.judged.word == "cannot be tested here" and judged.judged.why.startswith("all 200 prompts answer alike")
    assert judged.by_margin is not None and judged.judged_by_margin is not None
    assert judged.by_margin.value == pytest.approx(change, abs=1e-12)
    assert judged.judged_by_margin.word == word
    table = claims_table(claims(Matrix(runs)))
    (row,) = [dict(zip(table.columns, row, strict=True)) for row in table.rows if str(row[2]).startswith(COSTS)]
    assert row["verdict by margin"] == word and row["verdict"] == "cannot be tested here"
    assert "standard deviations of the rewards of each condition" in table.caption and "80 cannot be tested here" in table.caption


def test_a_margin_is_of_each_seed_and_draw_by_itself():
    """Rewards of two models may differ in level and scale as they like: that is no deviation of either."""
    one = scored({"helpful": {ModelEdit(): {HELPFUL: [1, 3]}, TOP: {HELPFUL: [1, 1]}}}, times=50)
    other = {(model._replace(seed=1), edit): tasks for (model, edit), tasks in one.items()}
    far = {key: {task: replace(each, chosen=9 * each.chosen + 1000, rejected=9 * each.rejected + 1000) for task, each in tasks.items()}
           for key, tasks in other.items()}  # fmt: skip
    margins = [claimed(Matrix(one | more), COSTS).by_margin for more in ({}, far)]
    assert margins[0] is not None and margins[1] == pytest.approx(margins[0])


def test_number_claims_and_neurons_have_no_verdict_by_margin():
    for verdict_ in claims(whole()):
        named = verdict_.claim.kind == "number" or verdict_.basis == NEURONS or "transferability" in verdict_.claim.text
        assert verdict_.by_margin is None or not named
    assert sum(each.by_margin is not None for each in claims(whole())) > 10


def test_all_base_models_are_averaged():
    one = scored({"helpful": {ModelEdit(): {HELPFUL: [1, 1]}, TOP: {HELPFUL: [-1, 1]}}}, times=10)
    other = scored({"helpful": {ModelEdit(): {HELPFUL: [1, 1]}, TOP: {HELPFUL: [1, 1]}}}, base="gpt2", times=10)
    ours = value(Matrix(one | other), "mean over base models: zeroing the helpful model's top 10 % by magnitude costs Helpful")
    assert ours.value == pytest.approx(-0.25)
    assert value(Matrix(one | other), "SmolLM2-135M: zeroing the helpful model's top 10 % by magnitude costs Helpful").value == -0.5


def test_seeds_are_averaged_and_neurons_have_their_range():
    both = found({"helpful": [(0, 0), (1, 0), (2, 0)]}) | found({"helpful": [(2, 1), (2, 2), (2, 0)]}, seed=1)
    ours = value(Matrix(found=both), "52% of the helpful model's top 10 % lie in the late third")
    assert ours == pytest.approx((2 / 3, 1 / 3, 1, 2))
    runs = scored({"helpful": {ModelEdit(): {OWN: [1, 1]}}}) | scored({"helpful": {ModelEdit(): {OWN: [1, -1]}}}, seed=1)
    assert value(Matrix(runs), "SmolLM2-135M: the helpful model has 70.3%").value == 0.75


def test_levels_on_rows_that_both_have_right():
    runs = scored({"helpful": {ModelEdit(): {HELPFUL: [2, 4, -1]}}, "mixed": {ModelEdit(): {HELPFUL: [1, -1, 1]}}})
    # Only the first row is right in both; the mean reward of its candidates is 1 and 0.5.
    ours = value(Matrix(runs), "On rows that both have right, the helpful model's rewards are higher")
    assert ours.value == 0.5
    assert claimed(Matrix(scored({"helpful": {ModelEdit(): {HARMLESS: [1]}}})), "On rows that both have right, the helpful").ours is None


def test_a_verdict_without_a_number_names_what_lacks():
    assert Verdict(FALLS, None, "", "such models").judged == ("cannot be tested here", "no such models")
