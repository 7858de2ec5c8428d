"""Pairs in two halves of other prompts."""

from collections import Counter

import tl_reward
from tl_reward.data.pairs import Message, PreferencePair
from tl_reward.data.readers import load_pairs
from tl_reward.repairing.splits import halves_by_prompt, split_of


def pair(name: str, chosen: str, rejected: str | None = None, objective: str = "helpful") -> PreferencePair:
    sides = [(Message("user", prompt), Message("assistant", answer)) for prompt, answer in ((chosen, "a"), (rejected or chosen, "b"))]
    return PreferencePair(name, sides[0], sides[1], objective)


def names(pairs: list[PreferencePair]) -> str:
    return "".join(each.id for each in pairs)


def test_prompts_go_to_either_half_in_turn():
    find, tune = tl_reward.halves_by_prompt([pair("1", "A"), pair("2", "B"), pair("3", "A"), pair("4", "C"), pair("5", "D")])
    assert (names(find), names(tune)) == ("134", "25")


def test_each_objective_is_halved_by_itself():
    find, tune = halves_by_prompt(load_pairs("embedded", split="find"))
    for half in (find, tune):
        assert Counter(each.objective for each in half) == {"helpful": 21, "harmless": 21}
    split_of(find, tune, load_pairs("embedded", split="test"))  # no prompt is shared


def test_prompts_that_a_pair_joins_stay_together():
    chain = [pair("1", "A", "B"), pair("2", "C"), pair("3", "D", "C"), pair("4", "E"), pair("5", "B", "D")]
    find, tune = halves_by_prompt(chain)
    assert (names(find), names(tune)) == ("1235", "4")


def test_a_prompt_of_two_objectives_is_in_one_half():
    harmless = [pair("3", "B", objective="harmless"), pair("4", "C", objective="harmless")]
    find, tune = halves_by_prompt([pair("1", "A"), pair("2", "B"), *harmless])
    assert (names(find), names(tune)) == ("14", "23")
