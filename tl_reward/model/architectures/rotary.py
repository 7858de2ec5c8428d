"""Rotary positions: what a Hugging Face config asks for, as fields of a TransformerLens config, or a refusal where it computes no such."""

import math
from collections.abc import Mapping
from typing import Any

from tl_reward.errors import InputError

_OF_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
_LAYER_TYPES = ("full_attention", "sliding_attention")


def rotary(c: Any, d_head: int) -> dict[str, Any]:
    """The fields for `c.rope_parameters`; where these differ by the type of a layer, plain ones for layers with a window.

    Raises:
        InputError: an odd number of dimensions, or a scaling that TransformerLens does not compute.
    """
    rope: Mapping[str, Any] = c.rope_parameters
    local: Mapping[str, Any] = {}
    if any(kind in rope for kind in _LAYER_TYPES):
        rope, local = rope["full_attention"], rope.get("sliding_attention") or {}
        if local.get("rope_type", "default") != "default":
            raise InputError(f"rotary scaling {local['rope_type']!r} in layers with a window is not supported; supported there: default")
    rotary_dim = int(d_head * rope.get("partial_rotary_factor", 1.0))
    if rotary_dim < 2 or rotary_dim % 2:
        raise InputError(f"{rotary_dim} rotary dimensions a head are not supported: TransformerLens rotates pairs, so their number is even")
    return {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": rotary_dim,
        "rotary_base": rope["rope_theta"],
        **({"rotary_base_local": local["rope_theta"]} if local else {}),
        **_scaling(c, rope, by_type=bool(local)),
    }


def _scaling(c: Any, rope: Mapping[str, Any], *, by_type: bool) -> dict[str, Any]:
    """`by_type`: layers with a window have rotary parameters of their own."""
    kind = rope.get("rope_type", "default")
    needed = {"linear": ["factor"], "llama3": _OF_LLAMA3, "yarn": ["factor", "original_max_position_embeddings"]}.get(kind, ())
    if lacks := [name for name in needed if rope.get(name) is None]:
        raise InputError(f"rotary scaling {kind!r} needs {', '.join(lacks)} in rope_parameters")
    if kind in ("default", "dynamic"):  # "dynamic" changes what is past the context, and such a text is refused
        return {}
    if kind == "linear" and (by_type or not getattr(c, "sliding_window", None)):
        return {"rotary_scaling_factor": float(rope["factor"])}
    if kind == "llama3" and not by_type:
        return {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    if kind == "yarn":
        return _yarn(rope) | {"yarn_global_attn_only": by_type}
    where = " beside layers with a window" if kind in ("linear", "llama3") else ""
    raise InputError(f"rotary scaling {kind!r}{where} is not supported; supported: default, dynamic, linear, llama3, yarn")


def _yarn(rope: Mapping[str, Any]) -> dict[str, Any]:
    factor, attention = rope["factor"], rope.get("attention_factor")
    if rope.get("mscale") or rope.get("mscale_all_dim"):
        raise InputError("rotary scaling 'yarn' with mscale is not supported; supported: yarn with factor and attention_factor")
    return {
        "use_yarn_rope": True,
        "yarn_factor": float(factor),
        "yarn_attention_factor": float(attention if attention is not None else 0.1 * math.log(factor) + 1 if factor > 1 else 1),
        "yarn_beta_fast": float(rope.get("beta_fast") or 32),
        "yarn_beta_slow": float(rope.get("beta_slow") or 1),
        "yarn_original_max_position_embeddings": rope["original_max_position_embeddings"],
        "yarn_truncate": rope.get("truncate", True),
    }
