"""The benchmark's arithmetic. (The contests themselves check their numbers as they run.)"""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from measure import alternate, exponent, fastest, ratio


def test_a_ratio_is_the_median_of_neighbours_in_time():
    assert ratio([2.0, 9.0, 40.0], [1.0, 3.0, 10.0], ">= 2") == {"ratio": 3.0, "low": 2.0, "high": 4.0, "target": ">= 2"}


def test_contestants_take_turns():
    order = []
    taken = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 3
    assert [len(times) for times in taken.values()] == [3, 3]


def test_an_exponent_is_the_slope_of_a_power_law():
    assert exponent([1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]) == pytest.approx(2)


def test_each_size_is_tried_once_after_one_to_warm_up():
    tried = []
    assert fastest(tried.append, (4, 8)) in (4, 8)
    assert tried == [4, 4, 8]
