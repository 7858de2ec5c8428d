"""How to train: free of torch, since the command line lists these options."""

import math
from dataclasses import dataclass
from typing import Literal

from tl_reward.errors import InputError

How = Literal["masked", "pruned"]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults are those of the embedded adapters.

    Attributes:
        method: "lora" trains low-rank adapters on every linear layer and the head, "full" trains every weight.
        lora_rank: rank of the adapters; their scale is twice the rank.
        learning_rate: peak, after a warm-up of 5 % of the steps; falls linearly to 0. None: 3e-4 for LoRA, 1e-5 for full.
        batch_size: pairs an optimiser step, over all processes.
        max_length: pairs with a longer side (in tokens) are left out.
        max_pairs: a random sample of this many of the pairs that fit. None: all of them.
        chat: write transcripts with the tokenizer's chat template instead of as HH-RLHF turns.
        save_every: steps between two saves of the training, which `resume` goes on from.
    """

    method: Literal["lora", "full"] = "lora"
    lora_rank: int = 8
    learning_rate: float | None = None
    epochs: float = 1.0
    batch_size: int = 8
    max_length: int = 320
    max_pairs: int | None = None
    seed: int = 0
    chat: bool = False
    save_every: int = 25

    def __post_init__(self) -> None:
        if self.method not in ("lora", "full"):
            raise InputError(f"method must be lora or full, got {self.method!r}")
        for name in ("lora_rank", "batch_size", "max_length", "max_pairs", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        for name in ("epochs", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be above 0 and finite, got {value}")
