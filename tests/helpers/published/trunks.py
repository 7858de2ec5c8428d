"""The trunks: for each architecture a config in the form of a published config.json, in tiny, and weights far from initial values."""

import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

# Three heads of 12, not the usual power of two; where there are fewer key and value heads, one or two.
_SIZES = {
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
    "use_cache": True,
}
_LLAMA = _SIZES | {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False}
_LLAMA3 = _LLAMA | {"num_key_value_heads": 1, "rope_theta": 500000.0, "rope_scaling": None}
_LLAMA31 = _LLAMA3 | {
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 16,
        "rope_type": "llama3",
    }
}
_GEMMA = _SIZES | {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
}
_GEMMA2 = _GEMMA | {
    "model_type": "gemma2",
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 20,
    "sliding_window": 4,
}
_QWEN2 = _SIZES | {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "num_key_value_heads": 1,
    "rope_theta": 10000.0,
    "max_window_layers": 2,
    "sliding_window": 4096,
    "use_sliding_window": False,
}
_QWEN3 = _QWEN2 | {
    "model_type": "qwen3",
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "attention_bias": False,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "sliding_window": None,
}
TRUNKS: dict[str, dict[str, Any]] = {
    "llama2": _LLAMA | {"num_key_value_heads": 3, "rope_scaling": None},
    "llama3": _LLAMA3,
    "llama3.1": _LLAMA31,
    "llama3.2": _LLAMA31 | {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12, "tie_word_embeddings": True},
    "yi": _LLAMA | {"num_key_value_heads": 1, "rope_theta": 5000000.0},
    "mistral": _SIZES
    | {"model_type": "mistral", "hidden_act": "silu", "num_key_value_heads": 1, "sliding_window": None, "rope_theta": 1e6},
    "mistral-window": _SIZES
    | {"model_type": "mistral", "hidden_act": "silu", "num_key_value_heads": 1, "sliding_window": 4, "rope_theta": 10000.0},
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3-tied": _QWEN3 | {"tie_word_embeddings": True},
    "gemma": _GEMMA | {"model_type": "gemma", "num_key_value_heads": 1},
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA
    | {
        "model_type": "gemma3_text",
        "query_pre_attn_scalar": 20,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    },
    "olmo2": _SIZES | {"model_type": "olmo2", "hidden_act": "silu", "num_key_value_heads": 3, "rope_theta": 500000, "rope_scaling": None},
    "olmo3": _SIZES
    | {
        "model_type": "olmo3",
        "hidden_act": "silu",
        "num_key_value_heads": 1,
        "rope_theta": 500000,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "phi3": _SIZES | {"model_type": "phi3", "hidden_act": "silu", "num_key_value_heads": 1, "rope_theta": 10000.0, "sliding_window": 4},
    "smollm3": _SIZES
    | {"model_type": "smollm3", "hidden_act": "silu", "num_key_value_heads": 1, "rope_theta": 5000000.0, "no_rope_layers": [1, 0]},
    "gpt_neox": _SIZES
    | {"model_type": "gpt_neox", "hidden_act": "gelu", "rotary_pct": 0.5, "rotary_emb_base": 10000, "layer_norm_eps": 1e-5},
    "gpt2": {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "n_embd": 36,
        "n_head": 3,
        "n_layer": 2,
        "n_positions": 1024,
        "layer_norm_epsilon": 1e-5,
        "initializer_range": 0.02,
    },
}


def generator(name: str) -> torch.Generator:
    """Seeded by a name, the same in every process."""
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))


def drawn_trunk(folder: Path, name: str) -> dict[str, Tensor]:
    """Weights of the trunk that the folder's config describes, by `AutoModel`'s names. Norms are far from 1 and biases from 0."""
    random = generator(f"{name} trunk")
    state = _empty(folder).state_dict()
    for key, value in state.items():
        noise = torch.randn(value.shape, generator=random)
        plain = torch.ones_like(value) if value.ndim == 1 and key.endswith("weight") and "gemma" not in _kind(folder) else 0 * value
        state[key] = plain + (0.3 if value.ndim == 1 else 1.0 if "embed" in key or "wte" in key else 0.15) * noise
    return state


def trunk_with(folder: Path, state: dict[str, Tensor]) -> nn.Module:
    """Hugging Face's trunk with these weights: all of them are used, and none is missing."""
    trunk = _empty(folder)
    trunk.load_state_dict(state, strict=True)
    return trunk.requires_grad_(False)


def _empty(folder: Path) -> Any:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return AutoModel.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()


def _kind(folder: Path) -> str:
    return AutoConfig.from_pretrained(folder, trust_remote_code=False).model_type
