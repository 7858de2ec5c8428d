"""What each neuron does to the margin, to first order: activation times gradient, for all neurons in one backward pass."""

from dataclasses import dataclass
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.budget import BatchOptions
from tl_reward.errors import InputError
from tl_reward.model import HookedRewardModel
from tl_reward.results import pair_hash
from tl_reward.run import Batch, Pairs, encode_for
from tl_reward.sites import Site, SiteKind, check_neuron_site
from tl_reward.statistics import CHUNK
from tl_reward.streaming import backpropagate


@dataclass(frozen=True, eq=False)
class Attribution:
    """An estimate of each neuron's effect on the margin, in raw reward units, as the mean over pairs of chosen minus rejected.

    Attributes:
        effect: what zeroing the neuron at every token takes off the margin. Positive: zeroing it *lowers* the margin.
        gradient: the margin's gradient, summed over tokens: what one unit more of the neuron at every token adds to the margin.
        pairs: the hash of each pair that it comes from.
    """

    effect: Float[Tensor, "layer neuron"]
    gradient: Float[Tensor, "layer neuron"]
    pairs: tuple[str, ...]

    def against(self, baseline: Float[Tensor, "layer neuron"]) -> Float[Tensor, "layer neuron"]:
        """What setting the neuron to a baseline, such as its mean, takes off the margin; `effect` is that against 0."""
        if baseline.shape != self.effect.shape:
            raise InputError(f"baseline must have the model's shape {list(self.effect.shape)}, got {list(baseline.shape)}")
        return self.effect - baseline * self.gradient


@torch.inference_mode(False)  # else, called from inference mode, the sums could not be added to in a backward pass
def attribute(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    site: SiteKind = "mlp_post",
    steps: int | None = None,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Attribution:
    """The effect of ablating each neuron, to first order: activation times gradient of the margin, summed over tokens.

    This is attribution patching (Nanda 2023; Syed et al. 2023) against a constant baseline. It takes one forward and one backward pass a
    batch for all neurons of all layers. It misses what is not linear: `measure_agreement` says by how much, against exact ablation.

    Args:
        site: "mlp_post" or "mlp_gate".
        steps: with a number, integrated gradients: the mean gradient on the path on which all neurons grow together from 0 to what they
            are. The effects then add up to the margin minus that of the model without any neuron, as steps grow (but not where a norm
            follows the MLP, as in Gemma-2 and OLMo-2: it undoes the growth). `against` is for attributions without steps.
        options: how transcripts become batches (`budget.BatchOptions`).

    Raises:
        InputError: an activation or a gradient is not finite; a budget is too small; less than 1 step.
    """
    check_neuron_site(site)
    encoded = encode_for(model, pairs, **options)
    shape = (model.cfg.n_layers, int(model.cfg.d_mlp or 0))
    effect, slope = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape, dtype=torch.float64)

    def add(place: Site, activation: Tensor, gradient: Tensor, batch: Batch) -> None:
        products, slopes = [], []
        for start in range(0, len(activation), CHUNK):
            values = gradient[start : start + CHUNK].float()
            products.append((activation[start : start + CHUNK].float() * values).sum(0).double())
            slopes.append(values.sum(0).double())
        effect[place.layer] += torch.stack(products).sum(0).cpu()
        slope[place.layer] += torch.stack(slopes).sum(0).cpu()

    sites = [Site(layer, site) for layer in range(model.cfg.n_layers)]
    backpropagate(model, encoded, sites, add, steps=steps, progress=progress, **options)
    count = len(encoded.pairs)
    return Attribution((effect / count).float(), (slope / count).float(), tuple(pair_hash(pair) for pair in encoded.pairs))
