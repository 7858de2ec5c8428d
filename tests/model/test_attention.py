"""The fused attention path gives the hooked path's numbers, is taken, and gives way to hooks."""

import pytest
import torch

TOKENS = torch.randint(1, 257, (3, 20), generator=torch.Generator().manual_seed(1))
SIDES = {"none": [20, 20, 20], "right": [20, 9, 14], "left": [20, 9, 14]}


def _mask(side):
    mask = torch.zeros_like(TOKENS)
    for row, length in enumerate(SIDES[side]):
        mask[row, slice(20 - length, 20) if side == "left" else slice(0, length)] = 1
    return mask


@pytest.mark.parametrize("side", SIDES)
def test_fused_and_hooked_paths_agree_at_every_real_token(hooked, side):
    mask, seen = _mask(side), {}

    def keep(name):
        return [(hook, lambda a, hook, key=(name, hook): seen.update({key: a})) for hook in ("blocks.1.attn.hook_z", "hook_reward_tokens")]

    listen = ("blocks.{}.attn.hook_pattern", lambda a, hook: None)
    with hooked.hooks(fwd_hooks=keep("fused")):
        hooked(TOKENS, attention_mask=mask)
    with hooked.hooks(fwd_hooks=keep("hooked") + [(listen[0].format(i), listen[1]) for i in range(hooked.cfg.n_layers)]):
        hooked(TOKENS, attention_mask=mask)
    for hook in ("blocks.1.attn.hook_z", "hook_reward_tokens"):
        fused, plain = (seen[path, hook][mask.bool()] for path in ("fused", "hooked"))
        torch.testing.assert_close(fused, plain, atol=1e-4, rtol=1e-4)


def test_the_fused_path_is_taken_until_a_hook_listens(hooked, monkeypatch):
    calls = []
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or original(*a, **k))
    fused_layers = 0 if hooked.cfg.original_architecture == "Gemma2ForCausalLM" else hooked.cfg.n_layers  # it soft-caps
    hooked(TOKENS)
    assert len(calls) == fused_layers
    with hooked.hooks(fwd_hooks=[("blocks.0.attn.hook_attn_scores", lambda a, hook: None)]):
        hooked(TOKENS)
    assert len(calls) == 2 * fused_layers - (fused_layers > 0)


def test_an_edit_of_the_pattern_changes_the_reward(hooked):
    edited = hooked.run_with_hooks(TOKENS, fwd_hooks=[("blocks.0.attn.hook_pattern", lambda a, hook: a * 0)])
    assert (edited - hooked(TOKENS)).abs().max() > 1e-3


def test_gradients_flow_through_the_fused_path(tiny):
    embedding = tiny.embed(TOKENS).requires_grad_()
    tiny(embedding, start_at_layer=0, attention_mask=torch.ones_like(TOKENS)).sum().backward()
    assert embedding.grad is not None and embedding.grad.abs().sum() > 0


def test_weights_need_no_copy_to_be_multiplied(tiny):
    mlp = tiny.blocks[0].mlp
    for weight in (mlp.W_in, mlp.W_gate, mlp.W_out):
        assert weight.T.is_contiguous()
