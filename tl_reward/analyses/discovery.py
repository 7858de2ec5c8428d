"""Which neurons are loud on preference pairs, or tell chosen from rejected: the study's rankings and others, from one pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack, cast

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.data.batches.packing import Batch
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import pair_hash
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError, summary_of
from tl_reward.measures.contrast import Contrast, ContrastSums
from tl_reward.measures.frames.columns import DataFrame, frame, joined, places
from tl_reward.measures.names import CONTRASTS, ContrastName, RankingName, StatisticName, check_ranking
from tl_reward.measures.neuron_statistics import SIDES, NeuronStatistics
from tl_reward.measures.selectivity import Selectivity, selectivity
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import averages_over, meant_places, side_weights, stream
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked_without_rewards
from tl_reward.sites import UNIT_SITES, Site, UnitShape, UnitSite, Where, check_unit_site, unit_shape

_UNITS = {"probability": "share of tokens", "change_ms": "squared activation"}  # of statistics that are no activations


@dataclass(frozen=True, eq=False)
class Discovery:
    """Per-neuron statistics of one reward model; at the site "attn_z", of its attention heads.

    Attributes:
        by_side: by site and statistic, over chosen (0) and rejected (1) transcripts.
        pairs: the hash of each pair that it comes from, so that a later test can tell whether it uses pairs that picked the neurons.
        firing: by site and objective, the share of tokens of that objective's pairs at which a neuron is positive.
        contrast: by site, chosen against rejected; empty where a side has less than two transcripts.
        where: what a transcript's number is in a contrast: "readout", the activation at the last token; "response", the mean over
            the last assistant turn; "all", the mean over all tokens.
        reading: how many pairs were given, and how many left out, by reason; None in a run that does not say.
    """

    by_side: Mapping[tuple[UnitSite, StatisticName], Float[Tensor, "side layer _"]]
    pairs: tuple[str, ...]
    tokens: int
    firing: Mapping[tuple[UnitSite, str], Float[Tensor, "layer _"]] = field(default_factory=dict)
    contrast: Mapping[UnitSite, Contrast] = field(default_factory=dict)
    where: Where = "response"
    reading: Reading | None = None

    def ranking(self, score: RankingName, site: UnitSite = "mlp_post", *, seed: int = 0) -> Float[Tensor, "layer neuron"]:
        """Higher ranks first. Statistics: the mean of both sides. Contrasts: their size. "entropy": `Selectivity.ranking`.

        Args:
            seed: of "random", a number in [0, 1) for each neuron.

        Raises:
            InputError: the score was not computed, or cannot be; the message names what is missing.
        """
        check_ranking(score)
        check_unit_site(site)
        if score in CONTRASTS and site in self.contrast:
            return self.contrast[site].ranking(cast(ContrastName, score))
        if score == "entropy":
            return self.selectivity(site).ranking()
        if score == "random":
            shape = next((value.shape[1:] for (kind, _), value in self.by_side.items() if kind == site), None)
            if shape is not None:
                return torch.rand(shape, generator=torch.Generator().manual_seed(seed))
        if (site, score) not in self.by_side:
            missing = {"change": "a base model to compare with", "contrast": "two transcripts on each side"}
            lacks = missing.get("contrast" if score in CONTRASTS else score.removesuffix("_ms"))
            have = ", ".join(name for kind, name in self.by_side if kind == site) or "none"
            raise InputError(f"no score {score!r} at {site!r}{f': it needs {lacks}' if lacks else ''}; statistics there: {have}")
        return self.by_side[site, cast(StatisticName, score)].mean(0)

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a neuron (at "attn_z" a head) of each site, with every statistic by side, the share of tokens at which it is positive by
        objective, and contrasts; nan where a site has none of it."""
        sites: dict[UnitSite, None] = {site: None for site, _ in self.by_side}
        return joined([self._site_frame(site) for site in sites])

    def _site_frame(self, site: UnitSite) -> DataFrame:
        by_side = {name: value for (kind, name), value in self.by_side.items() if kind == site}
        found = {
            f"{name}, {side} ({_UNITS.get(name, 'activation')})": values
            for name, value in by_side.items()
            for side, values in zip(SIDES, value, strict=True)
        }
        found |= {f"firing, {name} (share of tokens)": value for (kind, name), value in self.firing.items() if kind == site}
        found |= self.contrast[site].columns() if site in self.contrast else {}
        return frame({"site": site} | places(next(iter(found.values())).shape) | found)

    def selectivity(self, site: UnitSite = "mlp_post") -> Selectivity:
        """Which neurons fire for one objective alone. Raises InputError where the pairs do not name two objectives."""
        return selectivity({objective: value for (kind, objective), value in self.firing.items() if kind == site})


@checked_without_rewards
def discover(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    base: HookedRewardModel | None = None,
    sites: Sequence[UnitSite] = UNIT_SITES,
    where: Where = "response",
    sums_dtype: torch.dtype = torch.float64,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Discovery:
    """Every statistic of every MLP neuron and attention head at the given sites, from one pass over the pairs.

    Args:
        base: the language model that the reward model was trained from; with it, `change` is computed too.
        sites: "mlp_post" and "mlp_gate" for neurons, "attn_z" for heads.
        where: what of a transcript enters the contrasts: "readout", "response" or "all" tokens.
        sums_dtype: of the running sums over batches; those of arXiv 2606.13209 are bfloat16, which drift.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: no site; the model itself as its base; sums of a type that is not floating point; as `stream`.
    """
    if not sites:
        raise InputError(f"sites must not be empty; they are of {', '.join(UNIT_SITES)}")
    if base is model:
        raise InputError("base must be the language model that this one was trained from, got the model itself")
    if not sums_dtype.is_floating_point:
        raise InputError(f"sums_dtype must be a floating-point type, got {sums_dtype}")
    sites = tuple(dict.fromkeys(sites))
    encoded = encode_for(model, pairs, **options)
    places = [Site(layer, kind) for kind in sites for layer in range(model.cfg.n_layers)]
    sums = _Sums(encoded, {kind: unit_shape(model.cfg, kind) for kind in sites}, where, sums_dtype, model.cfg.device)
    stream(model, encoded, places, sums, base=base, progress=progress, **options)
    statistics = sums.statistics
    return Discovery(
        by_side={(kind, name): each.by_side(name) for kind, each in statistics.items() for name in each.names},
        pairs=tuple(pair_hash(pair) for pair in encoded.pairs),
        tokens=int(next(iter(statistics.values())).tokens.sum()) if statistics else 0,
        firing={(kind, name): value for kind, each in statistics.items() if kind != "attn_z" for name, value in each.firing().items()},
        contrast={kind: contrast.result() for kind, contrast in sums.contrasts.items()},
        where=where,
        reading=encoded.reading,
    )


class _Sums:
    """Statistics and contrasts by site; no contrasts where a side has less than two transcripts."""

    def __init__(self, encoded: EncodedPairs, shapes: Mapping[UnitSite, UnitShape], where: Where, dtype: torch.dtype, device: Any) -> None:
        self._encoded = encoded
        self._where: Where = where
        self.statistics: dict[UnitSite, NeuronStatistics] = {
            kind: NeuronStatistics(*shape, encoded.objectives, dtype, device) for kind, shape in shapes.items()
        }
        sides = encoded.sides.sum(0) > 0
        self.contrasts: dict[UnitSite, ContrastSums] = {}
        if int(sides.sum(1).min()) > 1:
            self.contrasts = {kind: ContrastSums(*shape, sides, device) for kind, shape in shapes.items()}
        self._weight = self._averages = torch.empty(0)  # of the batch

    def begin(self, batch: Batch) -> None:
        rows = batch.row.tolist()
        self._weight = side_weights(self._encoded, batch)
        self._averages = averages_over(meant_places(self._encoded, batch, rows, self._where), batch)
        for statistics in self.statistics.values():
            statistics.count(self._weight)
        for contrast in self.contrasts.values():
            contrast.begin(rows)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        kind = cast(UnitSite, site.kind)
        values = self.statistics[kind].update(site.layer, activation, self._weight, base, self._averages)
        if self.contrasts:
            self.contrasts[kind].update(site.layer, values)

    def end(self) -> None:
        pass

    def merge(self) -> None:
        for each in (*self.statistics.values(), *self.contrasts.values()):
            each.merge()
