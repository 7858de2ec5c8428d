"""Sweeps in half precision, where the device multiplies it faster and a check on the spot says that margins agree."""

import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple, Unpack

import numpy as np
import torch

from tl_reward import parallel
from tl_reward.measures.agreement import Precision, compare_margins
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Pairs, encode_for, interventions_of
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import Condition, sweep

HALF = torch.bfloat16
LEAST_GAIN = 1.3  # how many times as fast a product has to be
CHECKED_PAIRS, CHECKED_CONDITIONS = 8, 3


class Swept(NamedTuple):
    """The scores under each condition, and how they were made."""

    scores: list[Scores]
    precision: Precision


def own_precision(model: HookedRewardModel) -> Precision:
    """Of what was computed as the model is."""
    return Precision(_name(model.cfg.dtype), _name(model.cfg.dtype))


@checked
def sweep_in_half(
    model: HookedRewardModel,
    pairs: Pairs,
    conditions: Sequence[Condition],
    *,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Swept:
    """As `scoring.sweep`, on a copy of the model in bfloat16, where the device multiplies that `LEAST_GAIN` times as fast or faster.

    Some conditions then run on some pairs in the model's own precision too. Where margins do not agree (`agreement.compare_margins`), all
    conditions run in the model's own, and so they do where the options hold interventions. `Precision` says which it was, and how much
    margins differed.

    What is small beside a margin, such as the effect of a single neuron, is not for half precision: bfloat16 has two to three digits.
    """
    encoded, found = encode_for(model, pairs, **options), replace(own_precision(model), asked=True)
    # Edits of the options may hold the model itself, and a patch's source runs under those that come before it: a copy would miss them.
    if conditions and not interventions_of(options) and _is_faster(model):
        half = deepcopy(model)
        half.to(HALF, print_details=False)
        scores = sweep(half, encoded, conditions, progress=f"{progress}, in {_name(HALF)}" if progress else None, **options)
        del half
        which, at = _spread(len(conditions), CHECKED_CONDITIONS), _spread(len(encoded.pairs), CHECKED_PAIRS)
        label = f"{progress}, {len(at)} pairs in {found.own} to compare" if progress else None
        again = sweep(model, encoded.take(at), [conditions[i] for i in which], progress=label, **options)
        found = compare_margins(
            np.stack([each.margin for each in again]), np.stack([scores[i].margin[at] for i in which]), found, _name(HALF)
        )
        if found.dtype != found.own:
            return Swept(scores, found)
    return Swept(sweep(model, encoded, conditions, progress=progress, **options), found)


def _is_faster(model: HookedRewardModel) -> bool:
    """Whether a copy in half precision is worth its while. Hooks of the user's on the model would not know of it."""
    if torch.finfo(model.cfg.dtype).bits <= torch.finfo(HALF).bits:
        return False
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return False
    return min(parallel.gathered(product_gain(model))) >= LEAST_GAIN  # all processes have to decide alike


def product_gain(model: HookedRewardModel) -> float:
    """How many times as fast the model's device multiplies matrices of the model's sizes in half precision as in the model's own.

    The best of several short runs each, in turn, so that what else the machine does matters little.
    """
    device, tokens, repeats = model.W_U.device, 256, 9
    shapes = (tokens, model.cfg.d_model), (int(model.cfg.d_mlp or 1), model.cfg.d_model)
    best = {}
    for _ in range(repeats):
        for dtype in (model.cfg.dtype, HALF):
            one, other = (torch.ones(shape, dtype=dtype, device=device) for shape in shapes)
            _wait(device)
            start = time.perf_counter()
            torch.nn.functional.linear(one, other)
            _wait(device)
            best[dtype] = min(best.get(dtype, np.inf), time.perf_counter() - start)
    return best[model.cfg.dtype] / best[HALF]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` of the numbers below `count`, from the first to the last.

    >>> _spread(7, 3), _spread(2, 3)
    ([0, 3, 6], [0, 1])
    """
    return sorted({round(i) for i in np.linspace(0, count - 1, min(most, count))})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
