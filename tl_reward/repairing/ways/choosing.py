"""Which neurons to edit, and by how much: pure functions from effects and their standard errors to gates.

Effects are those of each neuron on the margin of each objective, positive where it raises it (`analyses.attribution`). A neuron is clear
where its effect is at least `CLEAR` standard errors. Where fewer neurons qualify than are asked for, all that do are edited.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tl_reward.analyses.attribution import Attribution
from tl_reward.errors import InputError

Effects = Mapping[str, Attribution]
Gating = Float[Tensor, "layer neuron"]

CLEAR = 2.0  # standard errors from which an effect counts


def hurting_all(effects: Effects, neurons: int, strength: float) -> Gating:
    """The neurons that clearly lower the margin of every objective, those first that lower even the least lowered one most.

    Args:
        neurons: how many to edit at most.
        strength: their gate. 0 zeroes them, 0.5 halves them.

    Raises:
        InputError: a strength below 0.

    >>> def effect(*values): return Attribution(torch.tensor([values]), torch.ones(1, len(values)), (), 9)
    >>> hurting_all({"a": effect(-4.0, -3.0, 1.0), "b": effect(-2.5, -3.0, -9.0)}, 1, 0.5)
    tensor([[1.0000, 0.5000, 1.0000]])
    """
    effect, clarity = _stacked(effects)
    return _gates(-effect.amax(0), clarity.amax(0) <= -CLEAR, neurons, strength)


def hurting_on_balance(effects: Effects, neurons: int, strength: float) -> Gating:
    """The neurons that clearly lower the sum of all objectives' margins, and clearly raise none; those first that lower it most.
    Standard errors are added as those of objectives with different prompts.

    Args and errors as in `hurting_all`.

    >>> def effect(*values): return Attribution(torch.tensor([values]), torch.ones(1, len(values)), (), 9)
    >>> hurting_on_balance({"a": effect(-4.0, -9.0, 0.0), "b": effect(0.5, 2.5, 0.0)}, 2, 0.0)
    tensor([[0., 1., 1.]])
    """
    effect, clarity = _stacked(effects)
    total, error = effect.sum(0), torch.stack([found.error for found in effects.values()]).square().sum(0).sqrt()
    clear = (total <= -CLEAR * error) & error.isfinite() & (error > 0)  # without the last, a neuron that is always 0 would be clear
    return _gates(-total, clear & (clarity.amax(0) < CLEAR), neurons, strength)


def at_a_cost(effects: Effects, serves: str, hurts: str, neurons: int, strength: float | Gating) -> Gating:
    """The neurons that clearly raise one objective's margin and clearly lower another's, those first that lower it most.

    Args:
        strength: their gate, or one for every neuron of the model, such as `matching.gates_towards` gives.

    Other args and errors as in `hurting_all`.

    >>> def effect(*values): return Attribution(torch.tensor([values]), torch.ones(1, len(values)), (), 9)
    >>> at_a_cost({"a": effect(3.0, 2.0, -1.0), "b": effect(-1.0, -2.0, 5.0)}, "a", "b", 1, torch.tensor([[0.1, 0.2, 0.3]]))
    tensor([[1.0000, 0.2000, 1.0000]])
    """
    serving, hurting = effects[serves], effects[hurts]
    qualify = (clarity_of(serving) >= CLEAR) & (clarity_of(hurting) <= -CLEAR)
    return _gates(-hurting.effect, qualify, neurons, strength)


def furthest(gates: Gating, neurons: int) -> Gating:
    """Gates of which only those furthest from 1 are kept; all others are 1.

    >>> furthest(torch.tensor([[0.5, 1.75, 0.9]]), 2)
    tensor([[0.5000, 1.7500, 1.0000]])
    """
    distance = (gates - 1).abs()
    return _gates(distance, distance > 0, neurons, gates)


def clarity_of(found: Attribution) -> Float[Tensor, "layer neuron"]:
    """Effects in standard errors; 0 where there is none."""
    known = (found.error > 0) & found.error.isfinite()
    return torch.where(known, found.effect / torch.where(known, found.error, 1), 0)


def _stacked(effects: Effects) -> tuple[Float[Tensor, "objective layer neuron"], Float[Tensor, "objective layer neuron"]]:
    """Effects, in reward units and in standard errors."""
    return torch.stack([found.effect for found in effects.values()]), torch.stack([clarity_of(found) for found in effects.values()])


def _gates(order: Float[Tensor, "layer neuron"], qualify: Bool[Tensor, "layer neuron"], neurons: int, strength: float | Gating) -> Gating:
    """The first `neurons` of those that qualify, the highest first, get their strength. Ties go to the lower layer, then neuron."""
    if neurons < 1:
        raise InputError(f"at least 1 neuron must be edited, got {neurons}")
    to = strength if isinstance(strength, Tensor) else torch.full(order.shape, float(strength))
    if bool((to < 0).any()) or not bool(to.isfinite().all()):
        raise InputError(
            f"a strength must be finite and at least 0, which zeroes a neuron, got {float(to[(to < 0) | ~to.isfinite()][0]):g}"
        )
    ranked = torch.where(qualify, order, -torch.inf).flatten().sort(descending=True, stable=True).indices
    chosen = ranked[: min(neurons, int(qualify.sum()))]
    gates = torch.ones(order.shape)
    gates.view(-1)[chosen] = to.flatten()[chosen].float()
    return gates
