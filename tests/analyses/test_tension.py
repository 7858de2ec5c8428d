"""Tension between two objectives: hand-made effects, a null by brute force, and real effects of a tiny model."""

import numpy as np
import pytest
import torch

from tl_reward.analyses.attribution import Attribution, attribute
from tl_reward.analyses.tension import conflict, quadrants, tension
from tl_reward.data.pairs import PreferencePair
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.neurons import NeuronSet

FIND = load_pairs("embedded", split="find")
PAIRS = [p for objective in ("helpful", "harmless") for p in [q for q in FIND if q.objective == objective][:6]]


def test_quadrants_of_hand_made_effects():
    one = torch.tensor([[1.0, 2.0, -1.0, -2.0, 0.0, 3.0]])
    other = torch.tensor([[0.5, -0.5, 0.5, -0.5, 1.0, 0.0]])
    found = {name: mask.nonzero()[:, 1].tolist() for name, mask in quadrants(one, other, ("harmless", "helpful")).items()}
    assert found == {"both": [0], "harmless at helpful's cost": [1], "helpful at harmless's cost": [2], "neither": [3]}


def test_the_null_is_that_of_shuffled_signs():
    generator = np.random.default_rng(0)
    one, other = (torch.from_numpy(generator.normal(shift, 1, (3, 40))) for shift in (0.5, 0.3))
    found = conflict(one, other)
    drawn = []
    for _ in range(3000):
        shuffled = np.stack([generator.permutation(layer) for layer in other.numpy()])
        drawn.append(((one.numpy() > 0) != (shuffled > 0)).mean())
    assert found.share == pytest.approx(((one > 0) != (other > 0)).double().mean().item())
    assert found.chance == pytest.approx(np.mean(drawn), abs=0.005)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.02)
    assert found.neurons == 120


def test_opposed_and_equal_effects_are_far_from_chance():
    effect = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 60)))
    opposed, equal = conflict(effect, -effect), conflict(effect, effect)
    assert (opposed.share, equal.share) == (1, 0)
    assert opposed.p_value < 0.001 and equal.p_value < 0.001
    assert conflict(effect * 0, effect) == (0, 0, 0, 0, 0, 1)


def test_a_models_tension_is_made_of_its_attributions(tiny):
    found = tension(tiny, PAIRS[::-1])
    assert list(found.effects) == ["harmless", "helpful"]
    for objective, effect in found.effects.items():
        alone = attribute(tiny, [pair for pair in PAIRS if pair.objective == objective])
        torch.testing.assert_close(effect.effect, alone.effect, atol=1e-6, rtol=1e-4)
    one, other = found.effects.values()
    assert found.conflict == conflict(one.effect, other.effect)
    clear = (one.q_value() <= 0.05) & (other.q_value() <= 0.05)
    assert sum(map(len, found.quadrants.values())) == int(clear.sum())
    top = found.top(0.25)
    tops = [NeuronSet.top(effect.effect, fraction=0.25) for effect in (one, other)]
    assert top == {"harmless-only": tops[0] - tops[1], "helpful-only": tops[1] - tops[0], "shared": tops[0] & tops[1]}
    assert found.to_json()["prompts"] == {"harmless": 6, "helpful": 6}


def test_q_values_find_what_is_there_and_not_what_is_not():
    effect = torch.zeros(1, 200)
    effect[0, :5] = 1.0
    error = torch.full((1, 200), 0.1)
    effect[0, 5:] = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, 195))
    found = Attribution(effect, error, (), prompts=40)
    assert (found.q_value()[0, :5] < 0.001).all() and (found.q_value()[0, 5:] < 0.05).sum() == 0
    unknown = Attribution(effect, torch.full((1, 200), torch.inf), (), prompts=1)
    assert (unknown.q_value() == 1).all()
    assert (Attribution(effect * 0, error * 0, (), prompts=40).q_value() == 1).all()


def test_what_tension_lacks_is_named(tiny):
    with pytest.raises(InputError, match="exactly two objectives, each naming its own, got 6 pairs of helpful"):
        tension(tiny, [pair for pair in PAIRS if pair.objective == "helpful"])
    with pytest.raises(InputError, match="got 2 pairs of none"):
        tension(tiny, [PreferencePair(id=p.id, chosen=p.chosen, rejected=p.rejected) for p in PAIRS[:2]])
    with pytest.raises(InputError, match="direct has no standard error"):
        tension(tiny, PAIRS, method="direct")


def test_the_top_holds_supporters_alone(tiny):
    pairs = [pair for objective in ("helpful", "harmless") for pair in load_pairs("embedded", objective=objective, split="test", limit=4)]
    found = tension(tiny, pairs)
    sets = found.top(0.9)
    for name, effects in found.effects.items():
        own = sets[f"{name}-only"] | sets["shared"]
        assert own == NeuronSet.from_mask(effects.effect > 0)
        assert 0 < len(own) < 0.9 * effects.effect.numel()
