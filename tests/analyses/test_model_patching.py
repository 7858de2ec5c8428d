"""One reward model patched from another: everything gives the other's rewards, and the figures on hand-made scores."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.architectures import ARCHITECTURES, hf_model
from helpers.linear_models import linear_model
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.ablation_curves import AblationCurve, AblationPoint
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.analyses.model_patching import ModelPatching, compare_gain_with_exact, gain, patch_edit, patch_models
from tl_reward.data.encoding import EndAt
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import ZeroAblation
from tl_reward.interventions.patches import HeadPatch, Patch, patch_between
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score, sweep
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)


def two(name: str) -> tuple[HookedRewardModel, HookedRewardModel]:
    """Two models of one architecture, all weights different."""
    one = HookedRewardModel.from_hf(hf_model(name), byte_tokenizer())
    changed = hf_model(name)
    torch.manual_seed(1)
    for parameter in changed.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return one, HookedRewardModel.from_hf(changed, byte_tokenizer())


def embeddings(model: HookedRewardModel) -> list[str]:
    return ["hook_embed", *(["hook_pos_embed"] if model.cfg.positional_embedding_type == "standard" else [])]


def all_neurons(model: HookedRewardModel) -> NeuronSet:
    return NeuronSet((layer, neuron) for layer in range(model.cfg.n_layers) for neuron in range(int(model.cfg.d_mlp or 0)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_patching_everything_gives_the_sources_rewards(name):
    model, other = two(name)
    source = patch_between(model, other)
    written = [Site(layer, kind) for layer in range(model.cfg.n_layers) for kind in ("attn_out", "mlp_out")]
    clean, patched = sweep(model, PAIRS, [(), [Patch(source, [*embeddings(model), *written]), HeadPatch(other)]], max_length=512)
    expected = score(other, PAIRS, max_length=512)
    assert patched.chosen == pytest.approx(expected.chosen, abs=1e-4) and patched.rejected == pytest.approx(expected.rejected, abs=1e-4)
    assert abs(clean.chosen - expected.chosen).min() > 1e-3
    # Every neuron, with what it writes with: the output weights are the model's own, so let them be the same.
    block: Any
    their: Any
    for block, their in zip(model.blocks, other.blocks, strict=True):
        block.mlp.W_out.data, block.mlp.b_out.data = their.mlp.W_out.data.clone(), their.mlp.b_out.data.clone()
        norm, theirs = (each.output_norms().mlp for each in (block, their))
        if norm is not None:
            norm.w.data = theirs.w.data.clone()
    attention = [Site(layer, "attn_out") for layer in range(model.cfg.n_layers)]
    edits = [Patch(source, [*embeddings(model), *attention]), Patch(source, all_neurons(model)), HeadPatch(other)]
    patched = score(model, PAIRS, interventions=edits, max_length=512)
    assert patched.chosen == pytest.approx(expected.chosen, abs=1e-4) and patched.rejected == pytest.approx(expected.rejected, abs=1e-4)


def test_a_source_that_reads_rewards_at_another_token_is_refused():
    """The source reads the model's tokens: one that appends a token of its own, or passes over pads, would be read at the wrong one."""
    model, ended, passing = tiny_reward_model(), tiny_reward_model(seed=1), tiny_reward_model(seed=1)
    ended.end = EndAt(5, appended=True)
    passing.readout = "hf"
    ranking = torch.rand(2, 48)
    with pytest.raises(InputError, match=r"^the models must read rewards at the same token: end is None in the model, EndAt\(token=5, app"):
        patch_models(model, ended, PAIRS, ranking)
    with pytest.raises(InputError, match=r"unread_token is None in the model, 0 in the source$"):
        patch_models(model, passing, PAIRS, ranking)
    model.end = ended.end
    found = patch_models(model, ended, PAIRS, ranking, fractions=(0.1,), draws=1)
    assert found.source.chosen == pytest.approx(score(ended, PAIRS).chosen, abs=1e-5)


@pytest.mark.parametrize("where", ["readout", "response", "all"])
def test_a_patch_at_some_tokens_is_the_same_packed_and_one_by_one(where):
    model, other = two("llama")
    source = patch_between(model, other)
    edits = [Patch(source, NeuronSet([(0, 3), (1, 7), (2, 11)]), where=where), Patch(source, [Site(1, "attn_out")], where=where)]
    packed = score(model, PAIRS, interventions=edits, max_length=512)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda a, hook: None)]):  # somebody listens: a transcript a row
        plain = score(model, PAIRS, interventions=edits, max_length=512)
    assert packed.chosen == pytest.approx(plain.chosen, abs=1e-4) and packed.rejected == pytest.approx(plain.rejected, abs=1e-4)
    assert abs(packed.chosen - score(model, PAIRS, max_length=512).chosen).max() > 1e-4


def test_response_tokens_by_hand():
    model, other = two("gpt2")
    from tl_reward.running.batches.batching import encode_for

    encoded = encode_for(model, PAIRS[:1], max_length=512)
    row = encoded.rows[encoded.chosen[0]]
    tokens, name = torch.tensor([row.ids]), Site(1, "mlp_post").hook_name
    _, cache = other.run_with_cache(tokens)

    def fn(activation, hook):
        activation = activation.clone()
        activation[:, row.response_start :, 5] = cache[name][:, row.response_start :, 5]
        return activation

    expected = model.run_with_hooks(tokens, fwd_hooks=[(name, fn)]).item()
    patch = Patch(patch_between(model, other), NeuronSet([(1, 5)]), where="response")
    assert score(model, PAIRS[:1], interventions=[patch], max_length=512).chosen[0] == pytest.approx(expected, abs=1e-4)


def test_gain_is_exact_on_a_linear_model():
    model, other = linear_model(), linear_model()
    torch.manual_seed(2)
    for parameter in other.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter) if not any(parameter is b.attn.W_Q for b in other.blocks) else 0
    for block in other.blocks:
        for name in ("W_Q", "W_K", "b_Q", "b_K"):
            block.attn.get_parameter(name).data.zero_()
    found = gain(model, other, PAIRS, max_length=512)
    neurons = NeuronSet((layer, neuron) for layer in range(3) for neuron in range(0, 48, 12))
    edit = patch_edit(model, other)
    exact = neuron_effects(model, PAIRS, neurons, kind="patch", edit=edit, max_length=512).margin.mean(1)
    assert [-found.effect[place].item() for place in neurons] == pytest.approx(exact, abs=1e-5)
    assert abs(exact).max() > 1e-3
    checked = compare_gain_with_exact(model, other, PAIRS, {"gradient": found.effect}, top=4, random=8, max_length=512)
    assert checked.agreement["gradient"].spearman.value == pytest.approx(1) and checked.effects.kind == "patch"


def test_gain_at_some_tokens_is_exact_on_a_linear_model_too():
    model, other = linear_model(), linear_model()
    torch.manual_seed(3)
    for block in other.blocks:
        block.mlp.W_in.data += 0.05 * torch.randn_like(block.mlp.W_in)
    neurons = NeuronSet((layer, neuron) for layer in range(3) for neuron in range(0, 48, 16))
    for where in ("readout", "response"):
        found = gain(model, other, PAIRS, where=where, max_length=512)
        edit = patch_edit(model, other, where=where)
        exact = neuron_effects(model, PAIRS, neurons, kind="patch", edit=edit, max_length=512).margin.mean(1)
        assert [-found.effect[place].item() for place in neurons] == pytest.approx(exact, abs=1e-5)
        assert abs(exact).max() > 1e-4


def scores_of(margins: list[float]) -> Scores:
    names = tuple(map(str, range(len(margins))))
    return Scores(names, np.array(margins), np.zeros(len(margins)), names, ("",) * len(margins))


def test_recovered_and_kept_of_hand_made_scores():
    source, clean = scores_of([1.0, 2.0, 1.0, -1.0, 1.0]), scores_of([-1.0, -2.0, 3.0, -1.0, 1.0])
    patched, drawn = scores_of([0.5, -0.5, 1.0, 1.0, -1.0]), scores_of([-1.0, -2.0, 3.0, -1.0, 1.0])
    point = AblationPoint(0.5, NeuronSet([(0, 0)]), 0, patched, (drawn,))
    found = ModelPatching(source, AblationCurve(clean, (point,)))
    assert found.lost().tolist() == [True, True, False, False, False]
    assert found.recovered(patched).value == 0.5 and found.recovered(patched).n == 2
    assert found.kept(patched).value == 0.5 and found.kept(drawn).value == 1
    (entry,) = found.to_json()["points"]
    assert entry["recovered"]["value"] == 0.5 and entry["random_recovered"] == [0] and entry["random_kept"] == [1]
    none = ModelPatching(clean, AblationCurve(clean, (point,)))
    assert none.to_json()["points"][0]["recovered"]["value"] is None and none.to_json()["lost"] == 0


def test_a_curve_is_made_of_single_patches_beside_random_ones():
    model, other = two("llama")
    ranking = gain(model, other, PAIRS, max_length=512).effect
    found = patch_models(model, other, PAIRS, ranking, fractions=(0.1, 1.0), draws=2, max_length=512)
    first, whole = found.curve.points
    assert first.neurons == NeuronSet.top(ranking, fraction=0.1) and len(first.random) == 2 and whole.random == ()
    expected = score(model, PAIRS, interventions=[Patch(patch_between(model, other), first.neurons)], max_length=512)
    assert first.ranked.chosen == pytest.approx(expected.chosen, abs=1e-5)
    assert found.source.chosen == pytest.approx(score(other, PAIRS, max_length=512).chosen, abs=1e-5)
    # An edit of the model is none of its source.
    zero = ZeroAblation(all_neurons(model))
    under = patch_models(model, other, PAIRS, ranking, fractions=(0.1,), draws=0, max_length=512, interventions=[zero])
    assert under.source.chosen == pytest.approx(found.source.chosen, abs=1e-5)
    assert under.curve.clean.chosen == pytest.approx(score(model, PAIRS, interventions=[zero], max_length=512).chosen, abs=1e-5)


def test_models_that_do_not_fit_are_refused(tiny):
    other = HookedRewardModel.from_hf(hf_model("llama"), byte_tokenizer())
    with pytest.raises(InputError, match="must have the same shape: n_layers is 2 in llama, 3 in llama"):
        patch_between(tiny, other)
    with pytest.raises(InputError, match="original_architecture is"):
        gain(HookedRewardModel.from_hf(hf_model("gpt2"), byte_tokenizer()), other, PAIRS)
    words = tiny_reward_model()
    assert words.tokenizer is not None
    words.tokenizer.add_tokens(["<new>"])
    with pytest.raises(InputError, match="must have the same tokenizer: the vocabularies of llama and llama differ"):
        patch_models(tiny, words, PAIRS, torch.zeros(2, 48))
    unfolded = tiny_reward_model()
    dict(unfolded.named_parameters())["ln_final.w"].data *= 2
    with pytest.raises(InputError, match="the final norm of llama is not folded into its head"):
        patch_between(tiny, unfolded)
    with pytest.raises(InputError, match="the final norm of llama is not folded into its head"):
        HeadPatch(unfolded)
    with pytest.raises(InputError, match="the baseline must be another model"):
        gain(tiny, tiny, PAIRS)
    with pytest.raises(InputError, match=r"model's shape \[2, 48\], got \[3, 48\]"):
        patch_models(tiny, tiny_reward_model(seed=1), PAIRS, torch.zeros(3, 48))
