"""A model whose matrix products are in half precision, where that is faster and a check on the spot says that figures agree.

The residual stream, norms, attention scores, the head and all sums stay as they are: in half precision too, they lose as much again in
every layer.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import wraps
from typing import NamedTuple, ParamSpec, Unpack

import numpy as np
import torch

from tl_reward import parallel
from tl_reward.data.encoding import EncodedPairs
from tl_reward.measures.agreement import Precision, compare_figures, compare_margins
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.scoring import Condition, sweep

HALF = torch.bfloat16
LEAST_GAIN = 1.3  # how many times as fast a product has to be
CHECKED_PAIRS = 8  # of fewer, the ranks and the spread of margins say little

P = ParamSpec("P")
Figure = Callable[[HookedRewardModel, EncodedPairs], np.ndarray]


class Halved(NamedTuple):
    """The model to go on with: a copy with products in half precision, or the model itself. `precision` says why."""

    model: HookedRewardModel
    precision: Precision


def own_precision(model: HookedRewardModel) -> Precision:
    """Of what this model computes."""
    products = next(model.blocks[0].attn.parameters(recurse=False)).dtype
    return Precision(_name(products), _name(model.cfg.dtype))


def _set_as_the_model(function: Callable[P, Halved]) -> Callable[P, Halved]:
    """A copy outlives the call, and its options with it: the output that the copy is set to is the model's own setting."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Halved:
        model = kwargs.get("model", args[0] if args else None)
        before = getattr(model, "_output", None)
        found = function(*args, **kwargs)
        if found.model is not model:
            found.model.output = before
        return found

    return call


@_set_as_the_model
@checked
def half_where_it_agrees(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    conditions: Sequence[Condition] = ((),),
    figures: Mapping[str, Figure] | None = None,
    **options: Unpack[RunOptions],
) -> Halved:
    """The model with its matrix products in bfloat16, where its device multiplies that `LEAST_GAIN` times as fast, and where on
    `CHECKED_PAIRS` of the pairs margins under every condition (`agreement.compare_margins`), and other figures
    (`agreement.compare_figures`), are those of the model itself. Elsewhere the model itself.

    What is small beside a margin, such as the exact effect of a single neuron, is not for half precision: bfloat16 has two to three digits.

    Args:
        conditions: the edits to compare margins under; an empty one is the model as it is.
        figures: what else is to agree, by name: from a model and some pairs to an array of one figure, such as an effect, a neuron.
        options: how the model is run (`running.options.RunOptions`).
    """
    found = replace(own_precision(model), asked=True)
    encoded = encode_for(model, pairs, **options)
    if not _is_faster(model):
        return Halved(model, found)
    sample = encoded.take(_spread(len(encoded.pairs), CHECKED_PAIRS))
    half = in_half(model)
    own, other = (np.stack([scores.margin for scores in sweep(each, sample, conditions, **options)]) for each in (model, half))
    found = compare_margins(own, other, found, _name(HALF))
    for name, figure in (figures or {}).items():
        found = compare_figures(name, figure(model, sample), figure(half, sample), found)
    return Halved(half if found.dtype != found.own else model, found)


def in_half(model: HookedRewardModel) -> HookedRewardModel:
    """A copy whose layers multiply in bfloat16. It is the same model as far as its files tell: a cast is no edit of its weights, and the
    sha256 in `origin.weights` is of other numbers where it is of numbers in memory (a model of `from_hf`)."""
    half = deepcopy(model)
    with half._weights.through_a_cast(half.named_parameters):
        for block in half.blocks:
            block.multiply_in(HALF)
    return half


def _is_faster(model: HookedRewardModel) -> bool:
    """Whether products in half precision are worth their while. Hooks of the user's on the model would be lost in a copy."""
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
