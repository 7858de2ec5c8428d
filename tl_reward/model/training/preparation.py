"""What a training starts from: the base with its fresh head, its tokenizer, and the pairs as tokens."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tl_reward.data.encoding import EncodedPairs, encode_pairs
from tl_reward.data.pairs import PreferencePair
from tl_reward.devices import has_bf16
from tl_reward.errors import InputError
from tl_reward.model import architectures, checkpoints
from tl_reward.model.training.config import TrainingConfig


@dataclass(frozen=True)
class Prepared:
    """`model` is a Hugging Face one; `bf16`: whether forward passes are in bfloat16."""

    model: Any
    tokenizer: Any
    encoded: EncodedPairs
    bf16: bool


def prepare(base: str, pairs: Sequence[PreferencePair], config: TrainingConfig) -> Prepared:
    """Loads the base, writes the pairs as it will read them, and chooses its pad token.

    Raises:
        InputError: a context or chat template that the base lacks, every pair is over-long, or rows end with every special token; the base
            is a reward model of several outputs.
    """
    bf16 = has_bf16()
    # Frozen weights may be bf16: autocast would cast them at every use. Weights that are trained stay float32.
    dtype = torch.bfloat16 if config.method == "lora" and bf16 else torch.float32
    if len(has := checkpoints.outputs_of(base)) > 1:
        raise InputError(f"{base}: found {len(has)} outputs ({', '.join(has[:5])}); training is of one: start from its language model")
    model, tokenizer, *_ = checkpoints.load_with_fresh_head(base, seed=config.seed, dtype=dtype, hub={})
    context = architectures.lens_config(model.config)["n_ctx"]
    if config.max_length > context:
        raise InputError(f"max_length must be in [1, {context}] for {base}, got {config.max_length}")
    if not config.chat:
        tokenizer.chat_template = None  # the saved tokenizer then says that this model reads HH-RLHF turns
    elif tokenizer.chat_template is None:
        raise InputError(f"{base}: its tokenizer has no chat template")
    encoded = encode_pairs(pairs, tokenizer, max_length=config.max_length)
    if config.max_pairs is not None and config.max_pairs < len(encoded.pairs):
        sample = random.Random(config.seed).sample(encoded.pairs, config.max_pairs)
        encoded = dataclasses.replace(encode_pairs(sample, tokenizer, max_length=config.max_length), reading=encoded.reading)

    _choose_pad_token(tokenizer, encoded)
    model.config.pad_token_id = tokenizer.pad_token_id
    return Prepared(model, tokenizer, encoded, bf16)


def _choose_pad_token(tokenizer: Any, encoded: Any) -> None:
    """Picks a pad token with which no row ends.

    Hugging Face reads the reward at the last token that is not the pad token. Where rows end with it, as chat templates often have it,
    training would read one token too early.
    """
    ends = {row.ids[-1] for row in encoded.rows}
    wanted = [tokenizer.pad_token_id, *tokenizer.all_special_ids]
    free = [token for token in wanted if token is not None and token not in ends]
    if not free:
        raise InputError("every special token of the tokenizer ends some transcript; add a pad token to it that ends none")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[0])
