"""Do intervals hold what they say? 1,000 data sets with a known effect, each a column, so that all are drawn at once."""

import numpy as np
import pytest
from helpers.study_matrices import BASE

from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores
from tl_reward.study.findings.claims import Claim, judge
from tl_reward.study.matrix import Matrix, Model, ModelEdit
from tl_reward.study.rows import Draws, Models, Rows, draws, over_deviation, pooled

SETS = 1000
SIZES = {"a": 60, "b": 90, "c": 150}  # prompts of each sub-task
BEFORE, AFTER = {"a": 0.8, "b": 0.5, "c": 0.65}, {"a": 0.6, "b": 0.5, "c": 0.6}


def paired(seed: int, after: dict[str, float] = AFTER, rows: int = 2) -> dict[str, Rows]:
    """Sub-tasks with two rows a prompt, which are alike more often than not; columns: all data sets before an edit, then all after it."""
    generator = np.random.default_rng(seed)
    found = {}
    for task, size in SIZES.items():
        own = generator.random((size, 1, SETS))
        each = np.where(generator.random((size, rows, SETS)) < 0.7, own, generator.random((size, rows, SETS)))  # uniform, and correlated
        moved = np.where(generator.random((size, rows, SETS)) < 0.5, each, generator.random((size, rows, SETS)))
        values = np.concatenate([each < BEFORE[task], moved < after[task]], axis=2).reshape(size * rows, 2 * SETS).astype(float)
        found[task] = Rows(values, tuple(f"{task}{i}" for i in range(size) for _ in range(rows)), 1)
    return found


def intervals(values: np.ndarray) -> list[Estimate]:
    low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
    return [Estimate(*each, 300) for each in zip(values[0].tolist(), low.tolist(), high.tolist(), strict=True)]


def change(drawn: Draws) -> np.ndarray:
    return drawn.values[:, SETS:] - drawn.values[:, :SETS]


def covered(found: list[Estimate], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in found]))


def test_intervals_of_a_mean_over_sub_tasks_cover_the_change():
    truth = np.mean([AFTER[task] - BEFORE[task] for task in SIZES])
    found = intervals(change(draws([*paired(0).values()])))
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.005)
    assert 0.93 <= covered(found, float(truth)) <= 0.97


def test_intervals_of_pooled_rows_cover_the_change_and_are_no_wider_than_it_takes():
    """Each sub-task keeps its size in every draw: what differs between sub-tasks is no noise."""
    parts = paired(1)
    truth = sum(SIZES[task] * (AFTER[task] - BEFORE[task]) for task in SIZES) / sum(SIZES.values())
    found = intervals(change(draws([pooled(parts)])))
    assert 0.93 <= covered(found, truth) <= 0.97
    apart = {"a": 0.95, "b": 0.5, "c": 0.1}
    level = {task: Rows(np.full((size, 1), apart[task]), tuple(f"{task}{i}" for i in range(size)), 1) for task, size in SIZES.items()}
    (alike,) = intervals(draws([pooled(level)]).values)
    assert alike.high - alike.low == pytest.approx(0, abs=1e-12)


def test_intervals_of_margins_in_standard_deviations_cover_their_difference():
    generator, size = np.random.default_rng(2), 100
    ids = tuple(f"p{i}" for i in range(size))

    def rewards(gap: float, scale: float) -> Scores:
        chosen, rejected = generator.normal([[gap], [0.0]], 1.0, (2, size)) * scale + 7.0
        return Scores(ids, chosen, rejected, ids, ("",) * size)

    edits = [(ModelEdit("top", f"{i}", 0.1), ModelEdit("top", f"{i}", 0.2)) for i in range(SETS)]
    runs = {
        (Model(BASE, "mixed", 0), edit): {"t": rewards(*how)}
        for pair in edits
        for edit, how in zip(pair, ((0.8, 1), (0.3, 3)), strict=True)
    }
    columns = [Models(BASE, "mixed", (edit,)) for side in zip(*edits, strict=True) for edit in side]
    drawn = over_deviation(Matrix(runs), columns, "t")
    assert drawn is not None
    truth = [gap / np.sqrt(1 + gap**2 / 4) for gap in (0.3, 0.8)]
    assert 0.93 <= covered(intervals(change(drawn)), truth[0] - truth[1]) <= 0.97


def said(claim: Claim, found: list[Estimate], word: str) -> float:
    return float(np.mean([judge(claim, each).word == word for each in found]))


def test_a_false_claim_is_said_to_agree_in_few_of_a_hundred():
    none = intervals(change(draws([*paired(3, after=BEFORE).values()])))
    for kind, effect in (("above", 0.1), ("below", -0.1), ("above", None)):
        assert said(Claim("nothing moves", "above", 0.1, "")._replace(kind=kind, study=effect), none, "agrees") <= 0.05
    falls = intervals(change(draws([*paired(4).values()])))
    assert said(Claim("it rises", "above", 0.1, ""), falls, "agrees") == 0
    assert said(Claim("it falls", "below", -0.0833, ""), falls, "differs") <= 0.05  # it does, by that


def test_a_number_that_is_far_off_is_said_to_agree_in_few_of_a_hundred():
    """Agreement of a number is no more than that both are compatible: far is beyond twice the tolerance and the half-width."""
    for off, most in ((0.045, 1.0), (0.12, 0.05), (-0.12, 0.05)):
        generator = np.random.default_rng(5)
        values = (generator.random((240, SETS)) < 0.7 + off).astype(float)
        found = intervals(draws([Rows(values, tuple(map(str, range(240))), 1)]).values)
        share = said(Claim("it is 0.7", "number", 0.7, "", tolerance=0.03), found, "agrees")
        assert share <= most
    assert said(Claim("it is 0.7", "number", 0.7, "", tolerance=0.03), found, "differs") > 0.9
