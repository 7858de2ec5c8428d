"""Hugging Face reward models as TransformerLens configs and weights, and back.

One table a family says which Hugging Face weight is which TransformerLens weight, with an einops pattern that `conversion` reads in
either direction. Checked by the parity tests against every architecture's own `*ForSequenceClassification`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from tl_reward.errors import InputError
from tl_reward.model.architectures.configs import gemma2_config, gemma3_config, gpt2_config, llama_config, neox_config
from tl_reward.model.architectures.weights import (
    Weight,
    gemma2_weights,
    gpt2_weights,
    llama_weights,
    neox_weights,
    olmo2_weights,
    phi3_weights,
)

_ACTIVATIONS = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "silu", "relu")


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
    if found is None and (getattr(hf_config, "num_local_experts", None) or getattr(hf_config, "num_experts", None)):
        raise InputError(
            f"{said}architecture {hf_config.model_type!r} has experts, which is not supported: each token passes a few of them, so that a "
            f"neuron would be (layer, expert, neuron), and statistics over all tokens mean little; supported: {', '.join(ARCHITECTURES)}"
        )
    if found is None:
        raise InputError(f"{said}architecture {hf_config.model_type!r} is not supported; supported: {', '.join(ARCHITECTURES)}")
    quantization: Any = getattr(hf_config, "quantization_config", None)
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else getattr(quantization, "quant_method", None)
        raise InputError(
            f"{said}the weights are quantised ({getattr(method, 'value', method)}), which is not supported: load the original checkpoint, "
            "or one that transformers' model.dequantize() and save_pretrained() wrote (see docs/converting.md)"
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


def layers_with_positions(hf_config: PretrainedConfig) -> Sequence[bool]:
    """For each layer, whether it rotates queries and keys by their positions (where the architecture does so at all)."""
    told = getattr(hf_config, "no_rope_layers", None)  # of SmolLM3, where 1 says that a layer has positions
    return [bool(each) for each in told] if told is not None else [True] * hf_config.num_hidden_layers


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("LlamaForCausalLM", llama_config, llama_weights),
    "mistral": Architecture("MistralForCausalLM", llama_config, llama_weights),
    "ministral": Architecture("MinistralForCausalLM", llama_config, llama_weights),
    "smollm3": Architecture("SmolLM3ForCausalLM", llama_config, llama_weights),
    "phi3": Architecture("Phi3ForCausalLM", llama_config, phi3_weights),
    "qwen2": Architecture("Qwen2ForCausalLM", llama_config, llama_weights),
    "qwen3": Architecture("Qwen3ForCausalLM", lambda c: llama_config(c) | {"use_qk_norm": True}, lambda c: llama_weights(c, qk_norm=True)),
    "gemma": Architecture("GemmaForCausalLM", lambda c: llama_config(c) | {"act_fn": c.hidden_act}, lambda c: llama_weights(c, gemma=True)),
    "gemma2": Architecture("Gemma2ForCausalLM", gemma2_config, gemma2_weights),
    "gemma3_text": Architecture("Gemma3ForCausalLM", gemma3_config, lambda c: gemma2_weights(c, qk_norm=True)),
    "olmo2": Architecture("Olmo2ForCausalLM", llama_config, olmo2_weights),
    "olmo3": Architecture("Olmo3ForCausalLM", llama_config, olmo2_weights),
    "gpt2": Architecture("GPT2LMHeadModel", gpt2_config, gpt2_weights),
    "gpt_neox": Architecture("GPTNeoXForCausalLM", neox_config, neox_weights),
}
