"""A model of which attribution is exact."""

from typing import Any

import torch

from helpers.architectures import hf_model
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer


def linear_model() -> HookedRewardModel:
    """Identity for activations and norms, and even attention: rewards are linear in every neuron."""
    model = HookedRewardModel.from_hf(hf_model("gpt2"), byte_tokenizer())
    block: Any
    for block in model.blocks:
        block.ln1 = block.ln2 = torch.nn.Identity()
        block.mlp.act_fn.act_fn = torch.nn.Identity()
        for weight in (block.attn.W_Q, block.attn.W_K, block.attn.b_Q, block.attn.b_K):
            weight.data.zero_()
    model.ln_final = torch.nn.Identity()
    model.setup()
    return model.to(torch.float64)  # what differs is then no float error
