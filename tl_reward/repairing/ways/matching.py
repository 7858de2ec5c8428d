"""By how much would each neuron have to be scaled to do what it does in another model, on the same tokens?"""

from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.data.batches.packing import Batch
from tl_reward.devices import WideSums, wide
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import stream
from tl_reward.running.batches.batching import Pairs
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site, unit_shape

HIGHEST = 2.0  # no gate doubles a neuron more than once


@checked
def gates_towards(
    model: HookedRewardModel, target: HookedRewardModel, pairs: Pairs, *, progress: str | None = None, **options: Unpack[RunOptions]
) -> Float[Tensor, "layer neuron"]:
    """The gate of each neuron that brings it, by least squares over all tokens, closest to what it is in another model of the same shape.

    It is the sum of products of both models' activations over that of the model's own squares, cut to [0, `HIGHEST`]; 1 for a neuron
    that is 0 everywhere.

    Raises:
        InputError: as `stream`.
    """
    shape = unit_shape(model.cfg, "mlp_post")
    device = model.W_U.device
    sums = _Products(WideSums(*shape, device=device), WideSums(*shape, device=device))
    sites = [Site(layer, "mlp_post") for layer in range(shape.layers)]
    stream(model, pairs, sites, sums, base=target, progress=progress, **options)
    own, both = sums.own.total(), sums.both.total()
    ratio = torch.where(own > 0, both / torch.where(own > 0, own, 1), 1)
    return ratio.clamp(0, HIGHEST).float()


class _Products:
    """Sums over tokens, each as often as it stands in a transcript."""

    def __init__(self, own: WideSums, both: WideSums) -> None:
        self.own, self.both = own, both
        self._weight = torch.empty(0)

    def begin(self, batch: Batch) -> None:
        self._weight = batch.occurrences(torch.ones(1, len(batch.row), device=batch.row.device))[0]

    def layer(self, site: Site, activation: Float[Tensor, "token neuron"], base: Float[Tensor, "token neuron"] | None) -> None:
        assert base is not None
        weighted = wide(activation) * wide(self._weight)[:, None]
        self.own.add(site.layer, (weighted * wide(activation)).sum(0))
        self.both.add(site.layer, (weighted * wide(base)).sum(0))

    def end(self) -> None:
        pass

    def merge(self) -> None:
        self.own.merge()
        self.both.merge()
