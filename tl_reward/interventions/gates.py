"""An edit of every neuron at once: each is multiplied by a number of its own."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from tl_reward.arguments import check_fields
from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.batches.padding import TokenBatch, batch_tensor_on
from tl_reward.errors import InputError
from tl_reward.interventions.protocol import HookFunction, Hooks
from tl_reward.neurons import NeuronSet
from tl_reward.sites import Site, UnitSite


@dataclass(frozen=True, eq=False)
class Gates:
    """Multiplies each MLP neuron by its gate, at every position of every row.

    A gate of 1 leaves the neuron as it is, 0 zeroes it, 0.5 halves it, 2 doubles it. The same edit of weights is
    `folding.with_gates`.

    Attributes:
        values: finite, at least 0.
        neurons: those whose gate is not 1.
    """

    values: Float[Tensor, "layer neuron"]
    site: ClassVar[UnitSite] = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_gates(self.values)

    @cached_property
    def neurons(self) -> NeuronSet:
        return NeuronSet.from_mask(self.values != 1)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        values = batch_tensor_on(self.values, batch.tokens.device)
        return [(Site(layer, self.site).hook_name, multiplied_by(values[layer])) for layer in self.neurons.by_layer()]


def check_gates(values: Float[Tensor, "layer neuron"]) -> None:
    """Raises InputError for gates that are not [layer, neuron], not finite, or below 0."""
    if values.ndim != 2:
        raise InputError(f"gates must be [layer, neuron], got a tensor of shape {list(values.shape)}")
    bad = int((~(values.isfinite() & (values >= 0))).sum())
    if bad:
        raise InputError(f"gates must be finite and at least 0; {bad} of {values.numel()} are not, such as {_first_bad(values)}")


def _first_bad(values: Float[Tensor, "layer neuron"]) -> str:
    layer, neuron = (~(values.isfinite() & (values >= 0))).nonzero()[0].tolist()
    return f"{float(values[layer, neuron]):g} of neuron {layer}.{neuron}"


def multiplied_by(gate: Float[Tensor, " neuron"]) -> HookFunction:
    """A hook that multiplies neurons by gates; gradients reach the gates."""

    def fn(activation: Float[Tensor, "batch pos neuron"], hook: Any) -> Tensor:
        return (activation * gate).to(activation.dtype)  # a gate in half precision would be another one

    return fn
