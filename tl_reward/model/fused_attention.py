"""Attention through `scaled_dot_product_attention`, as long as nobody looks at its scores.

TransformerLens computes every attention score and pattern, so that hooks can read them. Where none listens there, the fused kernel
gives the same output. Every other hook point of the layer (`hook_q`, `hook_k`, `hook_v`, `hook_rot_*`, `hook_z`) still fires.

A layer takes a packed batch in place of an attention mask: see `packing`.
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tl_reward.data.packing import PackedBatch
from tl_reward.errors import InputError


def fuse_attention(attention: nn.Module) -> None:
    """Gives a TransformerLens attention layer the fused path. It falls back to its own where the fused one does not apply."""
    attention.forward = partial(_forward, attention)


def uses_fused_path(attention: Any, **inputs: Any) -> bool:
    """Whether a call takes the fused path: no hook on scores or pattern, and nothing that the kernel cannot express."""
    if isinstance(inputs.get("attention_mask"), PackedBatch):
        if needs_scores(attention):
            raise InputError("hooks on attention scores, pattern or result need one transcript a row: per_token must be False")
        return True
    extras = any(value is not None for name, value in inputs.items() if name != "attention_mask")
    return not (needs_scores(attention) or extras or attention.cfg.attn_scores_soft_cap > 0)


def needs_scores(attention: Any) -> bool:
    """Whether somebody wants what the fused kernel does not compute: scores, pattern, or each head's result."""
    points = (attention.hook_attn_scores, attention.hook_pattern, attention.hook_result)
    listened = any(point._forward_hooks or point._backward_hooks for point in points)
    return listened or attention.cfg.use_attn_result


def _forward(
    attention: Any,
    query_input: Float[Tensor, "batch pos *heads d_model"],
    key_input: Float[Tensor, "batch pos *kv_heads d_model"],
    value_input: Float[Tensor, "batch pos *kv_heads d_model"],
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
        position = _position(mask, q.shape[1], q.device)
        _cover(attention, mask.longest if isinstance(mask, PackedBatch) else q.shape[1])
        q = attention.hook_rot_q(_rotate(attention, q, position))
        k = attention.hook_rot_k(_rotate(attention, k, position))
    if isinstance(mask, PackedBatch):
        z = _attend_packed(attention, q, k, v, mask)
    else:
        z = _attend(attention, q, k, v, _allowed(attention, q.shape[1], mask, q.device))
    z = attention.hook_z(z)
    weight = attention.W_O.permute(2, 0, 1).flatten(1)
    return F.linear(z.flatten(2), weight, attention.b_O)


def _attend(
    attention: Any,
    q: Float[Tensor, "batch query head d_head"],
    k: Float[Tensor, "batch key kv_head d_head"],
    v: Float[Tensor, "batch key kv_head d_head"],
    allowed: Bool[Tensor, "*#batch query key"] | None,
) -> Float[Tensor, "batch query head d_head"]:
    """`allowed` None: each query attends to every earlier key."""
    dtype = q.dtype
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    # The kernel's backward pass on a CPU is slower in bfloat16 than in float32 (docs/performance.md).
    if q.requires_grad and dtype == torch.bfloat16 and q.device.type == "cpu":
        q, k, v = q.float(), k.float(), v.float()
    scale, cap = 1 / attention.attn_scale, attention.cfg.attn_scores_soft_cap
    if cap <= 0:
        z = F.scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=allowed is None, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
        )
        return z.transpose(1, 2).to(dtype)
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
    if allowed is None:
        allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    scores = cap * torch.tanh(scale * (q @ k.transpose(2, 3)) / cap)
    pattern = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return (pattern @ v).transpose(1, 2).to(dtype)


def _attend_packed(
    attention: Any,
    q: Float[Tensor, "batch token head d_head"],
    k: Float[Tensor, "batch token kv_head d_head"],
    v: Float[Tensor, "batch token kv_head d_head"],
    batch: PackedBatch,
) -> Float[Tensor, "batch token head d_head"]:
    """Transcript by transcript: the tokens that it adds attend to its prefix, wherever that stands, and to themselves."""
    window = attention.cfg.window_size if attention.attn_type == "local" else None
    parts = []
    for i, spans in enumerate(batch.spans):
        keys, values = (_join([x[:, start:end] for start, end in spans]) for x in (k, v))
        parts.append(_attend(attention, q[:, spans[-1].start : spans[-1].end], keys, values, batch.allowed(i, window)))
    return _join(parts)


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _position(mask: Tensor | PackedBatch | None, length: int, device: torch.device) -> Int[Tensor, "#batch pos"]:
    """Each token's place in its transcript. Padding on the left does not count."""
    if isinstance(mask, PackedBatch):
        return mask.position[None]
    if mask is None:
        return torch.arange(length, device=device)[None]
    return (mask.long().cumsum(1) - 1).clamp(min=0)


def _cover(attention: Any, length: int) -> None:
    """Makes the rotary table long enough. TransformerLens starts with a short one."""
    have = len(attention.rotary_cos)
    if length > have:
        with torch.inference_mode(False):  # a table made in inference mode could not be used with gradients later
            attention._extend_rotary_embeddings(min(attention.cfg.n_ctx, max(length, 2 * have)))


def _rotate(
    attention: Any, x: Float[Tensor, "batch pos head d_head"], position: Int[Tensor, "#batch pos"]
) -> Float[Tensor, "batch pos head d_head"]:
    """Rotary position embedding (Su et al. 2021) in the layout of Hugging Face, where dimension i is paired with i + half."""
    assert not attention.cfg.rotary_adjacent_pairs
    half = attention.cfg.rotary_dim // 2
    cos = attention.rotary_cos[position, None, :half].to(x.dtype)
    sin = attention.rotary_sin[position, None, :half].to(x.dtype)
    one, other, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((one * cos - other * sin, other * cos + one * sin, rest), dim=-1)


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
