"""Two passes over pairs for the examples of each neuron, in chunks, with what is needed to go on after a cut: see `collect`."""

from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.encoding import EncodedPairs
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import rewards_at, side_weights
from tl_reward.sites import Site, Where

TOP, DRAWN, BINS = 5, 2, 40
QUANTILES = (0.75, 0.5, 0.25)
CHUNK = 128  # pairs between two times that the state is saved
NONE = 2**31 - 1  # the row of no transcript, after all that are one


class Task(NamedTuple):
    """What is collected; `state` holds all sums of both passes, on the model's device."""

    model: HookedRewardModel
    encoded: EncodedPairs
    neurons: NeuronSet
    site: Any
    where: Where
    seed: int
    state: dict[str, Tensor]

    def columns(self) -> dict[int, tuple[Tensor, Tensor]]:
        """By layer, the neurons shown, and where they are on the axis `shown`."""
        result, start = {}, 0
        for layer, index in self.neurons.by_layer().items():
            result[layer] = (index.to(self.device), torch.arange(start, start + len(index), device=self.device))
            start += len(index)
        return result

    @property
    def device(self) -> Any:
        return self.model.cfg.device


class Part(NamedTuple):
    """A chunk of pairs, and the rows of all pairs that its rows are."""

    encoded: EncodedPairs
    row: Int[Tensor, " row"]


def part_of(encoded: EncodedPairs, start: int, device: Any) -> Part:
    here = slice(start, start + CHUNK)
    chosen, rejected = encoded.chosen[here], encoded.rejected[here]
    used = sorted({*chosen, *rejected})
    place = {row: i for i, row in enumerate(used)}
    sides = [tuple(place[row] for row in side) for side in (chosen, rejected)]
    part = EncodedPairs(encoded.pairs[here], tuple(encoded.rows[row] for row in used), chosen=sides[0], rejected=sides[1])
    return Part(part, torch.tensor(used, device=device))


class Peaks:
    """The first pass: the top transcripts of all neurons; of shown ones every peak and the range; rewards."""

    part: Part  # the chunk whose batches come next

    def __init__(self, task: Task) -> None:
        self.task, self.state, self.columns = task, task.state, task.columns()
        cfg, rows, shown = task.model.cfg, len(task.encoded.rows), len(task.neurons)
        self.sites = [*(Site(layer, task.site) for layer in range(cfg.n_layers)), Site(cfg.n_layers - 1, "resid_post")]
        if not self.state:
            empty = partial(torch.zeros, device=task.device)
            self.state |= {
                "top": torch.full((TOP, cfg.n_layers, int(cfg.d_mlp or 0)), NONE, dtype=torch.int32, device=task.device),
                "top_peak": empty(TOP, cfg.n_layers, int(cfg.d_mlp or 0)),
                "peak": empty(rows, shown),
                "low": torch.full((shown,), torch.inf, device=task.device),
                "high": torch.full((shown,), -torch.inf, device=task.device),
                "reward": empty(rows, dtype=torch.float64),
                "seen": empty(rows, dtype=torch.bool),
            }
        # Of the batch: the rows that no chunk had before, and where their tokens that are meant are.
        self.row = torch.empty(0)
        self.places: list[Tensor] = []

    def begin(self, batch: Batch) -> None:
        row = self.part.row[batch.row]
        new = ~self.state["seen"][row]  # a transcript may be part of pairs in several chunks
        self.row, at = row[new], _meant(batch, self.task.where)
        self.places = [place[at[place]] for place in (batch.places(i) for i in new.nonzero()[:, 0].tolist())]

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        state, layer = self.state, site.layer
        if not self.places:
            return
        if site.kind == "resid_post":
            at_end = torch.stack([place[-1] for place in self.places])
            state["reward"][self.row] = rewards_at(self.task.model, activation[at_end])
            return
        ranges = [activation[place].aminmax(dim=0) for place in self.places]
        low, high = (torch.stack([getattr(each, end) for each in ranges]).float() for end in ("min", "max"))
        peak = torch.where(high >= -low, high, low)
        if layer in self.columns:
            neuron, column = self.columns[layer]
            state["peak"][self.row[:, None], column] = peak[:, neuron]
            state["low"][column] = state["low"][column].minimum(low[:, neuron].amin(0))
            state["high"][column] = state["high"][column].maximum(high[:, neuron].amax(0))
        rows = torch.cat([state["top"][:, layer], self.row[:, None].int().expand_as(peak)])
        peaks = torch.cat([state["top_peak"][:, layer], peak])
        # One number that orders by |peak|, then by row: magnitudes order as their bits do.
        best = (peaks.abs().view(torch.int32).long() * 2**32 - rows).topk(TOP, dim=0).indices
        state["top"][:, layer], state["top_peak"][:, layer] = rows.gather(0, best), peaks.gather(0, best)

    def end(self) -> None:
        self.state["seen"][self.row] = True

    def merge(self) -> None:
        parallel.require_one("collect_examples")


class Details:
    """The second pass, of shown neurons: histograms, sums for correlations, and every token of the examples."""

    part: Part  # the chunk whose batches come next

    def __init__(self, task: Task) -> None:
        self.task, self.state, self.columns = task, task.state, task.columns()
        self.sites = [Site(layer, task.site) for layer in self.columns]
        self.chosen = _choose(task)
        shown, splits = len(task.neurons), 2 * len(task.encoded.objectives)
        self.edge = _edges(self.state["low"], self.state["high"])
        if "count" not in self.state:
            empty = partial(torch.zeros, device=task.device)
            self.state |= {
                "count": empty(shown, splits, BINS, dtype=torch.int64),
                "sum": empty(shown, dtype=torch.float64),
                "product": empty(shown, shown, dtype=torch.float64),
                "activation": empty(self.chosen.size),
            }
        self.batch: Batch | None = None
        self.values = torch.empty(0)  # of the batch, [token, shown]

    def begin(self, batch: Batch) -> None:
        tokens = int(batch.at("all").sum())
        self.batch, self.values = batch, torch.empty(tokens, len(self.task.neurons), device=batch.tokens.device)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        neuron, column = self.columns[site.layer]
        self.values[:, column] = activation[:, neuron].float()

    def end(self) -> None:
        assert self.batch is not None
        self._count(self.batch)
        for i, row in enumerate(self.part.row[self.batch.row].tolist()):
            shown, kind = (self.chosen.row == row).nonzero(as_tuple=True)
            place = self.batch.places(i)
            token = torch.arange(len(place), device=place.device)
            self.state["activation"][self.chosen.start[shown, kind] + token[:, None]] = self.values[place][:, shown]

    def merge(self) -> None:
        parallel.require_one("collect_examples")

    def _count(self, batch: Batch) -> None:
        """What a transcript counts in a chunk is how often it occurs in that chunk's pairs, so that chunks add up."""
        at = _meant(batch, self.task.where)
        values, weight = self.values[at], side_weights(self.part.encoded, batch)[:, :, at].double()
        centred = values.double() - (self.state["low"] + self.state["high"]).double() / 2  # so that float error stays small
        weighted = centred * weight.sum((0, 1))[:, None]
        self.state["sum"] += weighted.sum(0)
        self.state["product"] += weighted.T @ centred
        bins = torch.searchsorted(self.edge, values.T.contiguous(), right=True).sub_(1).clamp_(0, BINS - 1)
        bins += BINS * torch.arange(len(bins), device=bins.device)[:, None]
        for name, sides in zip(self.part.encoded.objectives, weight, strict=True):
            for side, of_token in enumerate(sides):
                here = bins[:, of_token > 0]
                weights = of_token[of_token > 0].repeat(len(bins))
                counted = torch.bincount(here.flatten(), weights=weights, minlength=BINS * len(bins))
                split = 2 * self.task.encoded.objectives.index(name) + side
                self.state["count"][:, split] += counted.view(-1, BINS).long()


def _meant(batch: Batch, where: Where) -> Tensor:
    """True at the tokens that are meant, in the order of `batch.flat`."""
    return batch.flat(batch.at(where).float()).bool()


def _edges(low: Float[Tensor, " shown"], high: Float[Tensor, " shown"]) -> Float[Tensor, "shown edge"]:
    """Of bins of one width from the lowest to the highest value. Around a single value they are as wide as it is, or 1."""
    same = low == high
    half = torch.where(same, low.abs().clamp(min=1) / 2, 0.0)
    low, high = low - half, high + half
    return low[:, None] + (high - low)[:, None] * torch.linspace(0, 1, BINS + 1, device=low.device)


class Chosen(NamedTuple):
    """The row of each example of each shown neuron, -1 for none, and where its tokens' activations begin; `size` of them in all."""

    row: Int[Tensor, "shown example"]
    start: Int[Tensor, "shown example"]
    size: int


def _choose(task: Task) -> Chosen:
    size, rows = task.state["peak"].abs(), len(task.encoded.rows)
    layers, neurons = torch.tensor(task.neurons.coords, dtype=torch.long, device=task.device).view(-1, 2).unbind(1)
    top = task.state["top"][:, layers, neurons].T.long()
    rank = [round((1 - share) * (rows - 1)) for share in QUANTILES]
    # Some neurons at a time: sorting takes a few times the memory of what is sorted.
    at = [part.sort(dim=0, descending=True, stable=True).indices[rank].T for part in size.split(64, dim=1)]
    order = torch.tensor(sorted(range(rows), key=lambda i: task.encoded.rows[i].ids))  # so that that of the pairs is no matter
    generator = torch.Generator().manual_seed(task.seed)
    first = torch.randint(rows, (len(top),), generator=generator)
    other = (first + 1 + torch.randint(rows - 1, (len(top),), generator=generator)) % rows
    drawn = order[torch.stack([first, other], 1)].to(top)
    row = torch.cat([torch.where(top == NONE, -1, top), torch.cat(at), drawn], dim=1)
    length = torch.tensor([*(len(each.ids) for each in task.encoded.rows), 0], device=task.device)[row]  # -1 is the last
    end = length.flatten().cumsum(0).view(row.shape)
    return Chosen(row, end - length, int(length.sum()))
