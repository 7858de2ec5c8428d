"""What activations are compared with where gradients are taken: a constant, another transcript, or another model."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.data.alignment import partners
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.interventions.patches import Source, spread
from tl_reward.sites import Site, Where


@runtime_checkable
class Baseline(Protocol):
    """What `backpropagate` compares activations with. `begin` is called once for each batch, before its first site."""

    def begin(self, batch: Batch, /) -> None: ...

    def at(self, site: Site, activation: Float[Tensor, "batch pos ..."], /) -> Float[Tensor, "..."]:
        """The baseline of a site's activations, of a shape that broadcasts to theirs."""
        ...


@dataclass(eq=False)
class ConstantBaseline:
    """A number for each neuron, or a vector for each head: `value` is [layer, neuron, …]."""

    value: Float[Tensor, "layer neuron ..."]
    _here: Float[Tensor, "layer neuron ..."] = field(init=False, repr=False)  # on the batch's device

    def begin(self, batch: Batch) -> None:
        self._here = batch_tensor_on(self.value, batch.tokens.device)

    def at(self, site: Site, activation: Tensor) -> Tensor:
        return self._here[site.layer].to(activation)


@dataclass(eq=False)
class CounterpartBaseline:
    """The activation at the token's counterpart in the other transcript of its pair (`alignment.align`); its own where it has none."""

    _partner: Int[Tensor, " token"] = field(init=False, repr=False)

    def begin(self, batch: Batch) -> None:
        self._partner = partners(batch)

    def at(self, site: Site, activation: Tensor) -> Tensor:
        return activation[:, self._partner]


@dataclass(eq=False)
class OtherModelBaseline:
    """What a source computes on the same tokens. It expects the sites that will be asked for."""

    source: Source
    _batch: Batch = field(init=False, repr=False)

    def begin(self, batch: Batch) -> None:
        self._batch = batch

    def at(self, site: Site, activation: Tensor) -> Tensor:
        return self.source.activations(self._batch, [site.hook_name])[site.hook_name].to(activation)


@dataclass(eq=False)
class BaselineAtTokens:
    """Another baseline at the tokens of `where` (None: 0), and the activation itself at all others."""

    where: Where
    baseline: Baseline | None
    _meant: Bool[Tensor, "batch pos"] = field(init=False, repr=False)

    def begin(self, batch: Batch) -> None:
        self._meant = batch.at(self.where)
        if self.baseline is not None:
            self.baseline.begin(batch)

    def at(self, site: Site, activation: Tensor) -> Tensor:
        other = self.baseline.at(site, activation) if self.baseline is not None else torch.zeros_like(activation)
        return torch.where(spread(self._meant, activation), other, activation)
