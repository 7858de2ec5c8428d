"""Which neurons are edited: what holds of every way to choose them, whatever the effects are."""

import math
from itertools import product
from typing import Any

import pytest
import torch
from helpers.refusals import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tl_reward.analyses.attribution import Attribution
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.ways.candidates import candidates_of, random_like
from tl_reward.repairing.ways.choosing import at_a_cost, clarity_of, furthest, hurting_all, hurting_on_balance

LAYERS, NEURONS = 2, 5
# Few numbers, so that there are ties, neurons that are 0 everywhere, and errors that are 0 or infinite.
EFFECT = st.sampled_from([-6.0, -3.0, -2.5, -2.0, -1.0, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0])
ERROR = st.sampled_from([0.0, 0.5, 1.0, 1.0, 2.0, math.inf])


Numbers = list[float]
Given = tuple[tuple[Numbers, Numbers], tuple[Numbers, Numbers]]  # effects and errors of each objective


def tensor(numbers: Numbers) -> Tensor:
    return torch.tensor(numbers).view(LAYERS, NEURONS)


def grid(of: st.SearchStrategy[float]) -> st.SearchStrategy[Numbers]:
    return st.lists(of, min_size=LAYERS * NEURONS, max_size=LAYERS * NEURONS)


OF_ONE = st.tuples(grid(EFFECT), grid(ERROR))
DRAWN = st.tuples(OF_ONE, OF_ONE)


def effects_of(drawn: Given) -> dict[str, Attribution]:
    return {name: Attribution(tensor(effect), tensor(error), (), 9) for name, (effect, error) in zip("ab", drawn, strict=True)}


WAYS = {
    "hurting all": hurting_all,
    "hurting on balance": hurting_on_balance,
    "at a cost": lambda effects, neurons, strength: at_a_cost(effects, "a", "b", neurons, strength),
}


def qualifies(way: str, effects: dict[str, Attribution], layer: int, neuron: int) -> bool:
    """By its definition, a neuron at a time."""
    numbers = [(float(each.effect[layer, neuron]), float(each.error[layer, neuron])) for each in effects.values()]
    errors = [error for _, error in numbers]
    in_errors = [effect / error if 0 < error < math.inf else 0.0 for effect, error in numbers]
    if way == "hurting all":
        return max(in_errors) <= -2
    if way == "at a cost":
        return in_errors[0] >= 2 and in_errors[1] <= -2
    error = math.sqrt(sum(each**2 for each in errors))
    return 0 < error < math.inf and sum(effect for effect, _ in numbers) <= -2 * error * (1 - 1e-6) and max(in_errors) < 2


def order(way: str, effects: dict[str, Attribution], layer: int, neuron: int) -> float:
    """How much it hurts."""
    own = [float(each.effect[layer, neuron]) for each in effects.values()]
    return -max(own) if way == "hurting all" else -own[1] if way == "at a cost" else -sum(own)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=80, deadline=None)
@given(drawn=DRAWN, count=st.integers(1, 12), strength=st.sampled_from([0.0, 0.5, 1.5]))
def test_what_is_edited(way: str, drawn: Given, count: int, strength: float):
    effects = effects_of(drawn)
    gates = WAYS[way](effects, count, strength)
    places = [*product(range(LAYERS), range(NEURONS))]
    fit = [place for place in places if qualifies(way, effects, *place)]
    by_harm = sorted(fit, key=lambda place: -order(way, effects, *place))  # stable: ties go to the lower layer, then neuron
    assert (gates != 1).nonzero().tolist() == sorted(map(list, by_harm[:count]))
    assert {*gates[gates != 1].tolist()} <= {strength}
    more = WAYS[way](effects, count + 1, strength)
    assert bool((more[gates != 1] == strength).all())  # sets are nested


@settings(max_examples=40, deadline=None)
@given(drawn=DRAWN, count=st.integers(1, 12), strengths=grid(st.sampled_from([0.0, 0.25, 1.0, 2.0])))
def test_strengths_of_every_neuron(drawn: Given, count: int, strengths: Numbers):
    effects, own = effects_of(drawn), tensor(strengths)
    where = at_a_cost(effects, "a", "b", count, 0.5) != 1
    torch.testing.assert_close(at_a_cost(effects, "a", "b", count, own), torch.where(where, own, 1.0))


@settings(max_examples=40, deadline=None)
@given(gates=grid(st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0])), count=st.integers(1, 12))
def test_those_furthest_from_1_are_kept(gates: Numbers, count: int):
    kept, flat = furthest(tensor(gates), count), gates
    first = sorted((i for i, gate in enumerate(flat) if gate != 1), key=lambda i: -abs(flat[i] - 1))[:count]
    assert kept.flatten().tolist() == [gate if i in first else 1.0 for i, gate in enumerate(flat)]


def test_a_neuron_that_is_always_0_is_never_edited():
    """It has an effect and an error of exactly 0: it is not clear, though 0 is at most twice 0 below 0."""
    dead = Attribution(torch.zeros(1, 4), torch.zeros(1, 4), (), 9)
    for way in WAYS.values():
        assert bool((way({"a": dead, "b": dead}, 3, 0.0) == 1).all())


def test_effects_of_one_prompt_are_clear_of_nothing():
    found = Attribution(torch.full((1, 3), -5.0), torch.full((1, 3), torch.inf), (), 1)
    assert bool((clarity_of(found) == 0).all())
    for way in WAYS.values():
        assert bool((way({"a": found, "b": found}, 3, 0.0) == 1).all())


@pytest.mark.parametrize("strength", [-0.1, math.nan, math.inf])
def test_bad_strengths_and_counts_are_refused(strength: float):
    effects = {name: Attribution(torch.full((1, 3), -5.0), torch.ones(1, 3), (), 9) for name in "ab"}
    for way in WAYS.values():
        assert refusal(way, effects, 1, strength) == f"a strength must be finite and at least 0, which zeroes a neuron, got {strength:g}"
        assert refusal(way, effects, 0, 0.5) == "at least 1 neuron must be edited, got 0"


@settings(max_examples=30, deadline=None)
@given(drawn=DRAWN, learnt=grid(st.sampled_from([0.0, 0.5, 1.0, 1.5])), towards=grid(st.sampled_from([0.25, 1.0])))
def test_every_candidate_is_different_and_edits_few(drawn: Given, learnt: Numbers, towards: Numbers):
    config = RepairConfig(fractions=(0.1, 0.2, 0.5), strengths=(0.0, 0.5, 1.0))
    found = candidates_of(
        effects_of(drawn), config, direct=effects_of((drawn[1], drawn[0])), towards={"b": tensor(towards)}, learnt=tensor(learnt)
    )
    assert all(1 <= each.neurons <= 5 for each in found)
    assert len({tuple(each.gates.flatten().tolist()) for each in found}) == len({each.name for each in found}) == len(found)


def test_neurons_at_a_cost_are_scaled_down_whether_there_is_a_model_of_the_hurt_objective_or_not():
    clear = {name: Attribution(torch.tensor([[9.0 * sign, 0.0]]), torch.ones(1, 2), (), 9) for name, sign in (("a", 1), ("b", -1))}
    config = RepairConfig(fractions=(0.5,), strengths=(0.0, 0.5))
    given = candidates_of(clear, config, direct=None, towards={"b": torch.full((1, 2), 0.25)}, learnt=None)
    assert {each.about: each.gates.tolist() for each in given} == {
        "a at b's, towards b": [[0.25, 1.0]],
        "a at b's, to 0": [[0.0, 1.0]],
        "a at b's, to 0.5": [[0.5, 1.0]],
    }


@settings(max_examples=40, deadline=None)
@given(numbers=grid(st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.0])), seed=st.integers(0, 9))
def test_random_edits_are_alike(numbers: Numbers, seed: int):
    """The same gates in each layer, on other neurons where there are enough."""
    gates = tensor(numbers)
    drawn = [each.gates for each in random_like(gates, draws=3, seed=seed)]
    again = [each.gates for each in random_like(gates, draws=3, seed=seed)]
    for one, other in zip(drawn, again, strict=True):
        assert torch.equal(one, other)
        for layer in range(LAYERS):
            assert sorted(one[layer].tolist()) == sorted(gates[layer].tolist())
            edited = gates[layer] != 1
            if edited.sum() <= NEURONS / 2:
                assert not bool((edited & (one[layer] != 1)).any())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strengths": (0.5, 0.5)}, "strengths must be different numbers, at least one, got 0.5, 0.5"),
        ({"fractions": ()}, "fractions must be different numbers, at least one, got none"),
        ({"fractions": (1.5,)}, "a fraction must be in (0, 1], got 1.5"),
        ({"strengths": (-1.0,)}, "a strength must be finite and at least 0, which zeroes a neuron, got -1.0"),
        ({"tolerance": float("nan")}, "tolerance must be finite and at least 0, got nan"),
        ({"pairs_a_step": 0}, "pairs_a_step must be at least 1, got 0"),
    ],
)
def test_what_no_repair_can_try_is_refused(values: dict[str, Any], message: str):
    assert refusal(lambda: RepairConfig(**values)) == message
