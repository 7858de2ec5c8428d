"""What a repair tries: free of torch, since the command line lists these options."""

import math
from dataclasses import dataclass

from tl_reward.errors import InputError


@dataclass(frozen=True)
class RepairConfig:
    """What a repair tries, and how it chooses.

    Attributes:
        fractions: shares of all neurons to edit at most.
        strengths: what edited neurons are multiplied by; 0 zeroes them.
        tolerance: how much accuracy an objective may lose on the tune pairs; 0.01 is a point.
        draws: random edits beside the repair.
        learn_steps: steps of proximal gradient descent by which gates are learnt; 0 learns none.
        pairs_a_step: an equal share of each objective's.
        learning_rate: how far the gate of the largest gradient moves in the first step; it falls linearly to 0.
        sparsity: gates of a gradient below this part of the largest one stay at 1 (the L1 penalty of the proximal step).
        seed: of random edits, and of the order in which gates are learnt.
    """

    fractions: tuple[float, ...] = (0.005, 0.01, 0.02, 0.04)
    strengths: tuple[float, ...] = (0.0, 0.5)
    tolerance: float = 0.01
    draws: int = 3
    learn_steps: int = 60
    pairs_a_step: int = 16
    learning_rate: float = 0.2
    sparsity: float = 0.3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("fractions", "strengths"):
            values = getattr(self, name)
            if not isinstance(values, (tuple, list)):
                raise InputError(f"{name} must be a tuple of numbers, got {values!r}")
            if not values or len(set(values)) < len(values):
                raise InputError(f"{name} must be different numbers, at least one, got {', '.join(map(str, values)) or 'none'}")
        for fraction in self.fractions:
            if not 0 < fraction <= 1:
                raise InputError(f"a fraction must be in (0, 1], got {fraction}")
        for strength in self.strengths:
            if not 0 <= strength < math.inf:
                raise InputError(f"a strength must be finite and at least 0, which zeroes a neuron, got {strength}")
        for name in ("tolerance", "sparsity", "learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and at least 0, got {getattr(self, name)}")
        for name, low in (("draws", 0), ("learn_steps", 0), ("pairs_a_step", 1), ("seed", 0)):
            if getattr(self, name) < low:
                raise InputError(f"{name} must be at least {low}, got {getattr(self, name)}")
