"""Margins, accuracies and their intervals, against numbers worked out by hand."""

import json

import numpy as np
import pytest

from tl_reward.data.pairs import Message, PreferencePair
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError
from tl_reward.measures.intervals import Estimate, bootstrap_mean
from tl_reward.measures.scores import Scores


def scores(margins: list[float], groups: list[str] | None = None, subsets: list[str] | None = None) -> Scores:
    """Scores of these margins: the rejected rewards are 1, 2, 3, …"""
    ids = tuple(f"p{i}" for i in range(len(margins)))
    rejected = np.arange(1.0, len(margins) + 1)
    return Scores(ids, rejected + margins, rejected, tuple(groups or ids), tuple(subsets or [""] * len(ids)))


def test_margin_is_chosen_minus_rejected():
    assert Scores(("a",), np.array([1.5]), np.array([2.0]), ("a",), ("",)).margin.tolist() == [-0.5]


@pytest.mark.parametrize(
    ("margins", "accuracy"),
    [([2, -1], 0.5), ([1, 1, -1, 0.5], 0.75), ([0], 0.5), ([2, -1, 0], 0.5), ([3, 0], 0.75), ([-2], 0.0)],
)
def test_accuracy_counts_a_tie_half(margins: list[float], accuracy: float):
    assert scores(margins).accuracy().value == pytest.approx(accuracy)


def test_mean_margin():
    assert scores([2, -1, 0.5]).mean_margin().value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("margins", "groups", "value", "rows"),
    [
        ([1, 2, 1, -1], "aabb", 0.5, 2),  # b has one pair wrong
        ([1, 1, 2, -1], "abab", 0.5, 2),  # the same, interleaved
        ([1, 0, 2, 3], "aabb", 0.75, 2),  # a tie at a's edge
        ([0, -1], "aa", 0.0, 1),  # a tie does not make up for a wrong pair
        ([1, -1, 2], "abc", 2 / 3, 3),  # rows of one pair: the plain accuracy
    ],
)
def test_best_of_n(margins: list[float], groups: str, value: float, rows: int):
    estimate = scores(margins, list(groups)).best_of_n()
    assert estimate.value == pytest.approx(value)
    assert estimate.n == rows


@pytest.mark.parametrize("seed", range(5))
def test_best_of_n_is_the_worst_chosen_above_the_best_rejected(seed: int):
    rng = np.random.default_rng(seed)
    # Few integers, so that ties come up.
    chosen, rejected = rng.integers(2, 7, size=(40, 3)).astype(float), rng.integers(0, 5, size=(40, 3)).astype(float)
    rows = [(g, i, j) for g in range(40) for i in range(3) for j in range(3)]
    made = Scores(
        ids=tuple(map(str, rows)),
        chosen=np.array([chosen[g, i] for g, i, _ in rows]),
        rejected=np.array([rejected[g, j] for g, _, j in rows]),
        groups=tuple(str(g) for g, _, _ in rows),
        subsets=("",) * len(rows),
    )
    gap = chosen.min(1) - rejected.max(1)
    assert {-1, 0, 1} <= set(np.sign(gap))
    assert made.best_of_n().value == pytest.approx(np.mean(np.where(gap > 0, 1, np.where(gap == 0, 0.5, 0))))


def test_by_subset():
    parts = scores([1, -1, 2, 0], groups=list("aabb"), subsets=["code", "chat", "code", "chat"]).by_subset()
    assert list(parts) == ["chat", "code"]
    assert {name: part.ids for name, part in parts.items()} == {"chat": ("p1", "p3"), "code": ("p0", "p2")}
    assert {name: part.accuracy().value for name, part in parts.items()} == {"chat": 0.25, "code": 1.0}
    assert parts["chat"].groups == ("a", "b")
    assert parts["chat"].rejected.tolist() == [2, 4]


def test_scores_of_pairs():
    one, two = (Message("user", "Hi"), Message("assistant", "A")), (Message("user", "Hi"), Message("assistant", "B"))
    pairs = [PreferencePair("x", one, two, "helpful", "chat", "g"), PreferencePair("y", two, one)]
    made = Scores.of(pairs, [1.0, 2.0], [0.0, 5.0], Reading(5, {"longer than 9 tokens": 3}))
    assert (made.ids, made.groups, made.subsets, made.dropped) == (("x", "y"), ("g", "y"), ("chat", ""), 3)
    assert made.margin.tolist() == [1, -3]
    assert len(made) == 2


def test_json_holds_the_numbers():
    made = json.loads(json.dumps(scores([1, -1, 2, 3], groups=list("aabb"), subsets=["x", "y", "x", "y"]).to_json()))
    assert (made["pairs"], made["dropped"]) == (4, 0)
    assert made["accuracy"]["value"] == 0.75
    assert made["mean_margin"]["value"] == 1.25
    assert made["best_of_n"]["value"] == 0.5
    assert {name: part["accuracy"]["value"] for name, part in made["subsets"].items()} == {"x": 1.0, "y": 0.5}


def test_json_has_best_of_n_of_each_subset():
    made = scores([1, -1, 2, 3], groups=list("aabb"), subsets=["x", "x", "y", "y"]).to_json()
    assert {name: part["best_of_n"] and part["best_of_n"]["value"] for name, part in made["subsets"].items()} == {"x": 0.0, "y": 1.0}
    assert made["ties"] == 0


def test_json_leaves_out_what_there_is_only_one_of():
    made = scores([1, -1]).to_json()
    assert made["best_of_n"] is None
    assert made["subsets"] == {}


# Intervals


def test_interval_of_two_values():
    # A resample of 0 and 1 is two zeros in a quarter of the draws, and two ones in another: far more than 2.5 % each.
    assert bootstrap_mean(np.array([0.0, 1.0])) == Estimate(0.5, 0.0, 1.0, 2)


def test_interval_of_a_constant():
    assert bootstrap_mean(np.full(30, 2.5)) == Estimate(2.5, 2.5, 2.5, 30)


def test_interval_is_close_to_the_normal_one():
    # 1.96 standard errors of a share of 1/2 in 400.
    estimate = bootstrap_mean(np.arange(400) % 2 * 1.0)
    assert estimate.high - 0.5 == pytest.approx(1.96 * 0.5 / 20, rel=0.1)
    assert 0.5 - estimate.low == pytest.approx(1.96 * 0.5 / 20, rel=0.1)


def test_interval_is_deterministic():
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


@pytest.mark.parametrize("seed", range(5))
def test_interval_brackets_the_mean_and_narrows(seed: int):
    values = np.random.default_rng(seed).normal(size=2000)
    estimates = [bootstrap_mean(values[:n]) for n in (20, 200, 2000)]
    assert all(e.low < e.value < e.high for e in estimates)
    widths = [e.high - e.low for e in estimates]
    # A tenfold sample is narrower by √10 = 3.2.
    assert widths[0] > 2 * widths[1] > 4 * widths[2]


def test_resamples_whole_groups():
    # 25 copies of each value within its group bring no new information.
    values = np.arange(20) % 3 * 1.0
    copies, groups = np.repeat(values, 25), [str(i) for i in range(20) for _ in range(25)]
    once, grouped, apart = bootstrap_mean(values), bootstrap_mean(copies, groups), bootstrap_mean(copies)
    assert grouped[:3] == pytest.approx(once[:3])
    assert grouped.n == once.n == 20
    assert grouped.high - grouped.low > 3 * (apart.high - apart.low)


def test_groups_of_unequal_size_weigh_by_their_pairs():
    estimate = bootstrap_mean(np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"])
    assert estimate == Estimate(0.75, 0.0, 1.0, 2)


def test_accuracy_and_margin_resample_whole_groups():
    margins = [1.0, -1.0] * 10
    copies = scores([m for m in margins for _ in range(9)], [f"g{i}" for i in range(20) for _ in range(9)])
    once = scores(margins)
    assert copies.accuracy()[:3] == pytest.approx(once.accuracy()[:3])
    assert copies.mean_margin()[:3] == pytest.approx(once.mean_margin()[:3])


def test_nothing_to_average():
    with pytest.raises(InputError, match="no pairs to average over"):
        bootstrap_mean(np.array([]))


def test_estimate_reads_as_text():
    assert str(Estimate(0.5, 0.25, 0.75, 10)) == "0.500 [0.250, 0.750]"
    assert str(Estimate(0.5, 0.25, 0.75, 9)) == "0.500 [0.250, 0.750]*"  # over few prompts
    assert str(Estimate(0.5, 0.5, 0.5, 1)) == "0.500 [–]"  # as runs of earlier versions have it


def test_one_prompt_has_no_interval():
    said = [(Message("user", "Hi"), Message("assistant", f"number {i}")) for i in range(9)]
    pairs = [PreferencePair(f"p{i}", said[i], said[8]) for i in range(8)]
    found = Scores.of(pairs, list(range(8)), [0.0] * 8).mean_margin()
    assert (found.value, found.n) == (3.5, 1) and np.isnan([found.low, found.high]).all()
    assert found.to_json() == {"value": 3.5, "low": None, "high": None, "n": 1}
    assert str(found) == "3.500 [–]"


@pytest.mark.parametrize(
    ("values", "groups", "says"),
    [
        ([1.0, np.nan], None, "1 of 2 values are not finite"),
        ([np.inf, -np.inf], None, "2 of 2 values are not finite"),
        ([], None, "no pairs to average over"),
        ([1.0, 2.0], ["a"], "a group for each of 2 values, got 1"),
    ],
)
def test_means_of_what_is_no_number(values: list[float], groups: list[str] | None, says: str):
    with pytest.raises(InputError, match=says):
        bootstrap_mean(np.array(values), groups)


def test_pairs_of_one_prompt_are_resampled_together():
    def pair(i: int, prompt: str) -> PreferencePair:
        asked = Message("user", prompt)
        return PreferencePair(f"p{i}", (asked, Message("assistant", f"Yes {i}.")), (asked, Message("assistant", f"No {i}.")))

    margins = [1.0] * 8 + [-1.0] * 8
    zeros = [0.0] * 16
    apart = Scores.of([pair(i, f"Question {i}") for i in range(16)], margins, zeros).accuracy()
    together = Scores.of([pair(i, f"Question {i // 4}") for i in range(16)], margins, zeros).accuracy()
    assert (apart.n, together.n) == (16, 4)
    assert apart.value == together.value == 0.5
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
