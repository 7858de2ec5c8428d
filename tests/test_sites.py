"""Neuron sets as sets, their selection by score, and hook names against a real model's."""

import json
import random
from collections import Counter
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet, tied_at_cut
from tl_reward.sites import Site, SiteKind

SEEDS = range(10)


def random_coords(seed: int) -> list[tuple[int, int]]:
    """With repeats, in no order, and at times empty."""
    rng = random.Random(seed)
    return [(rng.randrange(4), rng.randrange(5)) for _ in range(rng.randrange(15))]


def random_sets(seed: int) -> tuple[NeuronSet, NeuronSet, NeuronSet]:
    return NeuronSet(random_coords(seed)), NeuronSet(random_coords(seed + 100)), NeuronSet(random_coords(seed + 200))


# Set algebra


def test_sorted_and_unique():
    assert NeuronSet([(1, 4), (0, 2), (1, 4), (0, 1)]).coords == ((0, 1), (0, 2), (1, 4))
    assert NeuronSet().coords == ()


@pytest.mark.parametrize("seed", SEEDS)
def test_algebra_is_that_of_sets(seed: int):
    a, b, _ = random_sets(seed)
    for ours, theirs in ((a | b, set(a) | set(b)), (a & b, set(a) & set(b)), (a - b, set(a) - set(b))):
        assert list(ours) == sorted(theirs)
        assert len(ours) == len(theirs)
    for coord in ((0, 0), (3, 4), (2, 2)):
        assert (coord in a) == (coord in set(a.coords))


@pytest.mark.parametrize("seed", SEEDS)
def test_laws(seed: int):
    a, b, c = random_sets(seed)
    assert a | b == b | a
    assert a & b == b & a
    assert (a | b) | c == a | (b | c)
    assert a & (b | c) == (a & b) | (a & c)
    assert a - (b | c) == (a - b) & (a - c)
    assert (a - b) | (a & b) == a
    assert a | NeuronSet() == a
    assert a - a == NeuronSet()


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_sets_have_equal_hashes(seed: int):
    coords = random_coords(seed)
    a, b = NeuronSet(coords), NeuronSet(reversed(coords))
    assert a == b
    assert hash(a) == hash(b)
    assert {a, b, a | NeuronSet([(9, 9)])} == {b, NeuronSet([*coords, (9, 9)])}


def test_set_cannot_be_changed():
    neurons = NeuronSet([(0, 1)])
    with pytest.raises(AttributeError):
        neurons.coords = ()  # pyright: ignore[reportAttributeAccessIssue] - that it is refused is the test


def test_empty_set_is_false():
    assert not NeuronSet()
    assert NeuronSet([(0, 0)])


@pytest.mark.parametrize("seed", SEEDS)
def test_mask_and_back(seed: int):
    neurons = NeuronSet(random_coords(seed))
    mask = neurons.mask(4, 5)
    assert mask.sum() == len(neurons)
    assert all(mask[layer, neuron] for layer, neuron in neurons)
    assert NeuronSet.from_mask(mask) == neurons


@pytest.mark.parametrize("seed", SEEDS)
def test_json_and_back(seed: int):
    neurons = NeuronSet(random_coords(seed))
    assert NeuronSet.from_json(json.loads(json.dumps(neurons.to_json()))) == neurons


def test_by_layer():
    layers = NeuronSet([(2, 1), (0, 3), (2, 0)]).by_layer()
    assert {layer: index.tolist() for layer, index in layers.items()} == {0: [3], 2: [0, 1]}


# Selection


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [0, 1, 7, 19, 20])
def test_top_is_exactly_k_and_ties_go_to_the_lower_place(k: int, seed: int):
    # Three different scores among 20 neurons: ties at nearly every cut.
    score = torch.randint(3, (4, 5), generator=torch.Generator().manual_seed(seed)).float()
    by_hand = sorted((-score[i, j].item(), i, j) for i in range(4) for j in range(5))[:k]
    assert NeuronSet.top(score, k=k) == NeuronSet((i, j) for _, i, j in by_hand)


def test_top_is_by_value_and_not_by_magnitude():
    assert NeuronSet.top(torch.tensor([[-5.0, 1.0], [0.5, -0.1]]), k=2).coords == ((0, 1), (1, 0))


@pytest.mark.parametrize(("fraction", "count"), [(0.1, 2), (0.13, 3), (0.5, 10), (1.0, 20)])
def test_top_fraction(fraction: float, count: int):
    assert len(NeuronSet.top(torch.zeros(4, 5), fraction=fraction)) == count


def test_a_fraction_of_less_than_one_neuron_is_refused():
    with pytest.raises(InputError, match="less than one neuron"):
        NeuronSet.top(torch.zeros(4, 5), fraction=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_top_of_other_precisions(dtype: torch.dtype):
    assert NeuronSet.top(torch.tensor([[1.0, 3.0], [3.0, 2.0]], dtype=dtype), k=2).coords == ((0, 1), (1, 0))


@pytest.mark.parametrize("arguments", [{}, {"k": 1, "fraction": 0.5}])
def test_top_wants_either_k_or_fraction(arguments: dict):
    with pytest.raises(InputError, match="either k or fraction"):
        NeuronSet.top(torch.zeros(2, 2), **arguments)


@pytest.mark.parametrize(("k", "ties"), [(0, 0), (1, 2), (2, 1), (3, 0), (4, 0), (5, 1), (6, 0)])
def test_tied_at_cut(k: int, ties: int):
    # In order: 3 3 3 | 2 | 1 1
    assert tied_at_cut(torch.tensor([[3.0, 1.0, 3.0], [2.0, 3.0, 1.0]]), k) == ties


@pytest.mark.parametrize("seed", SEEDS)
def test_matched_random(seed: int):
    neurons = NeuronSet(random_coords(seed))
    drawn = neurons.matched_random(10, seed=seed)
    assert not drawn & neurons
    assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in neurons)
    drawn.mask(4, 10)  # raises where a neuron is outside the model
    assert drawn == neurons.matched_random(10, seed=seed)


def test_matched_random_differs_by_seed_and_reaches_every_other_neuron():
    neurons = NeuronSet([(1, 0), (1, 3)])
    draws = {neurons.matched_random(8, seed=seed) for seed in range(60)}
    assert len(draws) > 10  # of (6 choose 2) = 15
    assert set().union(*draws) == {(1, n) for n in (1, 2, 4, 5, 6, 7)}


def test_matched_random_of_half_a_layer_is_the_other_half():
    assert NeuronSet([(0, 0), (0, 2)]).matched_random(4, seed=3).coords == ((0, 1), (0, 3))


def test_matched_random_of_over_half_a_layer():
    with pytest.raises(InputError, match="layer 2: 3 of 5 neurons"):
        NeuronSet([(0, 0), (2, 0), (2, 1), (2, 2)]).matched_random(5, seed=0)


# Sites of a real model


@pytest.fixture(scope="module")
def model() -> HookedRewardModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        pad_token_id=0,
        initializer_range=0.5,
    )
    config.num_labels = 1
    return HookedRewardModel.from_hf(LlamaForSequenceClassification(config).eval(), device="cpu")


@pytest.fixture(scope="module")
def cache(model: HookedRewardModel):
    return model.run_with_cache(torch.tensor([[3, 5, 7, 9]]))[1]


@pytest.mark.parametrize("kind", get_args(SiteKind))
def test_hook_name_is_one_of_the_models(kind: SiteKind, model: HookedRewardModel):
    assert Site(0, kind).hook_name in model.hook_dict


def test_hook_names_are_all_different():
    assert len({Site(layer, kind).hook_name for kind in get_args(SiteKind) for layer in range(3)}) == 3 * len(get_args(SiteKind))


def test_neuron_sites_have_a_column_a_neuron(model: HookedRewardModel, cache):
    assert {cache[Site(0, kind).hook_name].shape for kind in ("mlp_post", "mlp_gate")} == {(1, 4, model.cfg.d_mlp)}


def test_neuron_sites_are_what_they_say(model: HookedRewardModel, cache):
    at = {kind: cache[Site(0, kind).hook_name] for kind in get_args(SiteKind)}
    normed = cache["blocks.0.ln2.hook_normalized"]
    torch.testing.assert_close(at["mlp_gate"], torch.nn.functional.silu(at["mlp_pre"]))
    torch.testing.assert_close(at["mlp_post"], at["mlp_gate"] * (normed @ model.blocks[0].mlp.W_in))
    torch.testing.assert_close(at["mlp_out"], at["mlp_post"] @ model.blocks[0].mlp.W_out)


def test_residual_sites_add_up(cache):
    at = {kind: cache[Site(0, kind).hook_name] for kind in get_args(SiteKind)}
    torch.testing.assert_close(at["resid_mid"], at["resid_pre"] + at["attn_out"])
    torch.testing.assert_close(at["resid_post"], at["resid_mid"] + at["mlp_out"])


def test_a_set_of_what_torch_and_numpy_give():
    mask = torch.tensor([[False, True], [True, False]])
    expected = NeuronSet([(0, 1), (1, 0)])
    assert NeuronSet(mask.nonzero()) == NeuronSet(np.argwhere(mask.numpy())) == expected
    assert NeuronSet((0, int(i)) for i in torch.tensor([1, 0])) == NeuronSet([(0, 0), (0, 1)])
    with pytest.raises(InputError, match="of whole numbers"):
        NeuronSet(mask.float())
