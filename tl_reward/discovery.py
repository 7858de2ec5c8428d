"""Which neurons are loud on preference pairs: the study's rankings, from one pass."""

from collections.abc import Mapping, Sequence
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
from tl_reward.sites import NEURON_SITES, Site, SiteKind, check_neuron_site
from tl_reward.statistics import NeuronStatistics, StatisticName, check_statistic
from tl_reward.streaming import side_weights, stream


@dataclass(frozen=True, eq=False)
class Discovery:
    """Per-neuron statistics of one reward model.

    `by_side` maps (site, statistic) to a tensor over chosen (0) and rejected (1) transcripts. `pairs` holds the hash of each pair that
    it comes from, so that a later test can tell whether it uses pairs that picked the neurons.
    """

    by_side: Mapping[tuple[SiteKind, StatisticName], Float[Tensor, "side layer neuron"]]
    pairs: tuple[str, ...]
    tokens: int

    def ranking(self, score: StatisticName, site: SiteKind = "mlp_post") -> Float[Tensor, "layer neuron"]:
        """The mean of both sides: higher ranks first. Raises InputError where the score was not computed."""
        check_statistic(score)
        if (site, score) not in self.by_side:
            have = ", ".join(sorted({f"{name} at {kind}" for kind, name in self.by_side}))
            needs = " ('change' needs a base model)" if score == "change" else ""
            raise InputError(f"no score {score!r} at {site!r}{needs}; computed: {have}")
        return self.by_side[site, score].mean(0)


def discover(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    base: HookedRewardModel | None = None,
    sites: Sequence[SiteKind] = NEURON_SITES,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Discovery:
    """Every statistic of every MLP neuron at the given sites, from one pass over the pairs.

    Args:
        base: the language model that the reward model was trained from; with it, `change` is computed too.
        sites: "mlp_post", "mlp_gate" or both.
        options: how transcripts become batches (`budget.BatchOptions`).
    """
    sites = tuple(dict.fromkeys(sites))
    for kind in sites:
        check_neuron_site(kind)
    encoded = encode_for(model, pairs, **options)
    shape = (model.cfg.n_layers, int(model.cfg.d_mlp or 0))
    sums: dict[SiteKind, NeuronStatistics] = {kind: NeuronStatistics(*shape) for kind in sites}
    places = [Site(layer, kind) for kind in sites for layer in range(model.cfg.n_layers)]

    def add(site: Site, activation: Tensor, batch: Batch, base_activation: Tensor | None) -> None:
        weight = side_weights(encoded, batch)
        if site.layer == 0:
            sums[site.kind].count(weight)
        sums[site.kind].update(site.layer, activation, weight, base_activation)

    stream(model, encoded, places, add, base=base, progress=progress, **options)
    return Discovery(
        by_side={(kind, name): stats.by_side(name) for kind, stats in sums.items() for name in stats.names},
        pairs=tuple(pair_hash(pair) for pair in encoded.pairs),
        tokens=int(torch.stack([stats.tokens for stats in sums.values()])[0].sum()),
    )
