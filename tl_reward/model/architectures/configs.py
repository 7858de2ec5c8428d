"""A Hugging Face config's sizes and switches as fields of a TransformerLens config, or a refusal where it computes no such."""

import math
from typing import Any

from tl_reward.errors import InputError
from tl_reward.model.architectures.rotary import rotary
from tl_reward.model.architectures.weights import grouped, head_size, kv_heads


def llama_config(c: Any) -> dict[str, Any]:
    """The shared part of every architecture with Llama's weight names: rotary positions, RMS norm, gated MLP."""
    if getattr(c, "mlp_bias", False):
        raise InputError("mlp_bias=true is not supported: TransformerLens has no bias inside a gated MLP")
    _refuse_both_directions(c)
    d_head = head_size(c)
    return (
        {
            "d_model": c.hidden_size,
            "d_head": d_head,
            "n_heads": c.num_attention_heads,
            "n_key_value_heads": kv_heads(c) if grouped(c) else None,
            "d_mlp": c.intermediate_size,
            "n_layers": c.num_hidden_layers,
            "n_ctx": c.max_position_embeddings,
            "eps": c.rms_norm_eps,
            "normalization_type": "RMS",
            "final_rms": True,
            "gated_mlp": True,
        }
        | rotary(c, d_head)
        | _windows(c)
    )


def _refuse_both_directions(c: Any) -> None:
    if getattr(c, "use_bidirectional_attention", None):
        raise InputError("use_bidirectional_attention=true is not supported: a reward model's tokens read the tokens before them alone")


def _windows(c: Any) -> dict[str, Any]:
    """Which layers attend within a sliding window."""
    window = getattr(c, "sliding_window", None)
    kinds = getattr(c, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * c.num_hidden_layers
    unknown = sorted(set(kinds) - {"sliding_attention", "full_attention"})
    if unknown or len(kinds) != c.num_hidden_layers:
        raise InputError(
            f"layer_types must be sliding_attention or full_attention for each of {c.num_hidden_layers} layers, got {kinds[:4]}"
        )
    if window is None or "sliding_attention" not in kinds:
        return {}
    local = {"sliding_attention": "local", "full_attention": "global"}
    return {"use_local_attn": True, "window_size": window, "attn_types": [local[kind] for kind in kinds]}


def gemma2_config(c: Any) -> dict[str, Any]:
    return gemma3_config(c) | {"use_qk_norm": False, "attn_scores_soft_cap": c.attn_logit_softcapping or -1.0}


def gemma3_config(c: Any) -> dict[str, Any]:
    if c.model_type == "gemma3_text" and c.attn_logit_softcapping:
        raise InputError("attn_logit_softcapping of a Gemma-3 is not supported: Hugging Face's fused attention passes it over")
    return llama_config(c) | {
        "attn_scale": math.sqrt(c.query_pre_attn_scalar),
        "use_qk_norm": True,
        "use_normalization_before_and_after": True,
    }


def gpt2_config(c: Any) -> dict[str, Any]:
    return {
        "d_model": c.n_embd,
        "d_head": c.n_embd // c.n_head,
        "n_heads": c.n_head,
        "d_mlp": c.n_inner or 4 * c.n_embd,
        "n_layers": c.n_layer,
        "n_ctx": c.n_positions,
        "eps": c.layer_norm_epsilon,
        "normalization_type": "LN",
        "use_attn_scale": c.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": c.scale_attn_by_inverse_layer_idx,
    }


def neox_config(c: Any) -> dict[str, Any]:
    d_head = c.hidden_size // c.num_attention_heads
    return {
        "d_model": c.hidden_size,
        "d_head": d_head,
        "n_heads": c.num_attention_heads,
        "d_mlp": c.intermediate_size,
        "n_layers": c.num_hidden_layers,
        "n_ctx": c.max_position_embeddings,
        "eps": c.layer_norm_eps,
        "normalization_type": "LN",
        "parallel_attn_mlp": c.use_parallel_residual,
    } | rotary(c, d_head)
