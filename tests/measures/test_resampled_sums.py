"""Sums over bootstrap draws, for whatever is a function of sums: against draws that are spelt out."""

import numpy as np
import pytest
from helpers.refusals import refusal

from tl_reward.measures.intervals import bootstrap_mean, bootstrap_ratio, resampled_sums


def spelt_out(values: np.ndarray, groups: list[str], resamples: int, seed: int) -> np.ndarray:
    """Each draw as a list of values, [quantity, draw]."""
    names = list(dict.fromkeys(groups))
    members = [[i for i, own in enumerate(groups) if own == name] for name in names]
    draws = np.random.default_rng(seed).integers(0, len(names), size=(resamples, len(names)))
    return np.array([[sum(each[i] for group in draw for i in members[group]) for draw in draws] for each in values])


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_draws_of_whole_groups(seed: int):
    drawn = np.random.default_rng(100 + seed)
    values, groups = drawn.normal(size=(3, 17)), [*map(str, drawn.integers(0, 6, 17))]
    found = resampled_sums(values, groups, resamples=50, seed=seed)
    assert found.n == len(set(groups)) and found.draws.shape == (3, 50)
    np.testing.assert_allclose(found.whole, [sum(each) for each in values])
    np.testing.assert_allclose(found.draws, spelt_out(values, groups, 50, seed))


def test_many_groups_are_drawn_in_parts_as_if_all_at_once():
    """Of 2,100 groups, not all 2,000 draws are held at once; the draws are those of one call all the same."""
    values = np.random.default_rng(0).normal(size=2100)
    found = resampled_sums(values[None]).draws[0]
    draws = np.random.default_rng(0).integers(0, 2100, size=(2000, 2100))
    np.testing.assert_array_equal(found, values[draws].sum(1))


def test_every_call_draws_the_same_groups():
    """So that the difference of two figures is over the same prompts."""
    one, other = np.random.default_rng(0).normal(size=(2, 30))
    groups = [str(i // 3) for i in range(30)]
    difference = resampled_sums((other - one)[None], groups).draws
    np.testing.assert_allclose(difference, resampled_sums(other[None], groups).draws - resampled_sums(one[None], groups).draws, atol=1e-12)
    both = resampled_sums(np.stack([one, other]), groups).draws
    np.testing.assert_array_equal(both[1], resampled_sums(other[None], groups).draws[0])


def test_a_mean_is_a_ratio_of_sums():
    values, groups = np.random.default_rng(0).normal(size=20), [str(i // 2) for i in range(20)]
    assert bootstrap_mean(values, groups) == bootstrap_ratio(values, np.ones(20), groups)
    sums = resampled_sums(np.stack([values, np.ones(20)]), groups)
    low, high = np.quantile(sums.draws[0] / sums.draws[1], [0.025, 0.975])
    assert bootstrap_mean(values, groups) == pytest.approx((values.mean(), low, high, 10))
    assert bootstrap_ratio(np.array([1.0, 2.0]), np.zeros(2)) == (0, 0, 0, 2)


@pytest.mark.parametrize(
    ("values", "groups", "says"),
    [
        (np.ones((2, 0)), None, "no pairs to average over"),
        (np.ones((2, 3)), ["a"], "there must be a group for each of 3 values, got 1"),
        (np.array([[1.0, np.nan, 2.0], [1.0, 1.0, np.inf]]), None, "2 of 3 values are not finite"),
    ],
)
def test_bad_values(values: np.ndarray, groups: list[str] | None, says: str):
    assert refusal(resampled_sums, values, groups) == says


def test_a_weight_for_each_value():
    assert refusal(bootstrap_ratio, np.ones(3), np.ones(2)) == "there must be a weight for each of 3 values, got 2"
