"""Direct reward attribution: parts that add up to the reward, on every architecture."""

import pytest
import torch
from helpers.short_pairs import embedded_pairs

from tl_reward.analyses.direct_attribution import direct_attribution, token_attribution
from tl_reward.data.text import render
from tl_reward.running.batches.batching import encode_for
from tl_reward.running.scoring import score
from tl_reward.sites import Site

PAIRS = embedded_pairs("find", 4)


def test_the_parts_add_up_to_the_reward(hooked):
    found = direct_attribution(hooked, PAIRS, max_length=512)
    rewards = score(hooked, PAIRS, max_length=512)
    total = found.neuron.sum((1, 2)) + found.head.sum((1, 2)) + found.embedding + found.bias
    expected = torch.tensor([rewards.chosen.mean(), rewards.rejected.mean()]).float()
    torch.testing.assert_close(total, expected, atol=1e-5, rtol=1e-5)  # the remainder is nothing but float error
    torch.testing.assert_close(found.reward, expected, atol=1e-5, rtol=1e-5)
    assert found.largest_remainder < 1e-5
    assert found.neuron.abs().max() > 1e-2 and found.head.abs().max() > 1e-2
    layers = found.layers()
    torch.testing.assert_close(
        layers["mlp"].sum(1) + layers["attention"].sum(1) + found.embedding + found.bias, expected, atol=1e-5, rtol=1e-5
    )


def test_layers_are_what_transformer_lens_decomposes(hooked):
    row = encode_for(hooked, PAIRS, max_length=512).rows[encode_for(hooked, PAIRS, max_length=512).chosen[0]]
    _, cache = hooked.run_with_cache(torch.tensor([row.ids]))
    found = direct_attribution(hooked, PAIRS[:1], max_length=512)
    last = hooked.cfg.n_layers - 1
    final = cache[Site(last, "resid_post").hook_name][0, -1]
    written = cache[Site(1, "mlp_out").hook_name][0, -1]
    if hooked.cfg.normalization_type.startswith("LN"):
        final, written = final - final.mean(), written - written.mean()
    scale = (final.square().mean() + hooked.ln_final.eps).sqrt()
    expected = (written / scale) @ hooked.W_U[:, 0]
    biased = hooked.blocks[1].mlp.b_out.abs().sum() > 0
    if not biased:  # else part of it is in `bias`
        torch.testing.assert_close(found.layers()["mlp"][0, 1], expected.float(), atol=1e-5, rtol=1e-4)


def test_tokens_that_heads_read_from_add_up_to_the_heads(hooked):
    text = render(PAIRS[0].chosen, hooked.tokenizer).text
    found = token_attribution(hooked, text)
    assert found.head.sum().item() + found.rest == pytest.approx(found.reward, abs=1e-5)
    assert found.head.shape == (hooked.cfg.n_layers, hooked.cfg.n_heads, len(found.tokens))
    heads = direct_attribution(hooked, PAIRS[:1], max_length=512).head[0]
    torch.testing.assert_close(found.head.sum(2), heads, atol=1e-5, rtol=1e-4)


def test_order_and_budget_do_not_matter(tiny):
    one, other = direct_attribution(tiny, PAIRS), direct_attribution(tiny, PAIRS[::-1], max_tokens=1400)
    torch.testing.assert_close(one.neuron, other.neuron, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(one.head, other.head, atol=1e-6, rtol=1e-5)
