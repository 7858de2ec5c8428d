"""Attention through `scaled_dot_product_attention`, as long as nobody looks at its scores.

TransformerLens computes every attention score and pattern, so that hooks can read them. Where none listens there, the fused kernel
gives the same output. Every other hook point of the layer (`hook_q`, `hook_k`, `hook_v`, `hook_rot_*`, `hook_z`) still fires.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def fuse_attention(attention: nn.Module) -> None:
    """Gives a TransformerLens attention layer the fused path. It falls back to its own where the fused one does not apply."""
    attention.forward = partial(_forward, attention)


def uses_fused_path(attention: Any, **inputs: Any) -> bool:
    """Whether a call takes the fused path: no hook on scores or pattern, and nothing that the kernel cannot express."""
    listened = any(point._forward_hooks or point._backward_hooks for point in (attention.hook_attn_scores, attention.hook_pattern))
    extras = any(value is not None for name, value in inputs.items() if name != "attention_mask")
    cfg = attention.cfg
    return not (listened or extras or cfg.use_attn_result or cfg.attn_scores_soft_cap > 0)


def _forward(
    attention: Any,
    query_input: Float[Tensor, "batch pos *heads d_model"],
    key_input: Float[Tensor, "batch pos *heads d_model"],
    value_input: Float[Tensor, "batch pos *heads d_model"],
    **inputs: Any,
) -> Float[Tensor, "batch pos d_model"]:
    if not uses_fused_path(attention, **inputs):
        return type(attention).forward(attention, query_input, key_input, value_input, **inputs)
    mask = inputs.get("attention_mask")
    q, k, v = attention.calculate_qkv_matrices(query_input, key_input, value_input)
    if attention.q_norm is not None and not attention.cfg.use_qk_norm:  # OLMo-2 normalises all heads as one vector
        q = attention.q_norm(q.flatten(2)).view_as(q)
        k = attention.k_norm(k.flatten(2)).view_as(k)
    if attention.cfg.positional_embedding_type == "rotary":
        q = attention.hook_rot_q(attention.apply_rotary(q, 0, mask))
        k = attention.hook_rot_k(attention.apply_rotary(k, 0, mask))
    allowed = _allowed(attention, q.shape[1], mask, q.device)
    z = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        k.transpose(1, 2),
        v.transpose(1, 2),
        attn_mask=allowed,
        is_causal=allowed is None,
        scale=1 / attention.attn_scale,
        enable_gqa=k.shape[2] != q.shape[2],
    )
    z = attention.hook_z(z.transpose(1, 2))
    weight = attention.W_O.permute(2, 0, 1).flatten(1)
    return F.linear(z.flatten(2), weight, attention.b_O)


def _allowed(attention: Any, length: int, mask: Tensor | None, device: torch.device) -> Bool[Tensor, "#batch 1 query key"] | None:
    """Which keys each query may attend to; None where that is just every earlier one."""
    local = attention.attn_type == "local" and attention.cfg.window_size < length
    if mask is None and not local:
        return None
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    allowed = (distance >= 0)[None, None]
    if local:
        allowed = allowed & (distance < attention.cfg.window_size)
    if mask is not None:
        allowed = allowed & mask.bool()[:, None, None, :]
        # A padding query may attend to nothing, which the kernel answers with NaN. Let it see itself: nobody reads it.
        allowed = allowed | (distance == 0)
    return allowed
