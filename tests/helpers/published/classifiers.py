"""Families whose head is the `score` of Hugging Face's sequence classifiers, of one output: every architecture that is read."""

from typing import Any

import torch

from helpers.published.family import Family
from helpers.published.heads import linear

_HF = "transformers' *ForSequenceClassification"
ONE = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
GRM = {"vhead_layer_type": "mlp", "vhead_num_layers": 1, "vhead_num_neurons": 24}


def _score(name: str, published: str, trunk: str, architecture: str, **more: Any) -> Family:
    """A plain sequence classifier of one output."""
    kind, seen, config = f"{architecture}ForSequenceClassification", more.pop("seen", _HF), more.pop("config", ONE)
    return Family(name, published, seen, kind, trunk, linear("score"), config=config, **more)


CLASSIFIERS = (
    _score("skywork-v1-llama", "Skywork-Reward-Llama-3.1-8B", "llama3.1", "Llama", shards=2, dtype=torch.bfloat16),
    _score("skywork-v1-gemma2", "Skywork-Reward-Gemma-2-27B", "gemma2", "Gemma2"),
    _score("skywork-v2-qwen3", "Skywork-Reward-V2-Qwen3-0.6B", "qwen3-tied", "Qwen3", dtype=torch.bfloat16),
    _score("skywork-v2-llama", "Skywork-Reward-V2-Llama-3.2-1B", "llama3.2", "Llama"),
    _score("tulu3", "Llama-3.1-Tulu-3-8B-RM", "llama3.1", "Llama", vocabulary="llama3"),
    _score("olmo2", "OLMo-2-1124-13B-RM", "olmo2", "Olmo2", seen="its config.json; transformers"),
    _score("fsfairx", "sfairXC/FsfairX-LLaMA3-RM-v0.1", "llama3", "Llama"),
    _score("offsetbias", "NCSOFT/Llama-3-OffsetBias-RM-8B", "llama3", "Llama", seen="its config.json; transformers"),
    # Its config still speaks of the head that it was made from; the file has a `score`.
    _score("grm-ft", "GRM-Llama3.2-3B-rewardmodel-ft", "llama3.2", "Llama", seen="its config.json", config=ONE | GRM),
    _score("grm-ft-gemma", "GRM-Gemma-2B-rewardmodel-ft", "gemma", "Gemma"),
    _score("rm-mistral", "weqweasdas/RM-Mistral-7B", "mistral", "Mistral"),
    _score("acemath", "nvidia/AceMath-7B-RM", "qwen2", "Qwen2"),
    _score("qwen3", "nvidia/Qwen-3-Nemotron-32B-Reward", "qwen3", "Qwen3"),
    _score("gemma3", "any Gemma-3 text classifier", "gemma3", "Gemma3Text"),
    _score("olmo3", "any OLMo-3 classifier", "olmo3", "Olmo3"),
    _score("phi3", "any Phi-3 classifier", "phi3", "Phi3"),
    _score("smollm3", "any SmolLM3 classifier", "smollm3", "SmolLM3"),
    _score("gpt-neox", "any Pythia classifier", "gpt_neox", "GPTNeoX", prefix="gpt_neox."),
    # Hugging Face then takes it for one of two outputs, and refuses the file's one.
    _score("silent", "a classifier whose config does not say how many outputs it has", "llama3", "Llama", seen="from memory", config={}),
    _score("gpt2", "Ray2333/gpt2-large-harmless-reward_model", "gpt2", "GPT2", prefix="transformer."),
)
