"""What each neuron does to the margin, to first order: activation times gradient, for all neurons in one backward pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.budget import BatchOptions
from tl_reward.model import HookedRewardModel
from tl_reward.results import pair_hash
from tl_reward.run import Batch, Pairs, backpropagate, encode_for
from tl_reward.sites import Site, SiteKind, check_neuron_site
from tl_reward.statistics import CHUNK


@dataclass(frozen=True, eq=False)
class Attribution:
    """An estimate of each neuron's effect on the margin.

    `effect` is in raw reward units, the mean over pairs of chosen minus rejected. Positive: zeroing the neuron *lowers* the margin, to
    first order by this much. `pairs` holds the hash of each pair that it comes from.
    """

    effect: Float[Tensor, "layer neuron"]
    pairs: tuple[str, ...]


def attribute(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    site: SiteKind = "mlp_post",
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Attribution:
    """Activation times gradient of the margin, summed over tokens: the first-order effect of setting a neuron to 0 at every token.

    The method is attribution patching (Nanda 2023; Syed et al. 2023) against a baseline of zero. It takes one forward and one backward
    pass a batch for all neurons of all layers. It misses what is not linear: compare it with exact ablation before you trust a ranking.

    Args:
        site: "mlp_post" or "mlp_gate".
        options: how transcripts become batches (`budget.BatchOptions`).

    Raises:
        InputError: an activation or a gradient is not finite; a budget is too small.
    """
    check_neuron_site(site)
    encoded = encode_for(model, pairs, **options)
    effect = torch.zeros(model.cfg.n_layers, int(model.cfg.d_mlp or 0), dtype=torch.float64)

    def add(place: Site, activation: Tensor, gradient: Tensor, batch: Batch) -> None:
        for start in range(0, len(activation), CHUNK):
            part = slice(start, start + CHUNK)
            effect[place.layer] += (activation[part].float() * gradient[part].float()).sum(0).double().cpu()

    sites: Sequence[Site] = [Site(layer, site) for layer in range(model.cfg.n_layers)]
    backpropagate(model, encoded, sites, add, progress=progress, **options)
    return Attribution((effect / len(encoded.pairs)).float(), tuple(pair_hash(pair) for pair in encoded.pairs))
