"""Hugging Face checkpoints of reward models: whole ones, adapters merged into their base, and bases with a fresh head.

A hub id is first made a local folder, so that both are read the same way. Weights come from safetensors only; no remote code runs. What a
checkpoint says of itself is checked against its files before memory is taken for it.
"""

from tl_reward.model.checkpoints.loading import Checkpoint, load_reward_model, load_unembedding, load_with_fresh_head
from tl_reward.model.checkpoints.looking import check_reward_head, check_reward_model, is_adapter, outputs_of

__all__ = [
    "Checkpoint",
    "check_reward_head",
    "check_reward_model",
    "is_adapter",
    "load_reward_model",
    "load_unembedding",
    "load_with_fresh_head",
    "outputs_of",
]
