"""Packed batches: transcripts side by side in one row, without padding, where a shared prefix is there once.

Rows in the order of their tokens stand next to those they share most with. Each row then adds only the tokens that the row before it
does not have, and continues from the prefix: its tokens attend to the prefix where that stands in the packed row, and to themselves.
Every token of a causal model depends on the tokens before it alone, so the numbers are those of the transcripts one by one.

A shared token is the same to all that share it: each row has its last token, where its reward is read, to itself, and none is part of one
row's response and of another's prompt. So an edit may act on some tokens of a transcript alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.data.batches.padding import TokenBatch, batch_tensor_on
from tl_reward.data.encoding import Row
from tl_reward.sites import Where


class Span(NamedTuple):
    """Neighbouring places in the packed row; `end` is not part of it."""

    start: int
    end: int


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Transcripts in one packed row.

    `position` is each token's place in its transcript, and `response` is true in its last assistant turn. `row` holds the index of each
    transcript in `EncodedPairs.rows`, and `spans` where its tokens are, in their order: the last span is what it adds, those before are
    its prefix. `readout` is where its last token is.
    """

    tokens: Int[Tensor, "1 token"]
    position: Int[Tensor, " token"]
    response: Bool[Tensor, " token"]
    row: Int[Tensor, " row"]
    readout: Int[Tensor, " row"]
    spans: tuple[tuple[Span, ...], ...]
    _masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict, repr=False)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest transcript."""
        return max(_length(spans) for spans in self.spans)

    def to(self, device: torch.device | str) -> "PackedBatch":
        return PackedBatch(
            tokens=batch_tensor_on(self.tokens, device),
            position=batch_tensor_on(self.position, device),
            response=batch_tensor_on(self.response, device),
            row=batch_tensor_on(self.row, device),
            readout=batch_tensor_on(self.readout, device),
            spans=self.spans,
        )

    def at(self, where: Where) -> Bool[Tensor, "1 token"]:
        """True at the tokens that are meant."""
        if where == "response":
            return self.response[None]
        mask = torch.full_like(self.response, where == "all")
        if where == "readout":
            mask[self.readout] = True
        return mask[None]

    def flat(self, activation: Float[Tensor, "1 token ..."]) -> Float[Tensor, "token ..."]:
        """An activation of this batch, token by token."""
        return activation[0]

    def places(self, i: int) -> Int[Tensor, " token"]:
        """Where the tokens of transcript `i` are, in the order of `flat`."""
        return torch.cat([torch.arange(start, end, device=self.tokens.device) for start, end in self.spans[i]])

    def occurrences(self, weight: Float[Tensor, "side row"]) -> Float[Tensor, "side token"]:
        """For each token, the sum of the weights of the transcripts that it is part of."""
        result = torch.zeros(len(weight), self.tokens.shape[1], device=weight.device)
        for i, spans in enumerate(self.spans):
            for start, end in spans:
                result[:, start:end] += weight[:, i, None]
        return result

    def allowed(self, i: int, window: int | None) -> Bool[Tensor, "query key"] | None:
        """Which tokens of transcript `i` (key) each token that it adds (query) attends to: itself and those before it, no further back
        than `window`. None where that is every earlier one, and nothing is shared."""
        if (i, window) not in self._masks:
            length = _length(self.spans[i])
            key = torch.arange(length, device=self.tokens.device)
            new = self.spans[i][-1].end - self.spans[i][-1].start
            distance = key[length - new :, None] - key
            mask = distance >= 0
            if window is not None and window < length:
                mask &= distance < window
            elif new == length:
                mask = None
            self._masks[i, window] = mask
        return self._masks[i, window]


def pack(rows: Sequence[Row], *, max_tokens: int, groups: Sequence[int] | None = None) -> Iterator[PackedBatch]:
    """Packs rows into batches of at most `max_tokens` tokens, counting a shared prefix once; a longer row is a batch of its own.

    Args:
        groups: the group of each row. Rows of different groups share no token, and a group is in one batch where it fits.
    """
    batch: list[int] = []
    shared: list[int] = []
    size = 0
    for block in _blocks(rows, groups):
        common = [0, *(shared_prefix(rows[a], rows[b]) for a, b in pairwise(block))]
        if size + sum(len(rows[i].ids) for i in block) - sum(common) > max_tokens and groups is not None and batch:
            yield _packed(rows, batch, shared)
            batch, shared, size = [], [], 0
        for i, prefix in zip(block, common, strict=True):
            if batch and size + len(rows[i].ids) - prefix > max_tokens:
                yield _packed(rows, batch, shared)
                batch, shared, size, prefix = [], [], 0, 0
            batch.append(i)
            shared.append(prefix)
            size += len(rows[i].ids) - prefix
    if batch:
        yield _packed(rows, batch, shared)


def group_sizes(rows: Sequence[Row], groups: Sequence[int]) -> list[int]:
    """The tokens of each group, a shared prefix counted once."""
    return [sum(batch.tokens.shape[1] for batch in pack([rows[i] for i in block], max_tokens=2**62)) for block in _blocks(rows, groups)]


def _blocks(rows: Sequence[Row], groups: Sequence[int] | None) -> list[list[int]]:
    """The rows of each group, in the order of their tokens; all rows where there are no groups."""
    blocks: dict[int, list[int]] = {}
    for i in sorted(range(len(rows)), key=lambda i: rows[i].ids):
        blocks.setdefault(groups[i] if groups is not None else 0, []).append(i)
    return list(blocks.values())


def _length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def shared_prefix(one: Row, other: Row) -> int:
    """How many tokens two rows may share: those that they begin with, short of the last one of either, and of a response of one alone."""
    most = min(len(one.ids), len(other.ids)) - 1
    if one.response_start != other.response_start:
        most = min(most, one.response_start, other.response_start)
    return next((i for i, (a, b) in enumerate(zip(one.ids[:most], other.ids[:most], strict=True)) if a != b), most)


def _packed(rows: Sequence[Row], chosen: list[int], shared: list[int]) -> PackedBatch:
    tokens: list[int] = []
    position: list[int] = []
    response: list[bool] = []
    spans: list[tuple[Span, ...]] = []
    for i, common in zip(chosen, shared, strict=True):
        ids = rows[i].ids
        own = Span(len(tokens), len(tokens) + len(ids) - common)
        spans.append((*_first(spans[-1] if spans else (), common), own))
        tokens += ids[common:]
        position += range(common, len(ids))
        response += [at >= rows[i].response_start for at in range(common, len(ids))]
    return PackedBatch(
        tokens=torch.tensor([tokens]),
        position=torch.tensor(position),
        response=torch.tensor(response),
        row=torch.tensor(chosen),
        readout=torch.tensor([path[-1].end - 1 for path in spans]),
        spans=tuple(spans),
    )


def _first(spans: Sequence[Span], count: int) -> list[Span]:
    """The first `count` places of some spans; neighbouring spans become one."""
    result: list[Span] = []
    for start, end in spans:
        end = min(end, start + count)
        count -= end - start
        if end == start:
            break
        if result and result[-1].end == start:
            result[-1] = Span(result[-1].start, end)
        else:
            result.append(Span(start, end))
    return result


Batch = TokenBatch | PackedBatch
