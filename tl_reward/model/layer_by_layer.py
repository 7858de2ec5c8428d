"""A model from one layer to another, and two models side by side."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_reward.data.batches.packing import Batch, PackedBatch
from tl_reward.data.batches.padding import TokenBatch
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel


def run_layers(
    model: HookedRewardModel, residual: Tensor, batch: Batch, start: int | None, stop: int
) -> Float[Tensor, "batch pos d_model"]:
    mask = mask_of(batch)
    if start is not None and isinstance(batch, TokenBatch) and getattr(model.tokenizer, "padding_side", "right") == "right":
        mask = None  # padding is on the right, where attention never looks; to find that out, the model would ask the device
    return model(residual, None, attention_mask=mask, start_at_layer=start, stop_at_layer=stop)


def mask_of(batch: Batch) -> Any:
    return batch if isinstance(batch, PackedBatch) else batch.attention_mask


def check_comparable(model: HookedRewardModel, other: HookedRewardModel) -> None:
    """Raises InputError where two models cannot run side by side on the same tokens, neuron by neuron."""
    for name in ("original_architecture", "n_layers", "d_model", "d_mlp", "n_heads", "n_key_value_heads", "d_head", "d_vocab", "n_ctx"):
        ours, theirs = getattr(model.cfg, name), getattr(other.cfg, name)
        if ours != theirs:
            raise InputError(f"the models must have the same shape: {name} is {ours} in {_name(model)}, {theirs} in {_name(other)}")
    one, two = model.tokenizer, other.tokenizer
    if one is not None and two is not None and one.get_vocab() != two.get_vocab():
        raise InputError(f"the models must have the same tokenizer: the vocabularies of {_name(model)} and {_name(other)} differ")


def _name(model: HookedRewardModel) -> str:
    return str(model.cfg.model_name)
