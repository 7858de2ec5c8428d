"""What a repair did, against numbers worked out by hand, and against a second implementation by loops over pairs and draws."""

from typing import Any

import numpy as np
import pytest
from helpers.plain_evidence import Plain, Row, length_of, row_of, verdict
from helpers.refusals import refusal
from helpers.repair_pairs import pair, plain_pairs, rows_of_many, styled_rows
from scipy import stats

from tl_reward.data.pairs import PreferencePair
from tl_reward.measures.intervals import Estimate
from tl_reward.measures.scores import Scores
from tl_reward.repairing.evidence.battery import Answers, Shift, answers_of, battery
from tl_reward.repairing.evidence.compared import compared
from tl_reward.repairing.evidence.paired import Paired, accuracy_change, margin_change, sign_flip_p, spread_of
from tl_reward.running.batches.batching import encode_for

NAMES = ("before", "after", "difference")


def scores(chosen: list[float], rejected: list[float], prompts: str = "") -> Scores:
    ids = tuple(f"p{i}" for i in range(len(chosen)))
    return Scores(ids, np.array(chosen, float), np.array(rejected, float), tuple(prompts) or ids, ("",) * len(ids))


def values(change: Paired) -> list[float]:
    return [each.value for each in change]


BEFORE, AFTER = scores([2, 0, 1], [1, 1, 1]), scores([3, 2, 0], [0, 1, 1])


def test_three_pairs_by_hand():
    """Right before: yes, no, a tie; after: yes, yes, no. Margins 1, -1, 0 and 3, 1, -1. The rewards after have a variance of 41/36."""
    assert values(accuracy_change(BEFORE, AFTER)) == pytest.approx([1 / 2, 2 / 3, 1 / 6])
    assert values(margin_change(BEFORE, AFTER)) == pytest.approx([0, 6 / 41**0.5, 6 / 41**0.5])
    assert spread_of(AFTER) == pytest.approx(41**0.5 / 6)


def test_an_interval_over_two_prompts_by_hand():
    """Half of all draws are of one prompt alone: the interval ends at what the two are by themselves."""
    one, other = scores([1, 1, 0], [0, 0, 1], "aab"), scores([1, 0, 1], [0, 1, 0], "aab")
    before, after, difference = accuracy_change(one, other)
    assert before == pytest.approx((2 / 3, 0, 1, 2)) and after == pytest.approx((2 / 3, 1 / 2, 1, 2))
    assert difference == pytest.approx((0, -1 / 2, 1, 2))
    assert compared("repaired", "", "", one, other, protected=False).verdict == "no clear change"


@pytest.mark.parametrize(
    ("chosen", "p", "verdict"),
    [
        ([1] * 6, 1 / 32, "better"),
        ([0] * 6, 1.0, "no clear change"),
        ([-1] * 6, 1 / 32, "worse"),
        # Their intervals are above 0, too: of 5 prompts that gain and none that loses, both signs of all is one of 16.
        ([1] * 5, 1 / 16, "no clear change"),
        ([1] * 5 + [0] * 40, 1 / 16, "no clear change"),
        ([1, -1, 0, 0], 1.0, "no clear change"),
        ([1], 1.0, "no clear change"),
    ],
)
def test_the_verdict_is_of_the_interval_of_accuracy_where_flipping_signs_agrees(chosen: list[float], p: float, verdict: str):
    still = [0.0] * len(chosen)
    found = compared("random", "x", "y", scores(still, still), scores(chosen, still), protected=True)
    assert found.p_value == found.to_json()["p_value"] == pytest.approx(p)
    assert found.verdict == found.to_json()["verdict"] == verdict


def test_signs_are_flipped_of_prompts_not_of_pairs():
    """Two prompts with three pairs each, all of which gain: 6 pairs are 2 changes."""
    one, other = scores([0] * 6, [0] * 6, "aaabbb"), scores([1] * 6, [0] * 6, "aaabbb")
    assert sign_flip_p(one, other) == 1 / 2


def test_of_many_prompts_signs_are_drawn_and_come_close_to_the_binomial():
    gain = [1.0] * 20 + [-1.0] * 8
    found = sign_flip_p(scores([0] * 28, [0] * 28), scores(gain, [0] * 28))
    assert found == pytest.approx(stats.binomtest(20, 28).pvalue, abs=0.006)


def test_four_pairs_of_the_battery_by_hand():
    """Ranks of lengths 1 to 6, of rewards 1 2 3 6 5 4: squared differences add up to 8, so Spearman's is 1 - 6 * 8 / (6 * 35). Among chosen
    answers it is 1, among rejected ones -1. The edit turns all rewards round."""
    one = scores([10, 20, 30], [60, 50, 40])
    other = scores([-10, -20, -30], [-60, -50, -40])
    found = {each.name: each.change for each in battery(one, other, Answers(np.arange(3), np.arange(3, 6), np.arange(1.0, 7)))}
    rho = 1 - 48 / 210
    assert values(found["reward and length"]) == pytest.approx([rho, -rho, 0])
    assert values(found["reward and length, given correctness"]) == pytest.approx([0, 0, 0])
    assert values(found["mean reward"]) == pytest.approx([35 / 17.0782513, -35 / 17.0782513, -70 / 17.0782513])
    assert values(found["order of rewards"]) == pytest.approx([1, -1, -2])
    assert values(found["spread of rewards"]) == pytest.approx([(200 / 3) ** 0.5 / 17.0782513] * 2 + [0])
    assert set(found) == {
        "reward and length",
        "reward and length, given correctness",
        "mean reward",
        "spread of rewards",
        "order of rewards",
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_mere_rescaling_is_no_gain(seed: int):
    drawn = np.random.default_rng(seed)
    one = scores(drawn.normal(size=40).tolist(), drawn.normal(size=40).tolist(), "abcdefghij" * 4)
    other = Scores(one.ids, 3 * one.chosen + 7, 3 * one.rejected + 7, one.groups, one.subsets)
    assert margin_change(one, other).difference == pytest.approx((0, 0, 0, 10), abs=1e-12)
    assert accuracy_change(one, other).difference == (0, 0, 0, 10)
    found = {
        each.name: each for each in battery(one, other, Answers(np.arange(40), np.arange(40, 80), drawn.integers(1, 9, 80).astype(float)))
    }
    unmoved = {"reward and length", "reward and length, given correctness", "order of rewards", "chosen is shorter", "chosen is longer"}
    for name in unmoved & set(found):
        assert found[name].change.difference[:3] == pytest.approx((0, 0, 0), abs=1e-12) and found[name].verdict == "no clear change"
    assert values(found["spread of rewards"].change)[1] == pytest.approx(3 * values(found["spread of rewards"].change)[0])
    assert found["mean reward"].verdict == found["spread of rewards"].verdict == "moved"


def test_rewards_that_are_all_the_same_have_no_margin_in_their_units():
    flat = scores([0.1] * 12, [0.1] * 12)
    found = margin_change(flat, flat)
    assert all(each.to_json_or_none() == {"value": None, "low": None, "high": None, "n": 12} for each in found)
    long = Answers(np.arange(12), np.arange(12, 24), np.arange(24.0))
    assert next(each for each in battery(flat, flat, long) if each.name == "reward and length").to_json()["before"]["value"] is None


@pytest.mark.parametrize(
    "other", [scores([1, 2], [0, 0]), Scores(("p1", "p0", "p2"), BEFORE.chosen, BEFORE.rejected, ("a", "b", "c"), ("",) * 3)]
)
def test_scores_of_other_pairs_are_refused(other: Scores):
    for call in (accuracy_change, margin_change):
        assert refusal(call, BEFORE, other).startswith("scores to compare must be of the same pairs in the same order")
    assert "same pairs" in refusal(battery, BEFORE, other, Answers(np.arange(3), np.arange(3), np.ones(3)))


def shift(good: Any, before: tuple[float, float], after: tuple[float, float], difference: tuple[float, float]) -> Shift:
    return Shift("", "", good, Paired(*(Estimate(0, *ends, 12) for ends in (before, after, difference))))


UP, DOWN, ACROSS, NONE = (0.1, 0.2), (-0.2, -0.1), (-0.1, 0.1), (np.nan, np.nan)


@pytest.mark.parametrize(
    ("good", "before", "after", "difference", "is_"),
    [
        ("near 0", UP, DOWN, ACROSS, "reversed"),
        ("near 0", DOWN, UP, UP, "reversed"),
        ("near 0", UP, DOWN, DOWN, "reversed"),  # smaller, and yet another bias
        ("near 0", UP, ACROSS, DOWN, "better"),
        ("near 0", ACROSS, DOWN, UP, "worse"),
        ("near 0", UP, UP, ACROSS, "no clear change"),
        ("near 0", NONE, UP, NONE, "no clear change"),
        ("high", DOWN, UP, UP, "better"),
        ("high", UP, DOWN, DOWN, "worse"),
        ("neither", UP, DOWN, DOWN, "moved"),
        ("neither", UP, UP, UP, "moved"),
        ("neither", UP, UP, (0.0, 0.1), "no clear change"),
    ],
)
def test_verdicts(good: Any, before: Any, after: Any, difference: Any, is_: str):
    found = shift(good, before, after, difference)
    assert found.verdict == is_ == verdict(found.to_json())


def rows(pairs: list[PreferencePair], before: Scores, after: Scores) -> list[Row]:
    sides = [[*zip(each.chosen.tolist(), each.rejected.tolist(), strict=True)] for each in (before, after)]
    return [row_of(pair, *both) for pair, *both in zip(pairs, *sides, strict=True)]


def drawn_scores(pairs: list[PreferencePair], seed: int, *, steps: float | None = None) -> Scores:
    """A reward for each answer, with a length bias; in coarse steps, so that there are ties."""
    drawn = np.random.default_rng(seed)
    reward: dict[Any, float] = {}
    for each in pairs:
        for side in ("chosen", "rejected"):
            reward.setdefault(getattr(each, side), drawn.normal() + (-1) ** seed * 0.1 * length_of(each, side) + 0.3 * (side == "chosen"))
    if steps:
        reward = {key: round(value / steps) * steps for key, value in reward.items()}
    return Scores.of(pairs, [reward[each.chosen] for each in pairs], [reward[each.rejected] for each in pairs])


KINDS = {
    "plain": plain_pairs("plain", 21, subsets=2),
    "styled": styled_rows("styled", 11),
    "many": rows_of_many("many", 10),
    "a row is short": styled_rows("short", 12)[:-1],
    "equal lengths": [pair(str(i), f"{i}?", "aaa", "bbb") for i in range(10)],
}


@pytest.mark.parametrize("steps", [None, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_that_of_plain_loops(tiny, kind: str, steps: float | None):
    pairs = KINDS[kind]
    before, after = (drawn_scores(pairs, seed, steps=steps) for seed in (0, 1))
    plain = Plain(rows(pairs, before, after), intervals=steps is None and kind in ("styled", "many", "equal lengths"))
    found = compared("repaired", "x", kind, before, after, protected=False).to_json()
    same(found["accuracy"], plain.accuracy(), plain.intervals)
    same(found["margin"], plain.margin(), plain.intervals)
    shifts = {each.name: each.to_json() for each in battery(before, after, answers_of(encode_for(tiny, pairs)))}
    expected = plain.shifts()
    assert sorted(shifts) == sorted(expected)
    for name, each in shifts.items():
        same(each, expected[name], plain.intervals)
        assert each["good"] == expected[name]["good"] and each["verdict"] == verdict(each)
    parts = {"styled": "style: hard", "many": "best of 16: wins", "plain": "subset: s1"}
    assert parts.get(kind, "mean reward") in shifts and ("style: hard" in shifts) == (kind == "styled")
    if kind != "equal lengths":
        spearman: Any = stats.spearmanr
        rewards = [np.concatenate([each.chosen, each.rejected]) for each in (before, after)]
        long = [length_of(each, side) for side in ("chosen", "rejected") for each in pairs]
        for name, own in zip(NAMES, rewards, strict=False):
            assert shifts["reward and length"][name]["value"] == pytest.approx(spearman(own, long).statistic)
        assert shifts["order of rewards"]["after"]["value"] == pytest.approx(spearman(*rewards).statistic)


def same(found: Any, expected: Any, intervals: bool) -> None:
    for name in NAMES:
        for part in ("value", "n", *(("low", "high") if intervals else ())):
            one, other = found[name][part], expected[name][part]
            assert one == (other if other is None else pytest.approx(other, abs=1e-9)), (name, part)


def test_answers_that_tie_are_as_likely_to_be_selected():
    """A model that gives every answer the same reward selects as often as by chance, whichever side of a pair is read first."""
    pairs = rows_of_many("tie", 10)
    flat = Scores.of(pairs, [1.0] * len(pairs), [1.0] * len(pairs))
    answers = Answers(np.arange(160) // 16, np.arange(10, 170), np.ones(170))
    found = {each.name: each.change for each in battery(flat, flat, answers)}
    for count in (4, 16):
        assert values(found[f"best of {count}: wins"]) == pytest.approx([1 / 17, 1 / 17, 0])


def test_the_order_of_pairs_does_not_matter(tiny):
    """But for the draws, which take prompts in the order in which they come: pairs of a prompt may be in any."""
    pairs = KINDS["styled"]
    before, after = (drawn_scores(pairs, seed, steps=0.5) for seed in (0, 1))
    mixed = [int(i) for i in np.random.default_rng(0).permutation(len(pairs))]
    within = [i for row in range(11) for i in np.random.default_rng(row).permutation(range(9 * row, 9 * row + 9)).tolist()]
    straight = {each.name: each for each in battery(before, after, answers_of(encode_for(tiny, pairs)))}
    for order, ends in ((mixed, 1), (within, 4)):
        again = battery(before.take(order), after.take(order), answers_of(encode_for(tiny, [pairs[i] for i in order])))
        assert {each.name for each in again} == set(straight)
        for each in again:
            for one, other in zip(each.change, straight[each.name].change, strict=True):
                assert one[:ends] == pytest.approx(other[:ends], abs=1e-9)


def test_an_answer_in_several_pairs_is_one(tiny):
    answers = answers_of(encode_for(tiny, KINDS["styled"][:9]))
    assert answers.chosen.tolist() == [answers.chosen[0]] * 3 + [answers.chosen[3]] * 3 + [answers.chosen[6]] * 3
    assert len(answers.length) == 6 and len(set(answers.rejected)) == 3
    assert answers.lengths[0][0] == length_of(KINDS["styled"][0], "chosen")
