"""Gates towards another model and gates that are learnt: against plain loops over transcripts, one a row."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.refusals import refusal
from helpers.repair_pairs import plain_pairs
from torch import Tensor

from tl_reward.data.pairs import PreferencePair
from tl_reward.interventions.ablations import ScaleAblation
from tl_reward.interventions.gates import Gates
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.repairing.config import RepairConfig
from tl_reward.repairing.ways import learning
from tl_reward.repairing.ways.learning import learnt_gates
from tl_reward.repairing.ways.matching import gates_towards
from tl_reward.running.batches.batching import encode_for

HELPFUL = [replace(each, objective="helpful") for each in plain_pairs("help", 3)]
HARMLESS = [replace(each, objective="harmless", id=f"harm {each.id}") for each in plain_pairs("harm", 1)]
PAIRS = HELPFUL + HARMLESS
ONE_STEP = RepairConfig(learn_steps=1, pairs_a_step=100, learning_rate=0.125, sparsity=0.0)
EDITED = ScaleAblation(NeuronSet([(0, 3), (1, 7)]), 0.5)


def ids_of(model: HookedRewardModel, pairs: list[PreferencePair]) -> list[tuple[Tensor, Tensor]]:
    encoded = encode_for(model, pairs)
    sides = zip(encoded.chosen, encoded.rejected, strict=True)
    return [(torch.tensor([encoded.rows[one].ids]), torch.tensor([encoded.rows[other].ids])) for one, other in sides]


def least_squares(model: HookedRewardModel, other: HookedRewardModel) -> Tensor:
    """Over all tokens of each different transcript, which are 12: two pairs have their chosen one in common."""
    own, both = torch.zeros(2, 48, dtype=torch.float64), torch.zeros(2, 48, dtype=torch.float64)
    rows = {tuple(side[0].tolist()): side for sides in ids_of(model, PAIRS) for side in sides}
    assert len(rows) == 12
    for ids in rows.values():
        caches = [each.run_with_cache(ids)[1] for each in (model, other)]
        for layer in range(2):
            mine, theirs = (cache[f"blocks.{layer}.mlp.hook_post"][0].double() for cache in caches)
            own[layer] += (mine**2).sum(0)
            both[layer] += (mine * theirs).sum(0)
    return both / own


def near(model: HookedRewardModel) -> HookedRewardModel:
    other = tiny_reward_model(seed=1)
    mixed = {name: 0.8 * weight + 0.2 * other.state_dict()[name] for name, weight in model.state_dict().items()}
    other.load_state_dict(mixed)
    return other


def test_gates_towards_another_model_are_least_squares_over_all_tokens(tiny):
    other = near(tiny)
    expected = least_squares(tiny, other)
    for max_tokens in (None, 60):
        found = gates_towards(tiny, other, PAIRS, max_tokens=max_tokens)
        assert bool(((found > 0) & (found < 2)).any())
        torch.testing.assert_close(found, expected.clamp(0, 2).float(), rtol=1e-4, atol=1e-5)


def test_gates_are_towards_the_other_model_as_it_is(tiny):
    """An edit is of the model under study alone: a neuron that is halved there needs twice the gate."""
    other = near(tiny)
    plain, found = gates_towards(tiny, other, PAIRS), gates_towards(tiny, other, PAIRS, interventions=[EDITED])
    assert found[0, 3] == pytest.approx(float((2 * least_squares(tiny, other)[0, 3]).clamp(0, 2)), rel=1e-4)
    torch.testing.assert_close(found[0, 4:], plain[0, 4:], rtol=1e-5, atol=1e-6)


def test_a_model_towards_itself_and_neurons_that_are_0(tiny):
    assert torch.equal(gates_towards(tiny, tiny_reward_model(), PAIRS), torch.ones(2, 48))
    dead = tiny_reward_model()
    with torch.no_grad():
        dead.blocks[1].mlp.W_in[:, 5] = 0
    found = gates_towards(dead, tiny, PAIRS)
    assert found[1, 5] == 1 and gates_towards(tiny, dead, PAIRS)[1, 5] == 0


def plain_gradient(model: HookedRewardModel, pairs: list[PreferencePair], unit: float) -> Tensor:
    """Of the mean over objectives of the mean over their pairs of -log sigmoid(margin / unit)."""
    gates = torch.ones(2, 48, requires_grad=True)
    hooks: list[Any] = [
        (f"blocks.{layer}.mlp.hook_post", lambda activation, hook, layer=layer: activation * gates[layer]) for layer in range(2)
    ]
    names = [each.objective for each in pairs]
    for (chosen, rejected), name in zip(ids_of(model, pairs), names, strict=True):
        one, other = (model.run_with_hooks(ids, fwd_hooks=hooks) for ids in (chosen, rejected))
        loss = -torch.log(torch.sigmoid((one - other) / unit)).sum()
        (loss / len(set(names)) / names.count(name)).backward()
    assert gates.grad is not None
    return gates.grad


def test_a_step_is_that_of_a_plain_gradient(tiny):
    """Objectives weigh the same, here six pairs and two. The gate of the largest gradient moves by the rate, others by their share."""
    gradient = plain_gradient(tiny, PAIRS, 0.7)
    found = learnt_gates(tiny, PAIRS, 0.7, config=ONE_STEP)
    torch.testing.assert_close(found, 1 - 0.125 * gradient / gradient.abs().max(), rtol=0, atol=1e-5)
    alone = plain_gradient(tiny, HELPFUL, 0.7)
    twice = 2 * plain_gradient(tiny, PAIRS, 0.7) - alone  # what is left is that of the other objective
    torch.testing.assert_close(twice, plain_gradient(tiny, HARMLESS, 0.7), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(learnt_gates(tiny, HELPFUL, 0.7, config=ONE_STEP), 1 - 0.125 * alone / alone.abs().max(), rtol=0, atol=1e-5)


def test_a_sparse_step_moves_few(tiny):
    """Gates of a gradient below that part of the largest one stay at 1 exactly, and others move by that much less."""
    gradient = plain_gradient(tiny, PAIRS, 0.7)
    share = gradient / gradient.abs().max()
    found = learnt_gates(tiny, PAIRS, 0.7, config=RepairConfig(learn_steps=1, pairs_a_step=100, learning_rate=0.125, sparsity=0.3))
    clear = share.abs() > 0.3 + 1e-4
    assert bool((found[share.abs() < 0.3 - 1e-4] == 1).all())
    torch.testing.assert_close(found[clear], (1 - 0.125 * share.sign() * (share.abs() - 0.3))[clear], rtol=0, atol=1e-5)


LONG = RepairConfig(learn_steps=6, pairs_a_step=4, learning_rate=0.9, sparsity=0.1)


def test_gates_stay_between_0_and_2_and_weights_as_they_are(tiny, monkeypatch):
    seen: list[Tensor] = []
    moved = learning._moved
    monkeypatch.setattr(learning, "_moved", lambda *args: seen.append(moved(*args)) or seen[-1])
    before = {name: weight.clone() for name, weight in tiny.state_dict().items()}
    wanted = {name: weight.requires_grad for name, weight in tiny.named_parameters()}
    found = learnt_gates(tiny, PAIRS, 0.7, config=LONG)
    assert len(seen) == 6 and all(float(each.min()) >= 0 and float(each.max()) <= 2 for each in seen)
    assert torch.equal(found, seen[-1]) and {0.0, 2.0} & {*found.flatten().tolist()}
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.state_dict().items())
    assert all(weight.grad is None and weight.requires_grad == wanted[name] for name, weight in tiny.named_parameters())
    assert not any(module._forward_hooks for module in tiny.modules())


def test_the_same_gates_wherever_they_are_learnt(tiny):
    found = learnt_gates(tiny, PAIRS, 0.7, config=LONG)
    assert torch.equal(learnt_gates(tiny, PAIRS, 0.7, config=LONG), found)
    with torch.inference_mode():
        inside = learnt_gates(tiny, PAIRS, 0.7, config=LONG)
    with torch.no_grad():
        assert torch.equal(learnt_gates(tiny, PAIRS, 0.7, config=LONG), found)
    assert torch.equal(inside, found) and not inside.is_inference()
    torch.testing.assert_close(learnt_gates(tiny, PAIRS, 0.7, config=LONG, max_tokens=90), found, rtol=0, atol=1e-4)
    assert not torch.equal(learnt_gates(tiny, PAIRS, 0.7, config=replace(LONG, seed=1)), found)


def test_gates_are_learnt_of_the_edited_model(tiny):
    """A zeroed neuron has no gradient; a halved model's gates are those of the model with halved neurons."""
    zeroed = Gates(torch.ones(2, 48).index_fill(1, torch.tensor([5, 6]), 0.0))
    found = learnt_gates(tiny, PAIRS, 0.7, config=ONE_STEP, interventions=[zeroed])
    assert bool((found[:, [5, 6]] == 1).all()) and bool((found != 1).any())


def test_a_loss_that_is_not_finite_is_refused():
    broken = tiny_reward_model()
    with torch.no_grad():
        broken.blocks[1].mlp.W_out[3] = torch.inf
    assert "the loss of gates is not finite" in refusal(learnt_gates, broken, PAIRS, 0.7, config=ONE_STEP)
