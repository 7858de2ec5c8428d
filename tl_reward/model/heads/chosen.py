"""What follows from the output that a model is read by: what results call it, its bias, and whether there is one."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.model.heads.outputs import Output, reward_of, weights_of


def check_output(model: Any) -> None:
    """Says no before anything runs: raises InputError where the head has several outputs, and nobody has said which is the reward."""
    weights_of(model.output, model.outputs)


def check_direction(model: Any) -> None:
    """Says no before anything runs: raises InputError where the reward is along no single direction of the residual stream."""
    _ = model.reward_direction


def reward_bias(model: Any) -> Float[Tensor, ""]:
    """What the head adds to the projection on `reward_direction`."""
    return reward_of(model.b_U, model.output, model.outputs)


def output_name(model: Any) -> str:
    """What results call the output that a model is read by; "" where nobody has chosen one."""
    return name_of(getattr(model, "_output", None), model.outputs)


def name_of(output: Output, names: Sequence[str]) -> str:
    """An output's name, or weights as the command line takes them; "" where none is chosen, or the head has one alone.

    >>> name_of(1, ["helpfulness", "safety"]), name_of([0.5, -1], ["helpfulness", "safety"]), name_of(0, ["reward"])
    ('safety', 'helpfulness=0.5,safety=-1', '')
    """
    if output is None:
        return ""
    weights = weights_of(output, names)
    told = {name: weight for name, weight in zip(names, weights, strict=True) if weight}
    if set(told.values()) == {1.0} and len(told) == 1:
        return "" if len(names) == 1 else next(iter(told))
    return ",".join(f"{name}={str(weight).removesuffix('.0')}" for name, weight in told.items())


def parsed(text: str, names: Sequence[str]) -> Output:
    """An output as the command line says it: a name, an index, or weights as in "helpfulness=0.65,verbosity=-0.2". A name goes first.

    >>> [parsed(text, ["helpfulness", "safety"]) for text in ("safety", "1", "safety=-0.5")]
    ['safety', 1, {'safety': -0.5}]

    Raises:
        InputError: it is none of these, or not of this head.
    """
    output: Output = text
    if text not in names:
        with suppress(ValueError):
            output = int(text)
    if isinstance(output, str) and text not in names and "=" in text:
        parts = [part.rpartition("=") for part in text.split(",")]
        told = {name.strip(): _number(weight, text) for name, _, weight in parts}
        if len(told) < len(parts):
            raise InputError(f"output must name each output once, got {text!r}")
        output = told
    weights_of(output, names)
    return output


def _number(text: str, whole: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"output must be a name, an index, or weights such as a=0.65,b=-0.2, got {whole!r}") from None
