"""Gates as an edit of a run and as an edit of weights: both against plain hooks, on every architecture."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import hf_model
from helpers.refusals import refusal
from helpers.repair_pairs import plain_pairs
from torch import Tensor

from tl_reward.analyses.attribution import attribute
from tl_reward.analyses.discovery import discover
from tl_reward.interventions.ablations import ScaleAblation, ZeroAblation
from tl_reward.interventions.folding import check_foldable, with_gates
from tl_reward.interventions.gates import Gates
from tl_reward.model.reward_model import HookedRewardModel, load
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import unit_shape

PAIRS = plain_pairs("gates", 3)


def drawn(model: HookedRewardModel, *, seed: int = 0) -> Tensor:
    """Most neurons stay as they are; the others are zeroed, halved or scaled by any number up to 2."""
    generator = torch.Generator().manual_seed(seed)
    shape = unit_shape(model.cfg, "mlp_post")
    kind = torch.randint(6, shape, generator=generator)
    gates = torch.where(
        kind == 0, 0.0, torch.where(kind == 1, 0.5, torch.where(kind == 2, 2 * torch.rand(shape, generator=generator), 1.0))
    )
    gates[-1, :7] = torch.tensor([0, 0.5, 1, 1.25, 2, 1e-3, 0.3])
    return gates


def plain(model: HookedRewardModel, gates: Tensor) -> np.ndarray:
    """Rewards of each pair's sides, one transcript at a time, with a hook that multiplies."""

    def hook(layer: int) -> Callable[..., Tensor]:
        return lambda activation, hook: activation * gates[layer]

    hooks: list[Any] = [(f"blocks.{layer}.mlp.hook_post", hook(layer)) for layer in range(len(gates))]
    encoded = encode_for(model, PAIRS)
    with torch.no_grad():
        rewards = [model.run_with_hooks(torch.tensor([row.ids]), fwd_hooks=hooks).item() for row in encoded.rows]
    return np.array([[rewards[row] for row in side] for side in (encoded.chosen, encoded.rejected)])


def rewards(found: Any) -> np.ndarray:
    return np.array([found.chosen, found.rejected])


def test_gates_are_a_plain_hook_one_transcript_at_a_time_and_an_edit_of_weights(hooked):
    """Three ways to the same rewards, packed or not; the model is as it was, to the bit."""
    gates = drawn(hooked)
    before = {name: weight.clone() for name, weight in hooked.state_dict().items()}
    origin = hooked.origin
    expected = plain(hooked, gates)
    clean = rewards(score(hooked, PAIRS))
    assert np.abs(expected - clean).max() > 1e-3  # the edit does something
    np.testing.assert_allclose(rewards(score(hooked, PAIRS, interventions=[Gates(gates)])), expected, rtol=0, atol=1e-5)
    unpacked = deepcopy(Gates(gates))
    object.__setattr__(unpacked, "per_token", False)
    np.testing.assert_allclose(rewards(score(hooked, PAIRS, interventions=[unpacked])), expected, rtol=0, atol=1e-5)
    copy = with_gates(hooked, gates)
    np.testing.assert_allclose(rewards(score(copy, PAIRS)), expected, rtol=0, atol=1e-5)
    assert hooked.origin == origin and copy.origin.weights != origin.weights
    after = hooked.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    changed = {name for name, weight in copy.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {f"blocks.{layer}.mlp.W_out" for layer in range(3)}
    untouched = gates == 1
    for layer, block in enumerate(copy.blocks):
        assert torch.equal(block.mlp.W_out[untouched[layer]], hooked.blocks[layer].mlp.W_out[untouched[layer]])


def test_gates_are_the_ablations_that_they_are(hooked):
    shape = unit_shape(hooked.cfg, "mlp_post")
    neurons = NeuronSet([(0, 0), (0, 47), (2, 5)])
    mask = neurons.mask(*shape)
    conditions = [[ZeroAblation(neurons)], [ScaleAblation(neurons, 0.3)], [ScaleAblation(neurons, 1.7)], []]
    gated = [[Gates(torch.where(mask, to, 1.0))] for to in (0.0, 0.3, 1.7, 1.0)]
    for one, other in zip(sweep(hooked, PAIRS, conditions), sweep(hooked, PAIRS, gated), strict=True):
        np.testing.assert_array_equal(rewards(one), rewards(other))
    assert Gates(torch.where(mask, 0.0, 1.0)).neurons == neurons and len(Gates(torch.ones(*shape)).neurons) == 0


def test_whatever_is_asked_is_asked_of_the_gated_model(tiny):
    """Gradients go through gates. What the folded model's neurons are, times their gates, is what the edited model's are."""
    gates = drawn(tiny)
    edits, folded = [Gates(gates)], with_gates(tiny, gates)
    one, other = attribute(tiny, PAIRS, interventions=edits), attribute(folded, PAIRS)
    torch.testing.assert_close(one.effect, other.effect, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(one.error, other.error, rtol=1e-4, atol=1e-6)
    assert one.effect[gates == 0].abs().max() == 0 < one.effect.abs().max()
    found, expected = discover(tiny, PAIRS, interventions=edits), discover(folded, PAIRS)
    for side in (0, 1):
        torch.testing.assert_close(
            found.by_side["mlp_post", "mean"][side], gates * expected.by_side["mlp_post", "mean"][side], rtol=1e-4, atol=1e-6
        )


def test_gates_follow_edits_before_them(tiny):
    neurons = NeuronSet([(0, 3), (1, 7)])
    quarter = torch.where(neurons.mask(2, 48), 0.25, 1.0)
    both = score(tiny, PAIRS, interventions=[ScaleAblation(neurons, 2.0), Gates(torch.where(neurons.mask(2, 48), 0.125, 1.0))])
    np.testing.assert_array_equal(rewards(both), rewards(score(tiny, PAIRS, interventions=[Gates(quarter)])))


@pytest.mark.parametrize(
    ("gates", "says"),
    [
        (torch.ones(2, 47), "2 layers of 47"),  # also where no neuron is edited
        (torch.ones(3, 48), "3 layers of 48"),
        (torch.ones(2, 1) / 2, "2 layers of 1"),  # which would fit every model by broadcasting
        (torch.full((2, 48), -0.5), "gates must be finite and at least 0; 96 of 96 are not, such as -0.5 of neuron 0.0"),
        (torch.ones(2, 48).index_fill(1, torch.tensor([5]), torch.nan), "2 of 96 are not, such as nan of neuron 0.5"),
        (torch.ones(2, 48).index_fill(0, torch.tensor([1]), torch.inf), "48 of 96 are not, such as inf of neuron 1.0"),
    ],
)
def test_bad_gates_are_refused_in_a_line(tiny, gates: Tensor, says: str):
    run, folded = refusal(lambda: score(tiny, PAIRS, interventions=[Gates(gates)])), refusal(with_gates, tiny, gates)
    assert says in run
    of_shape = f"gates must have the model's shape [2, 48], got {list(gates.shape)}"
    assert folded == (of_shape if tuple(gates.shape) != (2, 48) else run)


def test_a_folded_model_says_that_it_was_edited(tmp_path):
    tiny_hf_model().save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path, device="cpu")
    folded = with_gates(model, drawn(model))
    assert folded.origin.edited and not model.origin.edited and folded.origin.weights != model.origin.weights
    assert not with_gates(model, torch.ones(2, 48)).origin.edited


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_fold_is_exact_to_the_rounding_of_the_weights(dtype: torch.dtype):
    model = tiny_reward_model().to(dtype)
    gates = torch.full((2, 48), 1 / 3, dtype=torch.float64)
    for layer, block in enumerate(with_gates(model, gates).blocks):
        expected = (model.blocks[layer].mlp.W_out.double() / 3).to(dtype)
        assert block.mlp.W_out.dtype == dtype
        torch.testing.assert_close(block.mlp.W_out, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)


def test_a_model_that_was_folded_in_inference_mode_takes_gradients(tiny):
    gates = drawn(tiny)
    with torch.inference_mode():
        folded = with_gates(tiny, gates)
    torch.testing.assert_close(attribute(folded, PAIRS).effect, attribute(with_gates(tiny, gates), PAIRS).effect)


def test_a_gate_that_half_precision_cannot_hold_is_refused():
    model = tiny_reward_model().half()
    gates = torch.ones(unit_shape(model.cfg, "mlp_post"))
    gates[1, 4] = 1e9
    says = "a gate of layer 1, at most 1e+09, makes an output weight too large for float16"
    assert refusal(with_gates, model, gates) == says


def test_output_weights_that_are_shared_are_refused():
    shared = tiny_reward_model()
    shared.blocks[1].mlp.W_out = shared.blocks[0].mlp.W_out
    message = refusal(with_gates, shared, torch.ones(2, 48))
    assert message.startswith("blocks.0.mlp.W_out and blocks.1.mlp.W_out are one weight")
    same = tiny_reward_model()
    same.blocks[1].mlp = same.blocks[0].mlp
    assert "blocks.0.mlp.W_out and blocks.1.mlp.W_out are one weight" in refusal(check_foldable, same)
    viewed = tiny_reward_model()
    viewed.blocks[1].mlp.W_out = torch.nn.Parameter(viewed.blocks[0].mlp.W_out.detach())  # another parameter of the same memory
    assert "are one weight" in refusal(check_foldable, viewed)


def test_weights_that_lie_in_one_storage_are_not_shared():
    """As those of a file that is mapped into memory: one storage, of which each weight is a part."""
    model = tiny_reward_model()
    outs = [block.mlp.W_out for block in model.blocks]
    storage = torch.cat([weight.detach().flatten() for weight in outs])
    for block, part in zip(model.blocks, storage.split([weight.numel() for weight in outs]), strict=True):
        block.mlp.W_out = torch.nn.Parameter(part.view(48, 32), requires_grad=False)
    gates = drawn(model)
    folded = with_gates(model, gates)
    np.testing.assert_allclose(
        rewards(score(folded, PAIRS)), rewards(score(tiny_reward_model(), PAIRS, interventions=[Gates(gates)])), atol=1e-5
    )
    np.testing.assert_array_equal(
        rewards(score(model, PAIRS)), rewards(score(tiny_reward_model(), PAIRS))
    )  # the original's storage is its own


def test_other_weights_may_be_tied():
    tied = hf_model("gemma2")
    model = HookedRewardModel.from_hf(tied, byte_tokenizer())
    model.blocks[0].ln1.w = model.blocks[1].ln1.w
    check_foldable(model)
