"""TransformerLens' layers without work that nobody sees: the same numbers at the same hook points, with fewer passes over memory."""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from tl_reward.model.components import (
    MLP,
    POST_NORM_ARCHITECTURES,
    GatedMLP,
    HookPoint,
    RMSNorm,
    TransformerBlock,
    TransformerLensKeyValueCacheEntry,
    Unembed,
)
from tl_reward.model.layers.attention import FusedAttention, fused_attention, with_class
from tl_reward.model.layers.kernels import AttentionMask


class HookedActivation(nn.Module):
    """An MLP's activation function with a hook point on its output: `act(gate)` of a gated MLP, `act(pre)` of a plain one."""

    def __init__(self, act_fn: Any) -> None:
        super().__init__()
        self.act_fn = act_fn
        self.hook_act = HookPoint()  # [batch, pos, d_mlp]

    def forward(self, pre: Float[Tensor, "batch pos neuron"]) -> Float[Tensor, "batch pos neuron"]:
        return self.hook_act(self.act_fn(pre))


class FusedGatedMLP(GatedMLP):
    """Gate, product and bias take one pass less."""

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        pre = self.hook_pre(F.linear(x, self.W_gate.T))
        linear = self.hook_pre_linear(F.linear(x, self.W_in.T))
        post = self.hook_post(torch.addcmul(self.b_in, self.act_fn(pre), linear))
        return F.linear(post, self.W_out.T, self.b_out)


class OutputNorms(NamedTuple):
    """The norms between what attention and the MLP give and what enters the residual stream; None where there is none."""

    attention: RMSNorm | None
    mlp: RMSNorm | None


class Block(TransformerBlock):
    """A layer. Queries, keys and values read one normalised residual stream, where TransformerLens normalises it for each."""

    attn: FusedAttention
    mlp: MLP | FusedGatedMLP  # pyright: ignore[reportIncompatibleVariableOverride] - no other is put there

    @classmethod
    def of(cls, theirs: TransformerBlock) -> "Block":
        """TransformerLens' layer, which from here on computes as ours do."""
        block = with_class(theirs, cls)
        assert not block.cfg.attn_only  # no supported architecture
        block.attn = fused_attention(block.attn)
        if isinstance(block.mlp, GatedMLP):
            block.mlp = with_class(block.mlp, FusedGatedMLP)
        block.mlp.act_fn = HookedActivation(block.mlp.act_fn)
        return block

    @property
    def post_norm(self) -> bool:
        """Whether the norms come after attention and MLP (OLMo-2), not before."""
        return self.cfg.original_architecture in POST_NORM_ARCHITECTURES

    def forward(
        self,
        resid_pre: Float[Tensor, "batch pos d_model"],
        shortformer_pos_embed: Tensor | None = None,
        past_kv_cache_entry: TransformerLensKeyValueCacheEntry | None = None,
        attention_mask: AttentionMask = None,
    ) -> Float[Tensor, "batch pos d_model"]:
        cfg = self.cfg
        assert shortformer_pos_embed is None  # no supported architecture
        if cfg.use_attn_in or cfg.use_split_qkv_input:  # each head has an input of its own; the mask is handed on to attention as it is
            return super().forward(resid_pre, None, past_kv_cache_entry, cast(Tensor | None, attention_mask))
        resid_pre = self.hook_resid_pre(resid_pre)
        attn_in = resid_pre if self.post_norm else self.ln1(resid_pre)
        attn_out = self.attn(attn_in, attn_in, attn_in, past_kv_cache_entry=past_kv_cache_entry, attention_mask=attention_mask)
        if cfg.use_normalization_before_and_after:
            attn_out = self.ln1_post(attn_out)
        attn_out = self.hook_attn_out(self.ln1(attn_out) if self.post_norm else attn_out)
        resid_mid = resid_pre + attn_out
        if not cfg.parallel_attn_mlp:
            resid_mid = self.hook_resid_mid(resid_mid)
        mlp_in = resid_pre if cfg.parallel_attn_mlp else resid_mid
        if cfg.use_hook_mlp_in:
            mlp_in = self.hook_mlp_in(mlp_in.clone())
        mlp_out = self.apply_mlp(mlp_in if self.post_norm else self.ln2(mlp_in))
        return self.hook_resid_post(resid_mid + mlp_out)

    def output_norms(self) -> OutputNorms:
        found = (None, None)
        if self.cfg.use_normalization_before_and_after:
            found = (self.ln1_post, self.ln2_post)
        elif self.post_norm:
            found = (self.ln1, self.ln2)
        return OutputNorms(*cast(tuple[RMSNorm | None, RMSNorm | None], found))  # so it is in the supported architectures that have them


class RewardHead(Unembed):
    """The head in float32 at least, whatever the model's precision: rewards of 8 bits would tie where the model prefers one."""

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos output"]:
        residual = self.hook_in(residual)
        wide = torch.promote_types(residual.dtype, torch.float32)
        return self.hook_out(F.linear(residual.to(wide), self.W_U.T.to(wide), self.b_U.to(wide)))
