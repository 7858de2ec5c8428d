"""Edits of activations, as data that turns into hooks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward.arguments import check_fields
from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.batches.padding import TokenBatch, batch_tensor_on
from tl_reward.errors import InputError
from tl_reward.interventions.protocol import HookFunction, Hooks, Intervention
from tl_reward.measures.names import AblationKind
from tl_reward.neurons import NeuronSet
from tl_reward.sites import Site, UnitSite


@dataclass(frozen=True)
class ZeroAblation:
    """Sets neurons to 0 at every position of every row; with the site "attn_z", attention heads.

    At "mlp_post" and at "mlp_gate" this is the same edit: the neuron stops writing to the residual stream. (A bias inside the MLP,
    which no supported gated architecture has, would make them differ.)
    """

    neurons: NeuronSet
    site: UnitSite = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        return edits(self.neurons, self.site, lambda values, layer: torch.zeros_like(values))


@dataclass(frozen=True)
class ScaleAblation:
    """Multiplies neurons by a factor at every position of every row: 0.5 halves them, 2 doubles them."""

    neurons: NeuronSet
    factor: float
    site: UnitSite = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        def scale(values: Tensor, layer: int) -> Tensor:
            return self.factor * values

        return edits(self.neurons, self.site, scale)


@dataclass(frozen=True, eq=False)
class MeanAblation:
    """Sets neurons to their mean at every position of every row.

    Attributes:
        mean: [layer, neuron], such as `Discovery.ranking("mean", site)`, of the same site; of heads [layer, head, d_head].
    """

    neurons: NeuronSet
    mean: Float[Tensor, "layer neuron ..."]
    site: UnitSite = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        _check_values("mean", self.mean, self.neurons, layers=0)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        here = _by_layer(self.neurons, self.mean, batch, layers=0)

        def fill(values: Tensor, layer: int) -> Tensor:
            return here[layer].to(values).expand_as(values)

        return edits(self.neurons, self.site, fill, units=self.mean.shape[1])


@dataclass(frozen=True, eq=False)
class ResampleAblation:
    """Sets neurons to what they are at tokens drawn from elsewhere (causal scrubbing's null; Chan et al. 2022).

    All neurons of the set take their values from the same drawn token, so that those of a layer keep their joint distribution. Which one
    follows from the token, its place and the seed, so that the result depends neither on batches nor on the order of pairs.

    Attributes:
        bank: the activations to draw from, [sample, layer, neuron], such as `activations.sample_activations` collects; of heads
            [sample, layer, head, d_head].
    """

    neurons: NeuronSet
    bank: Float[Tensor, "sample layer neuron ..."]
    seed: int = 0
    site: UnitSite = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        _check_values("bank", self.bank, self.neurons, layers=1)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        here = _by_layer(self.neurons, self.bank, batch, layers=1)
        drawn = _draw(batch, len(self.bank), self.seed)

        def fill(values: Tensor, layer: int) -> Tensor:
            return here[layer][drawn].to(values).expand_as(values)

        return edits(self.neurons, self.site, fill, units=self.bank.shape[2])


def _check_values(name: str, values: Tensor, neurons: NeuronSet, *, layers: int) -> None:
    """Raises InputError where values to set, whose axes from `layers` on are layer and neuron, are none, not finite, or lack a neuron."""
    if values.ndim < layers + 2 or 0 in values.shape:
        raise InputError(f"{name} must have a value for every layer and neuron, got shape {list(values.shape)}")
    mask = neurons.mask(*values.shape[layers : layers + 2]).to(values.device)
    bad = int((~(values[:, mask] if layers else values[mask]).isfinite()).sum())
    if bad:
        raise InputError(f"{bad} values of {name} are not finite, of the neurons that it is set for")


def _by_layer(neurons: NeuronSet, values: Tensor, batch: TokenBatch | PackedBatch, *, layers: int) -> dict[int, Tensor]:
    """The values to set in each layer, on the batch's device: moved together before the pass, so that no layer waits for them."""
    index = neurons.by_layer(values.device)
    parts = [values.select(layers, layer).index_select(layers, at) for layer, at in index.items()]
    if not parts:
        return {}
    moved = batch_tensor_on(torch.cat(parts, dim=layers), batch.tokens.device)
    return dict(zip(index, moved.split([part.shape[layers] for part in parts], dim=layers), strict=True))


def _draw(batch: TokenBatch | PackedBatch, count: int, seed: int) -> Int[Tensor, "batch pos"]:
    """A number below `count` for each token, spread by a multiplicative hash of the token, its place and the seed."""
    mixed = (batch.tokens + 1) * 2654435761 + (batch.position + 1) * 40503 + (seed + 1) * 97531
    return ((mixed ^ (mixed >> 15)) * 2246822519 % 2**31) % count


def edits(neurons: NeuronSet, site: UnitSite, edit: Callable[[Tensor, int], Tensor], *, units: int | None = None) -> Hooks:
    """Hooks that replace a set's activations [batch, pos, neuron in the set, …] by `edit(activations, layer)`.

    Args:
        units: how many the edit knows values for, in each layer; a model with another number of them is refused.
    """
    unit = "head" if site == "attn_z" else "neuron"

    def at(layer: int, highest: int) -> HookFunction:
        def fn(activation: Tensor, hook: Any) -> Tensor:
            if highest >= activation.shape[2]:
                raise InputError(f"{unit} must be in [0, {activation.shape[2]}), got {highest} at {hook.name}")
            if units not in (None, activation.shape[2]):
                raise InputError(f"{hook.name} has {activation.shape[2]} {unit}s, the values to set are of a model with {units}")
            here = neurons.by_layer(activation.device)[layer]
            # Not in place: another hook may hold on to the clean activation.
            return activation.index_copy(2, here, edit(activation.index_select(2, here), layer))

        return fn

    return [(Site(layer, site).hook_name, at(layer, int(index.max()))) for layer, index in neurons.by_layer().items()]


def random_like(neurons: NeuronSet, d_mlp: int, *, draws: int, seed: int) -> list[NeuronSet]:
    """Layer-matched random sets, disjoint from `neurons`: the control of every ablation."""
    seeds = torch.randint(2**31, (draws,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [neurons.matched_random(d_mlp, seed=s) for s in seeds]


def ablation(
    neurons: NeuronSet,
    kind: str,
    *,
    site: UnitSite = "mlp_post",
    mean: Float[Tensor, "layer neuron ..."] | None = None,
    bank: Float[Tensor, "sample layer neuron ..."] | None = None,
) -> Intervention:
    """The ablation of a kind, by its name. Raises InputError where what it needs, means or a bank, is missing."""
    if kind not in get_args(AblationKind):
        raise InputError(f"kind of ablation must be one of {', '.join(get_args(AblationKind))}, got {kind!r}")
    if kind == "mean":
        if mean is None:
            raise InputError("mean ablation needs the neurons' means (Discovery.ranking('mean', site))")
        return MeanAblation(neurons, mean, site)
    if kind == "resample":
        if bank is None:
            raise InputError("resample ablation needs activations to draw from (activations.sample_activations)")
        return ResampleAblation(neurons, bank, site=site)
    return ZeroAblation(neurons, site) if kind == "zero" else ScaleAblation(neurons, 0.5, site)
