"""A tiny random reward model with a byte tokenizer: for tests, and for the experiments' `--smoke` runs. Its rewards mean nothing."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from tl_reward.model.reward_model import HookedRewardModel


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token. The pad token is the end token, as in SmolLM2."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {"<end>": 0} | {character: i for i, character in enumerate(alphabet, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")


def tiny_hf_model(*, seed: int = 0) -> PreTrainedModel:
    """A Llama of two layers, 48 neurons each, with grouped-query attention and one output."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=0.3,  # large enough that neurons differ and rewards spread
    )
    config.num_labels = 1
    return AutoModelForSequenceClassification.from_config(config).eval()


def tiny_reward_model(*, seed: int = 0) -> HookedRewardModel:
    return HookedRewardModel.from_hf(tiny_hf_model(seed=seed), byte_tokenizer())
