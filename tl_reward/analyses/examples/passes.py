"""Two passes over pairs for the examples of each neuron, in chunks, with what is needed to go on after a cut: see `collect`."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on, places_in
from tl_reward.data.encoding import EncodedPairs
from tl_reward.devices import wide, widest
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.activations import meant_places, rewards_at, side_weights
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
        for layer, index in self.neurons.by_layer(self.device).items():
            result[layer] = (index, torch.arange(start, start + len(index), device=self.device))
            start += len(index)
        return result

    @property
    def device(self) -> Any:
        return self.model.cfg.device


class Part(NamedTuple):
    """A chunk of pairs, and the rows of all pairs that its rows are."""

    encoded: EncodedPairs
    row: tuple[int, ...]


def part_of(encoded: EncodedPairs, start: int) -> Part:
    here = slice(start, start + CHUNK)
    chosen, rejected = encoded.chosen[here], encoded.rejected[here]
    used = sorted({*chosen, *rejected})
    place = {row: i for i, row in enumerate(used)}
    sides = [tuple(place[row] for row in side) for side in (chosen, rejected)]
    part = EncodedPairs(encoded.pairs[here], tuple(encoded.rows[row] for row in used), chosen=sides[0], rejected=sides[1])
    return Part(part, tuple(used))


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
                "reward": empty(rows, dtype=widest(task.device)),
                "seen": empty(rows, dtype=torch.bool),
            }
        self.seen = set(self.state["seen"].nonzero()[:, 0].tolist())
        # Of the batch: the rows that no chunk had before, where their last tokens are, and where those that are meant are.
        self.row = self.at_end = torch.empty(0)
        self.places: list[Int[Tensor, "row place"]] = []
        self.new: set[int] = set()

    def begin(self, batch: Batch) -> None:
        of_part = batch.row.tolist()
        rows = [self.part.row[i] for i in of_part]
        places = meant_places(self.part.encoded, batch, of_part, self.task.where)
        # A transcript may be part of pairs in several chunks.
        new = [(row, at) for row, at in zip(rows, places, strict=True) if row not in self.seen]
        groups = _groups(new, batch)
        row, at_end = ([row for group in groups for row, _ in group], [int(at[-1]) for group in groups for _, at in group])
        self.row, self.at_end = (batch_tensor_on(torch.tensor(each, dtype=torch.long), self.task.device) for each in (row, at_end))
        self.places = [batch_tensor_on(_as_one([at for _, at in group]), self.task.device) for group in groups]
        self.new = {row for row, _ in new}

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        state, layer = self.state, site.layer
        if not self.places:
            return
        if site.kind == "resid_post":
            state["reward"][self.row] = rewards_at(self.task.model, activation.index_select(0, self.at_end))
            return
        ranges = [activation[place].aminmax(dim=1) for place in self.places]
        low, high = (torch.cat([getattr(each, end) for each in ranges]).float() for end in ("min", "max"))
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
        self.seen |= self.new

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
                "sum": empty(shown, dtype=widest(task.device)),
                "product": empty(shown, shown, dtype=widest(task.device)),
                "activation": empty(self.chosen.size),
            }
        self.examples: dict[int, list[tuple[int, int]]] = {}  # of each row that is one: which shown neuron it is shown for, and where to
        for shown, (rows, starts) in enumerate(zip(self.chosen.row.tolist(), self.chosen.start.tolist(), strict=True)):
            for row, start in zip(rows, starts, strict=True):
                self.examples.setdefault(row, []).append((shown, start))
        self.batch: Batch | None = None
        self.values = torch.empty(0)  # of the batch, [token, shown]

    def begin(self, batch: Batch) -> None:
        tokens = max(end for spans in batch.spans for _, end in spans)
        self.batch, self.values = batch, torch.empty(tokens, len(self.task.neurons), device=batch.tokens.device)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        neuron, column = self.columns[site.layer]
        self.values[:, column] = activation[:, neuron].float()

    def end(self) -> None:
        assert self.batch is not None
        rows = self.batch.row.tolist()
        self._count(self.batch, rows)
        found: list[tuple[Tensor, Tensor, Tensor]] = []  # places in the saved activations, tokens and shown neurons here
        for row, spans in zip(rows, self.batch.spans, strict=True):
            for shown, start in self.examples.get(self.part.row[row], ()):
                place = places_in(spans)
                found.append((start + torch.arange(len(place)), place, torch.full_like(place, shown)))
        if found:
            to, token, shown = (batch_tensor_on(torch.cat(each), self.values.device) for each in zip(*found, strict=True))
            self.state["activation"][to] = self.values[token, shown]

    def merge(self) -> None:
        parallel.require_one("collect_examples")

    def _count(self, batch: Batch, rows: list[int]) -> None:
        """What a transcript counts in a chunk is how often it occurs in that chunk's pairs, so that chunks add up."""
        encoded = self.part.encoded
        meant = torch.cat(meant_places(encoded, batch, rows, self.task.where)).unique()
        at = batch_tensor_on(meant, self.values.device)
        values, weight = self.values.index_select(0, at), wide(side_weights(encoded, batch).index_select(2, at))
        centred = wide(values) - wide(self.state["low"] + self.state["high"]) / 2  # so that float error stays small
        weighted = centred * weight.sum((0, 1))[:, None]
        self.state["sum"] += weighted.sum(0)
        self.state["product"] += weighted.T @ centred
        bins = torch.searchsorted(self.edge, values.T.contiguous(), right=True).sub_(1).clamp_(0, BINS - 1)
        for name, sides in zip(encoded.objectives, weight.long(), strict=True):
            for side, of_token in enumerate(sides):
                split = 2 * self.task.encoded.objectives.index(name) + side
                counted = torch.zeros(len(bins), BINS, dtype=torch.int64, device=bins.device)
                self.state["count"][:, split] += counted.scatter_add_(1, bins, of_token.expand_as(bins))


def _groups(new: list[tuple[int, Tensor]], batch: Batch) -> list[list[tuple[int, Tensor]]]:
    """Transcripts, of which each has places in a batch, by how many are read at once: on a CPU one after the other; elsewhere as many as
    take no more room than the batch itself, each as long as the longest of them."""
    if batch.row.device.type == "cpu":
        return [[each] for each in new]
    groups: list[list[tuple[int, Tensor]]] = []
    for each in sorted(new, key=lambda each: -len(each[1])):
        if groups and (len(groups[-1]) + 1) * len(groups[-1][0][1]) <= batch.tokens.numel():
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _as_one(places: Sequence[Tensor]) -> Int[Tensor, "row place"]:
    """Places as rows of one length: a short one has its last place again, which changes no minimum and no maximum."""
    longest = max(len(each) for each in places)
    return torch.stack([each[torch.arange(longest).clamp(max=len(each) - 1)] for each in places])


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
    layers, neurons = torch.tensor(task.neurons.coords, dtype=torch.long).view(-1, 2).to(task.device).unbind(1)
    top = task.state["top"][:, layers, neurons].T.long()
    rank = torch.tensor([round((1 - share) * (rows - 1)) for share in QUANTILES]).to(task.device)
    # Some neurons at a time: sorting takes a few times the memory of what is sorted.
    at = [part.sort(dim=0, descending=True, stable=True).indices[rank].T for part in size.split(64, dim=1)]
    order = torch.tensor(sorted(range(rows), key=lambda i: task.encoded.rows[i].ids))  # so that that of the pairs is no matter
    generator = torch.Generator().manual_seed(task.seed)
    first = torch.randint(rows, (len(top),), generator=generator)
    other = (first + 1 + torch.randint(rows - 1, (len(top),), generator=generator)) % rows
    drawn = order[torch.stack([first, other], 1)].to(top)
    row = torch.cat([torch.where(top == NONE, -1, top), torch.cat(at), drawn], dim=1)
    length = torch.tensor([*(len(each.ids) for each in task.encoded.rows), 0]).to(task.device)[row]  # -1 is the last
    end = length.flatten().cumsum(0).view(row.shape)
    return Chosen(row, end - length, int(length.sum()))
