"""Hugging Face reward models as TransformerLens configs and weights, and back.

One table a family says which Hugging Face weight is which TransformerLens weight, with an einops pattern that `conversion` reads in
either direction. Checked by the parity tests against every architecture's own `*ForSequenceClassification`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from transformers import PretrainedConfig

from tl_reward.errors import InputError

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "relu")


class Weight(NamedTuple):
    """One Hugging Face tensor and the TransformerLens tensors it holds.

    `pattern` goes from Hugging Face to TransformerLens. With several names in `lens`, the pattern's first axis on the right, `c`, runs
    over them. TransformerLens' value is `scale * value + shift`. An optional weight is one that some configs leave out (a bias).
    """

    hf: str
    lens: tuple[str, ...]
    pattern: str | None = None
    scale: float = 1.0
    shift: float = 0.0
    optional: bool = False


@dataclass(frozen=True)
class Architecture:
    """How one Hugging Face `model_type` maps to TransformerLens."""

    name: str
    lens_config: Callable[[Any], dict[str, Any]]
    weights: Callable[[Any], list[Weight]]


def architecture_of(hf_config: PretrainedConfig, name: str = "") -> Architecture:
    """Raises InputError for a `model_type` that is not supported, and for quantised weights. `name` says which checkpoint it is."""
    said = f"{name}: " if name else ""
    found = ARCHITECTURES.get(hf_config.model_type)
    if found is None:
        raise InputError(f"{said}architecture {hf_config.model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    quantization: Any = getattr(hf_config, "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
        raise InputError(
            f"{said}the weights are quantised ({getattr(method, 'value', method)}), which is not supported: load the original checkpoint, "
            "or one that transformers' model.dequantize() and save_pretrained() wrote"
        )
    return found


def lens_config(hf_config: PretrainedConfig) -> dict[str, Any]:
    """The fields of a `HookedTransformerConfig` with a head of one output.

    Raises:
        InputError: the config asks for something that TransformerLens does not compute.
    """
    architecture = architecture_of(hf_config)
    names = ("hidden_activation", "hidden_act", "activation_function")  # Gemma-2's old files name two; its code reads the first
    activation = next((getattr(hf_config, name) for name in names if getattr(hf_config, name, None)), None)
    if activation not in _ACTIVATIONS:
        raise InputError(f"activation {activation!r} is not supported; supported: {', '.join(_ACTIVATIONS)}")
    shared = {
        "original_architecture": architecture.name,
        "act_fn": activation,
        "d_vocab": hf_config.vocab_size,
        "d_vocab_out": 1,
        "init_weights": False,
    }
    result = shared | architecture.lens_config(hf_config)
    sizes = {name: result[name] for name in ("n_layers", "n_heads", "d_model", "d_head", "d_mlp", "d_vocab", "n_ctx")}
    wrong = {name: size for name, size in sizes.items() if not (isinstance(size, int) and size >= 1)}
    if wrong:
        raise InputError(f"sizes in a config are integers from 1, got {', '.join(f'{name} {size}' for name, size in wrong.items())}")
    for name in ("eps", "rotary_base"):
        if not 0 < result.get(name, 1) < math.inf:
            raise InputError(f"{name} in a config is a number above 0, got {result[name]}")
    if result["n_heads"] % (result.get("n_key_value_heads") or 1):
        raise InputError(f"{result['n_heads']} attention heads cannot share {result['n_key_value_heads']} key and value heads evenly")
    return result


def kv_heads(hf_config: Any) -> int:
    return getattr(hf_config, "num_key_value_heads", None) or hf_config.num_attention_heads


def _grouped(hf_config: Any) -> bool:
    return kv_heads(hf_config) != hf_config.num_attention_heads


def _llama_config(c: Any) -> dict[str, Any]:
    """The shared part of every architecture with Llama's weight names: rotary positions, RMS norm, gated MLP."""
    if getattr(c, "mlp_bias", False):
        raise InputError("mlp_bias=true is not supported: TransformerLens has no bias inside a gated MLP")
    d_head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    return (
        {
            "d_model": c.hidden_size,
            "d_head": d_head,
            "n_heads": c.num_attention_heads,
            "n_key_value_heads": kv_heads(c) if _grouped(c) else None,
            "d_mlp": c.intermediate_size,
            "n_layers": c.num_hidden_layers,
            "n_ctx": c.max_position_embeddings,
            "eps": c.rms_norm_eps,
            "normalization_type": "RMS",
            "final_rms": True,
            "gated_mlp": True,
        }
        | _rotary(c, d_head)
        | _windows(c)
    )


def _rotary(c: Any, d_head: int) -> dict[str, Any]:
    rope = c.rope_parameters
    rotary_dim = int(d_head * rope.get("partial_rotary_factor", 1.0))
    if rotary_dim < 2 or rotary_dim % 2:
        raise InputError(f"{rotary_dim} rotary dimensions a head are not supported: TransformerLens rotates pairs, so their number is even")
    result = {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": rotary_dim,
        "rotary_base": rope["rope_theta"],
    }
    kind = rope.get("rope_type", "default")
    if kind == "llama3":
        return result | {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    if kind != "default":
        raise InputError(f"rotary scaling {kind!r} is not supported; supported: default, llama3")
    return result


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


def _gemma2_config(c: Any) -> dict[str, Any]:
    if getattr(c, "use_bidirectional_attention", None):
        raise InputError("use_bidirectional_attention=true is not supported: a reward model's tokens read the tokens before them alone")
    return _llama_config(c) | {
        "attn_scale": math.sqrt(c.query_pre_attn_scalar),
        "attn_scores_soft_cap": c.attn_logit_softcapping or -1.0,
        "use_normalization_before_and_after": True,
    }


def _gpt2_config(c: Any) -> dict[str, Any]:
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


def _neox_config(c: Any) -> dict[str, Any]:
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
    } | _rotary(c, d_head)


def _llama_weights(c: Any, *, norms: Mapping[str, str] | None = None, qk_norm: bool = False, gemma: bool = False) -> list[Weight]:
    """`norms` maps Hugging Face's norm names to TransformerLens'. Gemma stores `w - 1`, and scales its embedding by √d_model."""
    shift = 1.0 if gemma else 0.0
    scale = math.sqrt(c.hidden_size) if gemma else 1.0
    hf, lens = "model.layers.{l}.", "blocks.{l}."
    grouped = "_" if _grouped(c) else ""
    weights = [
        Weight("model.embed_tokens.weight", ("embed.W_E",), scale=scale),
        Weight("model.norm.weight", ("ln_final.w",), shift=shift),
        Weight("score.weight", ("unembed.W_U",), "o m -> m o"),
        Weight(hf + "self_attn.o_proj.weight", (lens + "attn.W_O",), "m (n h) -> n h m"),
        Weight(hf + "self_attn.o_proj.bias", (lens + "attn.b_O",), optional=True),
        Weight(hf + "mlp.up_proj.weight", (lens + "mlp.W_in",), "f m -> m f"),
        Weight(hf + "mlp.gate_proj.weight", (lens + "mlp.W_gate",), "f m -> m f"),
        Weight(hf + "mlp.down_proj.weight", (lens + "mlp.W_out",), "m f -> f m"),
    ]
    for letter, heads, prefix in (("q", "n", ""), ("k", "k", grouped), ("v", "k", grouped)):
        name = f"{hf}self_attn.{letter}_proj."
        weight, bias = f"{lens}attn.{prefix}W_{letter.upper()}", f"{lens}attn.{prefix}b_{letter.upper()}"
        weights.append(Weight(name + "weight", (weight,), f"({heads} h) m -> {heads} m h"))
        weights.append(Weight(name + "bias", (bias,), f"({heads} h) -> {heads} h", optional=True))
    for norm, target in (norms or {"input_layernorm": "ln1", "post_attention_layernorm": "ln2"}).items():
        weights.append(Weight(f"{hf}{norm}.weight", (f"{lens}{target}.w",), shift=shift))
    if qk_norm:
        weights += [Weight(f"{hf}self_attn.{x}_norm.weight", (f"{lens}attn.{x}_norm.w",)) for x in "qk"]
    return weights


def _gemma2_weights(c: Any) -> list[Weight]:
    norms = {
        "input_layernorm": "ln1",
        "post_attention_layernorm": "ln1_post",
        "pre_feedforward_layernorm": "ln2",
        "post_feedforward_layernorm": "ln2_post",
    }
    return _llama_weights(c, norms=norms, gemma=True)


def _olmo2_weights(c: Any) -> list[Weight]:
    norms = {"post_attention_layernorm": "ln1", "post_feedforward_layernorm": "ln2"}
    return _llama_weights(c, norms=norms, qk_norm=True)


def _gpt2_weights(c: Any) -> list[Weight]:
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


def _neox_weights(c: Any) -> list[Weight]:
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


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("LlamaForCausalLM", _llama_config, _llama_weights),
    "mistral": Architecture("MistralForCausalLM", _llama_config, _llama_weights),
    "qwen2": Architecture("Qwen2ForCausalLM", _llama_config, _llama_weights),
    "qwen3": Architecture(
        "Qwen3ForCausalLM", lambda c: _llama_config(c) | {"use_qk_norm": True}, lambda c: _llama_weights(c, qk_norm=True)
    ),
    "gemma2": Architecture("Gemma2ForCausalLM", _gemma2_config, _gemma2_weights),
    "olmo2": Architecture("Olmo2ForCausalLM", _llama_config, _olmo2_weights),
    "gpt2": Architecture("GPT2LMHeadModel", _gpt2_config, _gpt2_weights),
    "gpt_neox": Architecture("GPTNeoXForCausalLM", _neox_config, _neox_weights),
}
