"""Which Hugging Face weight of an architecture is which TransformerLens weight, as tables that `conversion` reads in either direction."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple


class Weight(NamedTuple):
    """A Hugging Face tensor, or some rows of one, and the TransformerLens tensors it holds.

    `pattern` goes from Hugging Face to TransformerLens. With several names in `lens`, the pattern's first axis on the right, `c`, runs
    over them. TransformerLens' value is `scale * value + shift`. An optional weight is one that some configs leave out (a bias). `rows`
    are the first row and the one past the last, where several weights lie in one tensor, one below the other.
    """

    hf: str
    lens: tuple[str, ...]
    pattern: str | None = None
    scale: float = 1.0
    shift: float = 0.0
    optional: bool = False
    rows: tuple[int, int] | None = None


def kv_heads(hf_config: Any) -> int:
    return getattr(hf_config, "num_key_value_heads", None) or hf_config.num_attention_heads


def grouped(hf_config: Any) -> bool:
    """Whether several heads share a key and a value head."""
    return kv_heads(hf_config) != hf_config.num_attention_heads


def head_size(hf_config: Any) -> int:
    return getattr(hf_config, "head_dim", None) or hf_config.hidden_size // hf_config.num_attention_heads


def llama_weights(c: Any, *, norms: Mapping[str, str] | None = None, qk_norm: bool = False, gemma: bool = False) -> list[Weight]:
    """`norms` maps Hugging Face's norm names to TransformerLens'. Gemma stores `w - 1`, and scales its embedding by √d_model."""
    hf, lens = "model.layers.{l}.", "blocks.{l}."
    weights = [
        *_around(c, norms, shift=1.0 if gemma else 0.0, scale=math.sqrt(c.hidden_size) if gemma else 1.0),
        Weight(hf + "self_attn.o_proj.bias", (lens + "attn.b_O",), optional=True),
        Weight(hf + "mlp.up_proj.weight", (lens + "mlp.W_in",), "f m -> m f"),
        Weight(hf + "mlp.gate_proj.weight", (lens + "mlp.W_gate",), "f m -> m f"),
    ]
    for letter, heads in (("q", "n"), ("k", "k"), ("v", "k")):
        name, weight, bias = f"{hf}self_attn.{letter}_proj.", _of_heads(c, "W", letter), _of_heads(c, "b", letter)
        weights.append(Weight(name + "weight", (weight,), f"({heads} h) m -> {heads} m h"))
        weights.append(Weight(name + "bias", (bias,), f"({heads} h) -> {heads} h", optional=True))
    if qk_norm:
        shift = 1.0 if gemma else 0.0
        weights += [Weight(f"{hf}self_attn.{x}_norm.weight", (f"{lens}attn.{x}_norm.w",), shift=shift) for x in "qk"]
    return weights


def phi3_weights(c: Any) -> list[Weight]:
    """Queries, keys and values lie in one tensor, and so do an MLP's gate and its linear part."""
    hf, lens, d_head, d_mlp = "model.layers.{l}.", "blocks.{l}.", head_size(c), c.intermediate_size
    weights, start = _around(c), 0
    for letter, heads, count in (("q", "n", c.num_attention_heads), ("k", "k", kv_heads(c)), ("v", "k", kv_heads(c))):
        rows = (start, start + count * d_head)
        pattern = f"({heads} h) m -> {heads} m h"
        weights.append(Weight(hf + "self_attn.qkv_proj.weight", (_of_heads(c, "W", letter),), pattern, rows=rows))
        start = rows[1]
    for name, rows in (("W_gate", (0, d_mlp)), ("W_in", (d_mlp, 2 * d_mlp))):
        weights.append(Weight(hf + "mlp.gate_up_proj.weight", (f"{lens}mlp.{name}",), "f m -> m f", rows=rows))
    return weights


def _around(c: Any, norms: Mapping[str, str] | None = None, *, shift: float = 0.0, scale: float = 1.0) -> list[Weight]:
    """What all architectures with Llama's names have in common."""
    hf, lens = "model.layers.{l}.", "blocks.{l}."
    norms = norms or {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}
    return [
        Weight("model.embed_tokens.weight", ("embed.W_E",), scale=scale),
        Weight("model.norm.weight", ("ln_final.w",), shift=shift),
        Weight("score.weight", ("unembed.W_U",), "o m -> m o"),
        Weight(hf + "self_attn.o_proj.weight", (lens + "attn.W_O",), "m (n h) -> n h m"),
        Weight(hf + "mlp.down_proj.weight", (lens + "mlp.W_out",), "m f -> f m"),
        *(Weight(f"{hf}{norm}.weight", (f"{lens}{target}.w",), shift=shift) for norm, target in norms.items()),
    ]


def _of_heads(c: Any, kind: str, letter: str) -> str:
    shared = "_" if letter != "q" and grouped(c) else ""
    return f"blocks.{{l}}.attn.{shared}{kind}_{letter.upper()}"


def gemma2_weights(c: Any, *, qk_norm: bool = False) -> list[Weight]:
    norms = {
        "input_layernorm": "ln1",
        "post_attention_layernorm": "ln1_post",
        "pre_feedforward_layernorm": "ln2",
        "post_feedforward_layernorm": "ln2_post",
    }
    return llama_weights(c, norms=norms, gemma=True, qk_norm=qk_norm)


def olmo2_weights(c: Any) -> list[Weight]:
    norms = {"post_attention_layernorm": "ln1", "post_feedforward_layernorm": "ln2"}
    return llama_weights(c, norms=norms, qk_norm=True)


def gpt2_weights(c: Any) -> list[Weight]:
    # Conv1D stores [in, out], the transpose of nn.Linear.
    hf, lens = "transformer.h.{l}.", "blocks.{l}."
    return [
        Weight("transformer.wte.weight", ("embed.W_E",)),
        Weight("transformer.wpe.weight", ("pos_embed.W_pos",)),
        Weight("score.weight", ("unembed.W_U",), "o m -> m o"),
        Weight(hf + "attn.c_attn.weight", tuple(f"{lens}attn.W_{x}" for x in "QKV"), "m (c n h) -> c n m h"),
        Weight(hf + "attn.c_attn.bias", tuple(f"{lens}attn.b_{x}" for x in "QKV"), "(c n h) -> c n h"),
        Weight(hf + "attn.c_proj.weight", (lens + "attn.W_O",), "(n h) m -> n h m"),
        Weight(hf + "attn.c_proj.bias", (lens + "attn.b_O",)),
        Weight(hf + "mlp.c_fc.weight", (lens + "mlp.W_in",)),
        Weight(hf + "mlp.c_fc.bias", (lens + "mlp.b_in",)),
        Weight(hf + "mlp.c_proj.weight", (lens + "mlp.W_out",)),
        Weight(hf + "mlp.c_proj.bias", (lens + "mlp.b_out",)),
        *_layer_norm("transformer.ln_f", "ln_final"),
        *_layer_norm(hf + "ln_1", lens + "ln1"),
        *_layer_norm(hf + "ln_2", lens + "ln2"),
    ]


def neox_weights(c: Any) -> list[Weight]:
    hf, lens = "gpt_neox.layers.{l}.", "blocks.{l}."
    return [
        Weight("gpt_neox.embed_in.weight", ("embed.W_E",)),
        Weight("score.weight", ("unembed.W_U",), "o m -> m o"),
        Weight(hf + "attention.query_key_value.weight", tuple(f"{lens}attn.W_{x}" for x in "QKV"), "(n c h) m -> c n m h"),
        Weight(
            hf + "attention.query_key_value.bias",
            tuple(f"{lens}attn.b_{x}" for x in "QKV"),
            "(n c h) -> c n h",
            optional=True,
        ),
        Weight(hf + "attention.dense.weight", (lens + "attn.W_O",), "m (n h) -> n h m"),
        Weight(hf + "attention.dense.bias", (lens + "attn.b_O",), optional=True),
        Weight(hf + "mlp.dense_h_to_4h.weight", (lens + "mlp.W_in",), "f m -> m f"),
        Weight(hf + "mlp.dense_h_to_4h.bias", (lens + "mlp.b_in",)),
        Weight(hf + "mlp.dense_4h_to_h.weight", (lens + "mlp.W_out",), "m f -> f m"),
        Weight(hf + "mlp.dense_4h_to_h.bias", (lens + "mlp.b_out",)),
        *_layer_norm("gpt_neox.final_layer_norm", "ln_final"),
        *_layer_norm(hf + "input_layernorm", lens + "ln1"),
        *_layer_norm(hf + "post_attention_layernorm", lens + "ln2"),
    ]


def _layer_norm(hf: str, lens: str) -> list[Weight]:
    return [Weight(hf + ".weight", (lens + ".w",)), Weight(hf + ".bias", (lens + ".b",))]
