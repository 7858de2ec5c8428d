"""Attribution: the gradient that it says it is, in one pass whatever the batches."""

import pytest
import torch

from tl_reward.attribution import attribute
from tl_reward.errors import InputError
from tl_reward.readers import load_pairs
from tl_reward.run import encode_for, score
from tl_reward.sites import Site
from tl_reward.tiny import tiny_reward_model

PAIRS = load_pairs("embedded", split="find", limit=4)


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
    one, other = attribute(tiny, PAIRS), attribute(tiny, PAIRS[::-1], max_tokens=5000)
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
    half = attribute(tiny_reward_model().to(torch.bfloat16), PAIRS)
    assert (half.effect - found.effect).abs().max() < 0.05 * found.effect.abs().max()


def test_a_row_counts_as_often_as_its_pairs(tiny):
    from tl_reward.pairs import pairs_of_row

    (one, other) = pairs_of_row({"prompt": "Hi", "chosen": ["Hello there!", "Good day."], "rejected": ["No."]}, "a:1")
    both, single = attribute(tiny, [one, other]), [attribute(tiny, [pair]).effect for pair in (one, other)]
    torch.testing.assert_close(both.effect, (single[0] + single[1]) / 2, atol=1e-6, rtol=1e-4)


def test_a_gradient_that_is_not_finite_names_the_site_and_the_pair():
    broken = tiny_reward_model()
    broken.unembed.W_U.data[0] = float("nan")
    with pytest.raises(InputError, match=rf"gradient at blocks.1.mlp.hook_post.*not finite.*{PAIRS[0].id}"):
        attribute(broken, PAIRS)


def test_a_site_that_is_no_neurons_is_refused(tiny):
    with pytest.raises(InputError, match="mlp_post, mlp_gate, got 'attn_z'"):
        attribute(tiny, PAIRS, site="attn_z")
