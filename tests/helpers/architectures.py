"""Tiny random reward models of every supported architecture, as Hugging Face has them."""

import torch
import transformers
from transformers import AutoModelForSequenceClassification, PreTrainedModel

_SHAPE = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 0,
    "num_labels": 1,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
_YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
_MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
_PLAIN = {"rope_type": "default", "rope_theta": 1e4}
_YARN_BY_TYPE = {"full_attention": _YARN, "sliding_attention": _PLAIN}
_LINEAR_BY_TYPE = {"full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}, "sliding_attention": _PLAIN}
_GEMMA3 = {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24, "layer_types": _MIXED}
# Odd sizes on purpose: fewer key/value heads, a head_dim that is not d_model / n_heads, windows shorter than the rows.
ARCHITECTURES = {
    "llama": ("LlamaConfig", {"num_key_value_heads": 2}),
    "llama3-rope": ("LlamaConfig", {"rope_parameters": _LLAMA3}),
    "llama-bias": ("LlamaConfig", {"attention_bias": True, "head_dim": 16}),
    "gpt2": ("GPT2Config", {}),
    "gpt2-wide": ("GPT2Config", {"n_inner": 80, "scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gpt_neox-sequential": ("GPTNeoXConfig", {"use_parallel_residual": False}),
    "qwen2": ("Qwen2Config", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 16}),
    "mistral": ("MistralConfig", {"num_key_value_heads": 2, "sliding_window": 4}),
    "gemma2": ("Gemma2Config", {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4, "query_pre_attn_scalar": 24}),
    "smollm3": ("SmolLM3Config", {"num_key_value_heads": 2, "no_rope_layers": [1, 0, 1]}),
    "gemma3": ("Gemma3TextConfig", _GEMMA3),
    "olmo3-yarn": ("Olmo3Config", {"sliding_window": 4, "layer_types": _MIXED, "rope_parameters": _YARN_BY_TYPE}),
    "olmo2": ("Olmo2Config", {"num_key_value_heads": 4}),
    "olmo2-grouped": ("Olmo2Config", {"num_key_value_heads": 2}),
    "qwen2-window": ("Qwen2Config", {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
}


# And what differs from these only in how a checkpoint is laid out, or in its rotary tables: for the tests that compare with Hugging Face.
PARITY = ARCHITECTURES | {
    "llama-linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "llama-dynamic": ("LlamaConfig", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}}),
    "qwen2-yarn": ("Qwen2Config", {"num_key_value_heads": 2, "rope_parameters": _YARN}),
    "ministral": ("MinistralConfig", {"head_dim": 16, "num_key_value_heads": 2, "sliding_window": 4, "layer_types": _MIXED}),
    "phi3": ("Phi3Config", {"num_key_value_heads": 2, "sliding_window": 4}),
    "phi3-partial": ("Phi3Config", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
    "gemma": ("GemmaConfig", {"num_key_value_heads": 1, "head_dim": 16}),
    "gemma3-linear": ("Gemma3TextConfig", _GEMMA3 | {"rope_parameters": _LINEAR_BY_TYPE}),
    "olmo3": ("Olmo3Config", {"num_key_value_heads": 2, "sliding_window": 4, "layer_types": _MIXED}),
}


def hf_model(name: str) -> PreTrainedModel:
    """A random model whose weights are all far from their initial values: norms from 1, biases from 0."""
    class_name, extra = PARITY[name]
    shape = dict(_SHAPE)
    if class_name == "GPT2Config":
        shape = {k: v for k, v in shape.items() if k in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id", "num_labels")}
        shape |= {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(getattr(transformers, class_name)(**shape | extra)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.requires_grad_(False)
