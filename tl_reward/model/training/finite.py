"""A training that diverged has no model to save."""

import math
from collections.abc import Sequence
from typing import Any

from tl_reward.errors import InputError


def check_finite(step: int, losses: Sequence[float], model: Any = None) -> None:
    """Raises InputError where a loss, or a trained weight of the model, is not finite.

    >>> check_finite(5, [0.7, math.nan])
    Traceback (most recent call last):
    tl_reward.errors.InputError: the training diverged by step 5: its loss is nan; a lower learning_rate may help. Nothing was saved
    """
    wrong = [f"its loss is {loss}" for loss in losses if not math.isfinite(loss)]
    if model is not None and not wrong:
        trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        wrong = [f"{name} is not finite" for name, weight in trained if not weight.isfinite().all()]
    if wrong:
        raise InputError(f"the training diverged by step {step}: {wrong[0]}; a lower learning_rate may help. Nothing was saved")
