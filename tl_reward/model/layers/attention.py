"""The attention of a layer: through a fused kernel, as long as nobody looks at its scores.

TransformerLens computes every attention score and pattern, so that hooks can read them. Where none listens there, a fused kernel gives the
same output. Every other hook point of the layer (`hook_q`, `hook_k`, `hook_v`, `hook_rot_*`, `hook_z`) still fires.

A packed batch takes the place of the attention mask: see `packing`.
"""

from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tl_reward.data.batches.packing import PackedBatch
from tl_reward.errors import InputError
from tl_reward.model.components import (
    AbstractAttention,
    Attention,
    GroupedQueryAttention,
    TransformerLensKeyValueCacheEntry,
)
from tl_reward.model.layers.kernels import AttentionMask, Scoring, kernel_for

Module = TypeVar("Module", bound=nn.Module)


class FusedAttention(AbstractAttention):
    """TransformerLens' attention (its weights, and its hook points) with a fused path. It goes TransformerLens' own way where somebody
    listens to scores, pattern or result, and, without a packed batch, where it caps scores or reads a cache of keys and values."""

    rotates: bool = True
    """Whether queries and keys are rotated by their positions; a few architectures leave that out in some layers."""

    def forward(
        self,
        query_input: Float[Tensor, "batch pos *heads d_model"],
        key_input: Float[Tensor, "batch pos *kv_heads d_model"],
        value_input: Float[Tensor, "batch pos *kv_heads d_model"],
        past_kv_cache_entry: TransformerLensKeyValueCacheEntry | None = None,
        additive_attention_mask: Tensor | None = None,
        attention_mask: AttentionMask = None,
        position_bias: Tensor | None = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        inputs = (query_input, key_input, value_input)
        extras = (past_kv_cache_entry, additive_attention_mask, position_bias)
        if isinstance(attention_mask, PackedBatch):
            if self.is_listened_to():
                raise InputError("hooks on attention scores, pattern or result need one transcript a row: per_token must be False")
        elif self.is_listened_to() or self.cfg.attn_scores_soft_cap > 0 or any(extra is not None for extra in extras):
            q, k, v = (each.to(self.W_Q.dtype) for each in inputs)
            made = super().forward(q, k, v, past_kv_cache_entry, additive_attention_mask, attention_mask, position_bias)
            return made.to(query_input.dtype)
        return self._fused(*inputs, attention_mask)

    def is_listened_to(self) -> bool:
        """Whether somebody wants what the fused path does not compute: scores, pattern, or each head's result."""
        points = (self.hook_attn_scores, self.hook_pattern, self.hook_result)
        return self.cfg.use_attn_result or any(point._forward_hooks or point._backward_hooks for point in points)

    def _fused(
        self,
        query_input: Float[Tensor, "batch pos *heads d_model"],
        key_input: Float[Tensor, "batch pos *kv_heads d_model"],
        value_input: Float[Tensor, "batch pos *kv_heads d_model"],
        mask: AttentionMask,
    ) -> Float[Tensor, "batch pos d_model"]:
        dtype, residual_dtype = self.W_Q.dtype, query_input.dtype  # the weights may be of less precision
        inputs = (query_input.to(dtype), key_input.to(dtype), value_input.to(dtype))
        q, k, v = (each.to(residual_dtype) for each in self.calculate_qkv_matrices(*inputs))
        if self.q_norm is not None and self.k_norm is not None and not self.cfg.use_qk_norm:
            # OLMo-2 normalises all heads as one vector.
            q = self.q_norm(q.flatten(2)).view_as(q)
            k = self.k_norm(k.flatten(2)).view_as(k)
        if self.cfg.positional_embedding_type == "rotary" and self.rotates:
            position = _position(mask, q.shape[1], q.device)
            self._cover(mask.longest if isinstance(mask, PackedBatch) else q.shape[1])
            q = self.hook_rot_q(self._rotate(q, position))
            k = self.hook_rot_k(self._rotate(k, position))
        window = self.cfg.window_size if self.attn_type == "local" else None
        scoring = Scoring(scale=1 / self.attn_scale, cap=self.cfg.attn_scores_soft_cap, window=window)
        z = self.hook_z(kernel_for(q, k, mask, scoring)(q, k, v, mask, scoring))
        weight = self.W_O.permute(2, 0, 1).flatten(1)
        return F.linear(z.flatten(2).to(dtype), weight, self.b_O).to(residual_dtype)

    def apply_rotary(self, x: Tensor, past_kv_pos_offset: int = 0, attention_mask: Tensor | None = None) -> Tensor:
        return super().apply_rotary(x, past_kv_pos_offset, attention_mask) if self.rotates else x

    def _cover(self, length: int) -> None:
        """Makes the rotary table long enough. TransformerLens starts with a short one."""
        have = len(self.rotary_cos)
        if length > have:
            with torch.inference_mode(False):  # a table made in inference mode could not be used with gradients later
                self._extend_rotary_embeddings(min(self.cfg.n_ctx, max(length, 2 * have)))

    def _rotate(
        self, x: Float[Tensor, "batch pos head d_head"], position: Int[Tensor, "#batch pos"]
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Rotary position embedding (Su et al. 2021) in the layout of Hugging Face, where dimension i is paired with i + half."""
        assert self.cfg.rotary_dim is not None and not self.cfg.rotary_adjacent_pairs
        half = self.cfg.rotary_dim // 2
        cos = self.rotary_cos[position, None, :half].to(x.dtype)
        sin = self.rotary_sin[position, None, :half].to(x.dtype)
        one, other, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
        return torch.cat((one * cos - other * sin, other * cos + one * sin, rest), dim=-1)


class _OneKeyAHead(FusedAttention, Attention):
    pass


class _KeysOfGroups(FusedAttention, GroupedQueryAttention):
    pass


def fused_attention(theirs: AbstractAttention) -> FusedAttention:
    return with_class(theirs, _KeysOfGroups if isinstance(theirs, GroupedQueryAttention) else _OneKeyAHead)


def with_class(theirs: nn.Module, ours: type[Module]) -> Module:
    """The same module with our `forward`. TransformerLens makes its own parts; to make each anew would take long in loading a model.

    Args:
        ours: a subclass of the module's class that keeps no values of its own.
    """
    assert issubclass(ours, type(theirs))
    theirs.__class__ = ours
    return cast(Module, theirs)


def _position(mask: AttentionMask, length: int, device: torch.device) -> Int[Tensor, "#batch pos"]:
    """Each token's place in its transcript. Padding on the left does not count."""
    if isinstance(mask, PackedBatch):
        return mask.position[None]
    if mask is None:
        return torch.arange(length, device=device)[None]
    return (mask.long().cumsum(1) - 1).clamp(min=0)
