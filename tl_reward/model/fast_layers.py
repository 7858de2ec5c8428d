"""TransformerLens' layers without work that nobody sees: the same numbers at the same hook points, with fewer passes over memory."""

from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def trim_block(block: nn.Module, *, post_norm: bool) -> None:
    """Queries, keys and values read one normalised residual stream, where TransformerLens normalises it for each.

    Args:
        post_norm: the norms come after attention and MLP (OLMo-2), not before.
    """
    block.forward = partial(_block, block, post_norm)
    block.post_norm = post_norm


class OutputNorms(NamedTuple):
    """The norms between what attention and the MLP give and what enters the residual stream; None where there is none."""

    attention: nn.Module | None
    mlp: nn.Module | None


def output_norms(block: Any) -> OutputNorms:
    if block.cfg.use_normalization_before_and_after:
        return OutputNorms(block.ln1_post, block.ln2_post)
    return OutputNorms(block.ln1, block.ln2) if block.post_norm else OutputNorms(None, None)


def trim_gated_mlp(mlp: nn.Module) -> None:
    """Gate, product and bias of a gated MLP take one pass less."""
    mlp.forward = partial(_gated_mlp, mlp)


def _block(
    block: Any,
    post_norm: bool,
    resid_pre: Float[Tensor, "batch pos d_model"],
    shortformer_pos_embed: Tensor | None = None,
    past_kv_cache_entry: Any = None,
    attention_mask: Any = None,
) -> Float[Tensor, "batch pos d_model"]:
    cfg = block.cfg
    assert shortformer_pos_embed is None and not cfg.attn_only  # no supported architecture
    if cfg.use_attn_in or cfg.use_split_qkv_input:  # each head has an input of its own
        return type(block).forward(block, resid_pre, shortformer_pos_embed, past_kv_cache_entry, attention_mask)
    resid_pre = block.hook_resid_pre(resid_pre)
    attn_in = resid_pre if post_norm else block.ln1(resid_pre)
    attn_out = block.attn(
        query_input=attn_in,
        key_input=attn_in,
        value_input=attn_in,
        past_kv_cache_entry=past_kv_cache_entry,
        attention_mask=attention_mask,
    )
    if cfg.use_normalization_before_and_after:
        attn_out = block.ln1_post(attn_out)
    attn_out = block.hook_attn_out(block.ln1(attn_out) if post_norm else attn_out)
    resid_mid = resid_pre + attn_out
    if not cfg.parallel_attn_mlp:
        resid_mid = block.hook_resid_mid(resid_mid)
    mlp_in = resid_pre if cfg.parallel_attn_mlp else resid_mid
    if cfg.use_hook_mlp_in:
        mlp_in = block.hook_mlp_in(mlp_in.clone())
    mlp_out = block.apply_mlp(mlp_in if post_norm else block.ln2(mlp_in))
    return block.hook_resid_post(resid_mid + mlp_out)


def _gated_mlp(mlp: Any, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
    pre = mlp.hook_pre(F.linear(x, mlp.W_gate.T))
    linear = mlp.hook_pre_linear(F.linear(x, mlp.W_in.T))
    post = mlp.hook_post(torch.addcmul(mlp.b_in, mlp.act_fn(pre), linear))
    return F.linear(post, mlp.W_out.T, mlp.b_out)
