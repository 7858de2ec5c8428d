"""What a model holds at chosen sites when it reads pairs, as tensors: for probes, clusterings, and whatever else one writes oneself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Unpack, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.reading import Reading
from tl_reward.devices import free_bytes, gib, widest
from tl_reward.errors import InputError, OutOfMemory, shown, summary_of
from tl_reward.measures.frames.columns import DataFrame
from tl_reward.measures.scores import Scores
from tl_reward.model.heads.chosen import output_name
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import averages_over, final_rewards, meant_places, stream
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site, SiteKind, Where, check_where


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Activations of pairs, one tensor a site; `found[site]` is that of a site.

    Attributes:
        values: by site [pair, side, …], float32, on the CPU; side 0 is chosen, 1 rejected. The rest is [d_model], [neuron], or at "attn_z"
            [head, d_head].
        scores: the rewards from the same pass, read from the last residual stream: those of `score` to float error.
        where: the tokens of a transcript that a number is of: "readout", the last one; "response", the mean over the last assistant turn;
            "all", the mean over all.
    """

    values: Mapping[Site, Float[Tensor, "pair side ..."]]
    scores: Scores
    where: Where

    def __getitem__(self, site: Site) -> Float[Tensor, "pair side ..."]:
        if site not in self.values:
            have = ", ".join(map(str, [*self.values][:4]))
            raise InputError(f"no activations at {site if isinstance(site, Site) else shown(site)}; there are those at {have}")
        return self.values[site]

    __repr__ = summary_of

    @property
    def ids(self) -> tuple[str, ...]:
        """The pairs, in the order of the tensors' first axis."""
        return self.scores.ids

    @property
    def reading(self) -> Reading | None:
        """How many pairs were given, and how many left out, by reason."""
        return self.scores.reading

    def to_frame(self) -> DataFrame:
        """The rows of the tensors: a row a pair, as `Scores.to_frame` has them."""
        return self.scores.to_frame()


@checked
def activations(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: SiteKind | Site | Sequence[SiteKind | Site],
    *,
    where: Where = "readout",
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> Activations:
    """The activations at some sites of both transcripts of every pair, from one pass; a prefix that transcripts share is run once.

    Args:
        sites: kinds such as "resid_post" or "mlp_post", which are of all layers, or `Site(layer, kind)`; one, or several.
        where: the tokens; over several of them, the mean is taken.
        options: how the model is run (`running.options.RunOptions`). Edits past the last layer are refused, as in `reward_lens`.

    Raises:
        InputError: no site, or one that the model does not have; as `stream`.
        OutOfMemory: the tensors would take more than half of the free memory. Nothing has run then; the message says what would fit.
    """
    check_where(where)
    places = _places(model, sites)
    encoded = encode_for(model, pairs, **options)
    shapes = {site: _shape(model, site.kind) for site in places}
    _check_room([4 * prod(shape) for shape in shapes.values()], 2 * len(encoded.pairs))
    kept = _Kept(model, encoded, shapes, where)
    stream(model, encoded, kept.sites, kept, whole=True, progress=progress, **options)
    rewards = kept.rewards.cpu()
    for i in encoded.equal:  # also where each has a row of its own
        rewards[encoded.rejected[i]] = rewards[encoded.chosen[i]]
    chosen, rejected = (rewards[list(rows)].tolist() for rows in (encoded.chosen, encoded.rejected))
    values = {site: value.unflatten(0, (-1, 2)) for site, value in kept.values.items()}
    return Activations(values, Scores.of(encoded.pairs, chosen, rejected, encoded.reading, output_name(model)), where)


def _places(model: HookedRewardModel, sites: Any) -> list[Site]:
    """Each site once, in the order in which they are asked for."""
    found: dict[Site, None] = {}
    given: Sequence[Any] = [sites] if isinstance(sites, (str, Site)) else sites
    for each in given:
        found |= dict.fromkeys([each] if isinstance(each, Site) else [Site(layer, each) for layer in range(model.cfg.n_layers)])
    if not found:
        raise InputError(f"sites must not be empty; they are of {', '.join(get_args(SiteKind))}")
    for site in found:
        if site.layer >= model.cfg.n_layers:
            raise InputError(f"layer must be in [0, {model.cfg.n_layers}), got {site.layer}")
        if site.hook_name not in model.hook_dict:
            raise InputError(f"{model.cfg.model_name} has no {site.kind}: its layers have no hook point {site.hook_name}")
    return [*found]


def _shape(model: HookedRewardModel, kind: SiteKind) -> tuple[int, ...]:
    """Of one token's activation."""
    cfg = model.cfg
    if kind == "attn_z":
        return cfg.n_heads, cfg.d_head
    return (int(cfg.d_mlp or 0) if kind in ("mlp_pre", "mlp_gate", "mlp_post") else cfg.d_model,)


def _check_room(sizes: Sequence[int], sides: int) -> None:
    """Raises OutOfMemory where that many bytes of each site, for each side of a pair, are more than half of what is free."""
    room, needed = free_bytes("cpu") // 2, sum(sizes) * sides
    if needed <= room:
        return
    fit = [f"{count:,} {what}" for count, what in ((room // (max(sizes) * sides), "sites"), (room // (2 * sum(sizes)), "pairs")) if count]
    would = f"what would fit: {' or '.join(fit)} at a time" if fit else "not even one site of all pairs, or one pair, would fit"
    raise OutOfMemory(
        f"activations at {len(sizes)} sites of {sides // 2:,} pairs take {gib(needed)}, and half of what is free is {gib(room)}; {would}"
    )


class _Kept:
    """The activations by site (`values`, [pair and side, …]) and the reward of each row (`rewards`)."""

    def __init__(self, model: HookedRewardModel, encoded: EncodedPairs, shapes: Mapping[Site, tuple[int, ...]], where: Where) -> None:
        self._model, self._encoded = model, encoded
        self._where: Where = where
        self._row = torch.tensor([encoded.chosen, encoded.rejected]).T.flatten()  # of each pair's sides
        self.values = {site: torch.zeros(len(self._row), *shape) for site, shape in shapes.items()}
        self._last = Site(model.cfg.n_layers - 1, "resid_post")
        self.sites = [*dict.fromkeys((*shapes, self._last))]
        device = model.W_U.device
        self.rewards = torch.zeros(len(encoded.rows), dtype=widest(device), device=device)
        self._batch: Any = None
        self._rows = self._at_end = torch.empty(0)  # of the batch: its transcripts, and where their last tokens are
        self._averages: Tensor | None = None
        self._seen: dict[Site, Tensor] = {}

    def begin(self, batch: Batch) -> None:
        self._batch, self._rows = batch, batch.row.cpu()
        rows = self._rows.tolist()
        ends = [places[-1] for places in meant_places(self._encoded, batch, rows, "readout")]
        self._at_end = batch_tensor_on(torch.stack(ends), batch.row.device)
        if self._where != "readout":
            self._averages = averages_over(meant_places(self._encoded, batch, rows, self._where), batch)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        if site == self._last:
            rows = batch_tensor_on(self._rows, self.rewards.device)
            self.rewards[rows] = final_rewards(self._model, activation, self._batch, self._at_end)
        if site in self.values:
            if self._averages is None:
                self._seen[site] = activation.index_select(0, self._at_end).float()
            else:
                self._seen[site] = (self._averages @ activation.flatten(1).float()).unflatten(1, activation.shape[1:])

    def end(self) -> None:
        place = torch.full((len(self._encoded.rows),), -1)
        place[self._rows] = torch.arange(len(self._rows))
        here = (place[self._row] >= 0).nonzero()[:, 0]
        of_batch = place[self._row[here]]
        for kind in {site.kind: None for site in self._seen}:  # together, so that a device is waited for once a kind
            seen = {site: each for site, each in self._seen.items() if site.kind == kind}
            for site, values in zip(seen, torch.stack([*seen.values()]).cpu(), strict=True):
                self.values[site][here] = values[of_batch]
        self._seen.clear()

    def merge(self) -> None:
        parallel.add_up(self.rewards, *self.values.values())
