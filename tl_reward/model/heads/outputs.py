"""Which of a head's outputs is the reward: one of them, or a weighted sum of several."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.arguments import is_whole
from tl_reward.errors import InputError, did_you_mean, shown

# A name, an index, weights by name, or a weight for each output. None: the only output, or what the published model takes for its reward.
Output = str | int | Mapping[str, float] | Sequence[float] | None


class OutputSetting:
    """The attribute `output` of a model: which of its `outputs` is the reward, or how they add up to it. Where nobody has chosen, it is
    what the published model takes for its reward (`_published`), if its layout says so."""

    def __get__(self, model: Any, owner: Any = None) -> Output:
        own = getattr(model, "_output", None)
        return getattr(model, "_published", None) if own is None else own

    def __set__(self, model: Any, value: Output) -> None:
        if value is not None:  # nobody chooses any more
            weights_of(value, model.outputs)  # says no to what the model does not have
        model._output = value


def weights_of(output: Output, names: Sequence[str]) -> tuple[float, ...]:
    """The weight of each output in the reward.

    >>> weights_of("safety", ["helpfulness", "safety"])
    (0.0, 1.0)
    >>> weights_of({"helpfulness": 0.5}, ["helpfulness", "safety"])
    (0.5, 0.0)

    Raises:
        InputError: an output that the head does not have; none is named, and it has several; weights of another number, not finite, or 0.
    """
    have = f"the head has {len(names)} output{'s' if len(names) > 1 else ''}: {', '.join(names)}"
    if output is None:
        if len(names) > 1:
            raise InputError(f"say which output is the reward, with output= (a name, an index, or weights); {have}")
        return (1.0,)
    if isinstance(output, str):
        if output not in names:
            raise InputError(f"no output {output!r}{did_you_mean(output, names)}; {have}")
        return tuple(float(name == output) for name in names)
    if is_whole(output):
        index = int(cast(int, output))
        if not 0 <= index < len(names):
            raise InputError(f"output must be in [0, {len(names)}), got {index}; {have}")
        return tuple(float(i == index) for i in range(len(names)))
    if isinstance(output, Mapping):
        unknown = [name for name in output if name not in names]
        if unknown:
            raise InputError(f"no output {shown(unknown[0])}{did_you_mean(str(unknown[0]), names)}; {have}")
        output = [output.get(name, 0.0) for name in names]
    try:
        weights = tuple(float(weight) for weight in cast(Sequence[float], output))
    except (TypeError, ValueError):
        raise InputError(f"output is a name, an index, or weights over outputs, got {shown(output)}; {have}") from None
    if len(weights) != len(names) or not any(weights) or not all(map(math.isfinite, weights)):
        raise InputError(f"output must have a finite weight for each of {len(names)} outputs, and one that is not 0, got {shown(output)}")
    return weights


def reward_of(logits: Float[Tensor, "*place output"], output: Output, names: Sequence[str]) -> Float[Tensor, "*place"]:
    """The reward that the head's outputs add up to. One output alone is given as it is, to the last bit.

    Raises:
        InputError: as `weights_of`; `logits` has no column for an output that is asked for: the sum that a gate makes of the others.
    """
    weights = weights_of(output, names)
    count = logits.shape[-1]
    if any(weights[count:]):
        name = names[next(i for i, weight in enumerate(weights) if i >= count and weight)]
        raise InputError(
            f"the output {name!r} is a sum of others that a gate weighs anew for each transcript, so it is no direction of the residual "
            f"stream; what has one is an output by itself: output={names[0]!r}, or weights over {', '.join(names[:count][:3])}, …"
        )
    weights = weights[:count]
    if max(weights) == sum(map(abs, weights)) == 1:
        return logits[..., weights.index(1.0)]
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))  # in half precision the weights themselves would be rounded
    return wide @ wide.new_tensor(weights)


@contextmanager
def read_by(model: Any, output: Output) -> Iterator[None]:
    """Within it, `output` is the reward of the model; None changes nothing."""
    if output is None:
        yield
        return
    before = getattr(model, "_output", None)  # what was chosen, if anything was
    model.output = output
    try:
        yield
    finally:
        model._output = before
