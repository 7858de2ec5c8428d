"""Tiny models whose head has several outputs, and the models of one output that each choice among them should equal."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.model.tiny import byte_tokenizer, tiny_hf_model

NAMES = ("helpfulness", "safety", "verbosity")


def hf_with_outputs(seed: int = 0) -> Any:
    config = tiny_hf_model().config
    config.num_labels = len(NAMES)
    config.id2label = dict(enumerate(NAMES))
    config.label2id = {name: i for i, name in config.id2label.items()}
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_config(config).eval()


def with_outputs(seed: int = 0) -> HookedRewardModel:
    return HookedRewardModel.from_hf(hf_with_outputs(seed), byte_tokenizer(), device="cpu")


def of_one(weights: Sequence[float], seed: int = 0) -> HookedRewardModel:
    """The same model, with one output: the weighted sum of the columns."""
    theirs = hf_with_outputs(seed)
    config = deepcopy(theirs.config)
    config.num_labels = 1
    one = AutoModelForSequenceClassification.from_config(config).eval()
    head = theirs.score.weight.detach()
    column = head[list(weights).index(1)] if sorted(weights) == [0, 0, 1] else torch.tensor(weights) @ head
    one.load_state_dict(theirs.state_dict() | {"score.weight": column[None]})
    return HookedRewardModel.from_hf(one, byte_tokenizer(), device="cpu")
