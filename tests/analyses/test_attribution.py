"""Attribution: the gradient that it says it is, in one pass whatever the batches."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers.linear_models import linear_model
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.attribution import attribute, estimate
from tl_reward.analyses.discovery import discover
from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.data.pairs import pairs_of_row
from tl_reward.data.readers import load_pairs
from tl_reward.errors import InputError
from tl_reward.measures.names import METHODS
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import sample_activations
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)


@pytest.mark.parametrize("site", ["mlp_post", "mlp_gate"])
def test_it_is_activation_times_gradient_summed_over_tokens(hooked, site):
    encoded = encode_for(hooked, PAIRS, max_length=512)
    expected = torch.zeros(hooked.cfg.n_layers, hooked.cfg.d_mlp)
    kept = {}

    def keep(activation, hook):
        activation.retain_grad()
        kept[hook.name] = activation

    hooks = [(Site(layer, site).hook_name, keep) for layer in range(hooked.cfg.n_layers)]
    for sign, rows in ((1, encoded.chosen), (-1, encoded.rejected)):
        for row in rows:  # one transcript at a time, without packing or padding
            embedded = hooked(torch.tensor([encoded.rows[row].ids]), None, stop_at_layer=0).requires_grad_()
            with hooked.hooks(fwd_hooks=hooks):
                (sign * hooked(embedded, start_at_layer=0).sum()).backward()
            for layer in range(hooked.cfg.n_layers):
                activation = kept[Site(layer, site).hook_name]
                expected[layer] += (activation * activation.grad).sum((0, 1)).detach()
    expected /= len(encoded.pairs)
    found = attribute(hooked, PAIRS, site=site, max_length=512)
    torch.testing.assert_close(found.effect, expected, atol=1e-5, rtol=1e-3)


class Shrink:
    """Takes a thousandth off one neuron."""

    per_token = True

    def __init__(self, layer, neuron):
        self.name, self.neuron = Site(layer, "mlp_post").hook_name, neuron

    def hooks(self, batch):
        def fn(activation, hook):
            activation = activation.clone()
            activation[..., self.neuron] *= 0.999
            return activation

        return [(self.name, fn)]


def test_it_predicts_what_a_small_edit_takes_off_the_margin():
    double = tiny_reward_model().to(torch.float64)  # a thousandth is little, for float32
    found = attribute(double, PAIRS).effect
    clean = score(double, PAIRS).margin.mean()
    for layer, neuron in [(0, 3), (0, 17), (1, 5), (1, 40)]:
        drop = clean - score(double, PAIRS, interventions=[Shrink(layer, neuron)]).margin.mean()
        assert 1000 * drop == pytest.approx(found[layer, neuron].item(), rel=0.02, abs=1e-4)


def test_order_and_budget_do_not_matter(tiny):
    one, other = attribute(tiny, PAIRS), attribute(tiny, PAIRS[::-1], max_tokens=1400)
    torch.testing.assert_close(one.effect, other.effect, atol=1e-6, rtol=1e-4)
    assert sorted(one.pairs) == sorted(other.pairs)


@pytest.mark.parametrize("steps", [None, 2])
def test_weights_get_no_gradient_and_no_hook_stays(steps):
    trainable = tiny_reward_model().requires_grad_(True)
    with torch.inference_mode():  # gradients switched off, as in many notebooks
        found = attribute(trainable, PAIRS, steps=steps)
    assert found.effect.abs().sum() > 0
    assert all(parameter.grad is None for parameter in trainable.parameters())
    assert not any(point._forward_hooks for point in trainable.hook_points())


def test_it_is_the_same_with_one_transcript_a_row_and_near_in_bfloat16(tiny):
    found = attribute(tiny, PAIRS)
    seen = []
    with tiny.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda a, hook: seen.append(len(a)))]):
        torch.testing.assert_close(attribute(tiny, PAIRS).effect, found.effect, atol=1e-5, rtol=1e-3)
    assert sum(seen) == len(encode_for(tiny, PAIRS).rows)
    long = load_pairs("embedded", split="find", limit=4)  # over few tokens, roundings do not even out
    found, half = attribute(tiny, long), attribute(tiny_reward_model().to(torch.bfloat16), long)
    assert (half.effect - found.effect).abs().max() < 0.05 * found.effect.abs().max()


def test_a_row_counts_as_often_as_its_pairs(tiny):
    (one, other) = pairs_of_row({"prompt": "Hi", "chosen": ["Hello there!", "Good day."], "rejected": ["No."]}, "a:1")
    both, single = attribute(tiny, [one, other]), [attribute(tiny, [pair]).effect for pair in (one, other)]
    torch.testing.assert_close(both.effect, (single[0] + single[1]) / 2, atol=1e-6, rtol=1e-4)


def test_a_gradient_that_is_not_finite_names_the_site_and_the_pair():
    broken = tiny_reward_model()
    broken.unembed.W_U.data[0] = float("nan")
    with pytest.raises(InputError, match=rf"gradient at blocks.1.mlp.hook_post.*not finite.*{PAIRS[0].id}"):
        attribute(broken, PAIRS)


def test_a_site_that_is_no_neurons_is_refused(tiny):
    with pytest.raises(InputError, match="mlp_post, mlp_gate, attn_z, got 'resid_post'"):
        attribute(tiny, PAIRS, site=cast(Any, "resid_post"))


@pytest.mark.parametrize("site", ["mlp_post", "attn_z"])
@pytest.mark.parametrize("steps", [None, 2])
def test_on_a_linear_model_it_is_exact_ablation(site, steps):
    model = linear_model()
    found = attribute(model, PAIRS, site=site, steps=steps, max_length=512).effect
    places = NeuronSet((layer, unit) for layer in range(3) for unit in range(0, found.shape[1], 1 if site == "attn_z" else 12))
    exact = neuron_effects(model, PAIRS, places, site=site, max_length=512).margin.mean(1)
    if steps is None:  # a path on which all grow together holds later neurons fixed, and counts only what a neuron writes itself
        assert np.array([found[place] for place in places]) == pytest.approx(exact, abs=1e-5)
    last = [i for i, (layer, _) in enumerate(places) if layer == 2 and site == "mlp_post"]
    assert np.array([found[places.coords[i]] for i in last]) == pytest.approx(exact[last], abs=1e-5)
    assert abs(exact).max() > 1e-3


def test_against_the_mean_it_is_exact_mean_ablation_on_a_linear_model():
    model = linear_model()
    mean = discover(model, PAIRS, max_length=512).ranking("mean")
    found = attribute(model, PAIRS, baseline=mean, max_length=512).effect
    places = NeuronSet((layer, unit) for layer in range(3) for unit in range(0, 48, 12))
    exact = neuron_effects(model, PAIRS, places, kind="mean", mean=mean, max_length=512).margin.mean(1)
    assert np.array([found[place] for place in places]) == pytest.approx(exact, abs=1e-5)


def test_against_the_pair_it_is_the_swap_of_aligned_activations(hooked):
    pairs = PAIRS[:2]
    encoded = encode_for(hooked, pairs, max_length=512)
    layer, expected = 1, torch.zeros(hooked.cfg.d_mlp)
    name = Site(layer, "mlp_post").hook_name
    for pair in range(len(pairs)):
        found = {}
        for side, row in (("chosen", encoded.chosen[pair]), ("rejected", encoded.rejected[pair])):
            kept = []
            embedded = hooked(torch.tensor([encoded.rows[row].ids]), None, stop_at_layer=0).requires_grad_()
            with hooked.hooks(fwd_hooks=[(name, lambda a, hook, kept=kept: (a.retain_grad(), kept.append(a))[0])]):
                hooked(embedded, start_at_layer=0).sum().backward()
            found[side] = encoded.rows[row].ids, kept[0][0].detach(), kept[0].grad[0]
        (ids_a, a, grad_a), (ids_b, b, grad_b) = found["chosen"], found["rejected"]
        same = next(i for i, (x, y) in enumerate(zip(ids_a, ids_b, strict=False)) if x != y)
        count = min(len(ids_a), len(ids_b)) - same
        assert count > 0
        for back in range(1, count + 1):
            expected += (a[-back] - b[-back]) * grad_a[-back] - (b[-back] - a[-back]) * grad_b[-back]
    found = attribute(hooked, pairs, baseline="pair", max_length=512)
    torch.testing.assert_close(found.effect[layer], expected / len(pairs), atol=1e-5, rtol=1e-3)


def test_the_standard_error_is_over_prompts(tiny):
    pairs = embedded_pairs("find", 9)
    one_by_one = torch.stack([attribute(tiny, [pair]).effect for pair in pairs])
    found = attribute(tiny, pairs)
    torch.testing.assert_close(found.error, one_by_one.std(0) / 3, atol=1e-6, rtol=1e-3)
    assert found.prompts == 9
    # Twice the same prompt tells nothing new: three pairs of one, and one pair each of four others.
    row = {"prompt": "Hi", "chosen": ["Hello there!", "Good day.", "Yes?"], "rejected": ["No."]}
    several = pairs_of_row(row, "a:1")
    both = attribute(tiny, [*several, *pairs[:4]], max_tokens=600)
    own = [torch.stack([attribute(tiny, [pair]).effect for pair in group]) for group in (several, *([p] for p in pairs[:4]))]
    total = [group.sum(0) for group in own]
    mean = torch.stack(total).sum(0) / 7
    squares = torch.stack([(part - len(group) * mean) ** 2 for part, group in zip(total, own, strict=True)]).sum(0)
    torch.testing.assert_close(both.error, (squares * 5 / 4).sqrt() / 7, atol=1e-6, rtol=1e-3)
    assert (attribute(tiny, several).error == torch.inf).all()
    with tiny.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda a, hook: None)]):  # then a prompt's rows come in several batches
        split = attribute(tiny, [*several, *pairs[:4]], max_tokens=120)
    torch.testing.assert_close(split.error, both.error, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("baseline", ["zero", "pair", "mean"])
@pytest.mark.parametrize("site", ["mlp_gate", "attn_z"])
def test_every_baseline_is_the_same_whatever_the_batches(tiny, baseline, site):
    if baseline == "mean":
        baseline = sample_activations(tiny, PAIRS, site).mean(0)
    one = attribute(tiny, PAIRS, site=site, baseline=baseline, steps=2)
    other = attribute(tiny, PAIRS[::-1], site=site, baseline=baseline, steps=2, max_tokens=1400)
    torch.testing.assert_close(one.effect, other.effect, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(one.error, other.error, atol=1e-6, rtol=1e-4)
    assert one.effect.abs().max() > 1e-3


def test_pairs_encoded_for_a_discovery_can_be_attributed(tiny):
    encoded = encode_for(tiny, PAIRS)
    discover(tiny, encoded)
    torch.testing.assert_close(attribute(tiny, encoded).effect, attribute(tiny, PAIRS).effect, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("site", ["mlp_post", "attn_z"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_an_effect_for_each_unit(tiny, method, site):
    if (method, site) == ("mean", "attn_z"):
        with pytest.raises(InputError, match="mean is for neurons; for heads choose gradient"):
            estimate(tiny, PAIRS, method, site=site)
        return
    found = estimate(tiny, PAIRS, method, site=site, steps=2)
    assert found.effect.shape == found.error.shape == ((2, 48) if site == "mlp_post" else (2, 4))
    exact = neuron_effects(tiny, PAIRS, NeuronSet((1, unit) for unit in range(0, 48, 4)), site="mlp_post").margin.mean(1)
    if site == "mlp_post" and method != "pair":  # in the last layer all of them are near the exact effect; "pair" asks something else
        assert np.corrcoef(found.effect[1, ::4].numpy(), exact)[0, 1] > 0.8


def test_bad_baselines_and_methods_are_refused(tiny):
    with pytest.raises(InputError, match=r"zero, pair, .*, got 'none'"):
        attribute(tiny, PAIRS, baseline=cast(Any, "none"))
    with pytest.raises(InputError, match=r"method must be one of gradient, .*, got .magic."):
        estimate(tiny, PAIRS, cast(Any, "magic"))
    hook = ("blocks.0.attn.hook_pattern", lambda a, hook: None)
    with tiny.hooks(fwd_hooks=[hook]), pytest.raises(InputError, match="take off hooks of your own"):
        attribute(tiny, PAIRS, baseline="pair")
