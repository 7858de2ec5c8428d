"""Entropy over objectives: hand-computed numbers, and an objective without a neuron."""

import math

import pytest
import torch

from tl_reward.analyses.discovery import discover
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.measures.selectivity import selectivity
from tl_reward.neurons import NeuronSet

FIND = load_pairs("embedded", split="find")
PAIRS = [p for objective in ("helpful", "harmless") for p in FIND if p.objective == objective][::9]


def test_hand_computed_entropies_and_sets():
    # 20 neurons, so that the bar, the 95th percentile of 40 probabilities, lies among the three largest.
    a, b = torch.full((2, 10), 0.1), torch.full((2, 10), 0.1)
    a[0, 0], a[0, 1], b[0, 1] = 0.9, 0.8, 0.8
    found = selectivity({"a": a, "b": b})
    assert found.entropy[0, 0] == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert found.entropy[0, 1] == pytest.approx(math.log(2)) == found.entropy[1, 5].item()
    assert found.eligible.nonzero().tolist() == [[0, 0], [0, 1]]
    ranking = found.ranking()
    assert ranking[0, 0] == pytest.approx(math.log(2) - found.entropy[0, 0].item(), rel=1e-5)
    assert NeuronSet.top(ranking, k=1).coords == ((0, 0),)
    # The one neuron of lowest entropy fires for a: b has none, and gets none of a's.
    assert found.sets(0.05) == {"a": NeuronSet([(0, 0)]), "b": NeuronSet()}
    # The next fires for both. No more are eligible, whatever the share.
    assert found.sets(0.5) == {"a": NeuronSet([(0, 0), (0, 1)]), "b": NeuronSet([(0, 1)])}


def test_three_objectives_and_a_neuron_that_never_fires():
    values = {name: torch.zeros(1, 4) for name in "abc"}
    for value in values.values():
        value[0, 1] = 0.6
    values["c"][0, 0] = 0.5
    found = selectivity(values)
    assert found.entropy[0].tolist() == pytest.approx([0, math.log(3), math.log(3), math.log(3)])
    assert not found.eligible[0, 2] and found.ranking().isfinite().all()


def test_probabilities_of_each_objective_are_those_of_its_pairs_alone(tiny):
    found = discover(tiny, PAIRS)
    assert {objective for _, objective in found.firing} == {"helpful", "harmless"}
    for objective in ("helpful", "harmless"):
        own = [pair for pair in PAIRS if pair.objective == objective]
        alone = discover(tiny, own).ranking("probability", "mlp_gate")
        torch.testing.assert_close(found.firing["mlp_gate", objective], alone, atol=1e-6, rtol=1e-5)
    assert found.selectivity("mlp_post").entropy.shape == (2, 48)


def test_one_objective_is_not_enough(tiny):
    own = [pair for pair in PAIRS if pair.objective == "helpful"]
    with pytest.raises(InputError, match="two or more objectives, got helpful; mark pairs with their objective"):
        discover(tiny, own).ranking("entropy")
    unmarked = [PreferencePair(id=p.id, chosen=p.chosen, rejected=p.rejected) for p in PAIRS]
    with pytest.raises(InputError, match="two or more objectives, got none"):
        discover(tiny, unmarked).ranking("entropy", "mlp_gate")
