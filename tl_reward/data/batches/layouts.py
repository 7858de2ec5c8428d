"""Where the queries and keys of a packed batch are, for attention calls that take all of its transcripts at once, as a GPU wants them.

The indices are made on the CPU from the spans alone, and moved once a batch: nothing here waits for the device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from tl_reward.data.batches.padding import batch_tensor_on

# A call takes at most so many keys for each token of the batch: a prefix that hundreds of transcripts share stands in the packed row once,
# and among the keys once for each of them.
MOST_KEYS = 4


class Span(NamedTuple):
    """Neighbouring places in the packed row; `end` is not part of it."""

    start: int
    end: int


class VarlenCall(NamedTuple):
    """Neighbouring transcripts, nothing filled up.

    Their queries, the tokens that each adds, are at `queries`, one transcript after the other: those of the i-th from `query_ends[i]` to
    `query_ends[i + 1]`. Its keys, all of its tokens in their order, are at `keys[key_ends[i]:key_ends[i + 1]]`. Where the packed row is
    there several times, the ends go on through all copies.
    """

    queries: Span
    keys: Int[Tensor, " key"]
    query_ends: Int[Tensor, " row+1"]  # int32, as the kernels want it
    key_ends: Int[Tensor, " row+1"]
    most_queries: int
    most_keys: int


class PaddedCall(NamedTuple):
    """Transcripts of about the same size, each in a row of its own that is filled up at its end with one of its own tokens.

    `queries` and `keys` are places in the packed row; `allowed` says which keys a query attends to.
    """

    queries: Int[Tensor, "row query"]
    keys: Int[Tensor, "row key"]
    allowed: Bool[Tensor, "row query key"]


class PaddedLayout(NamedTuple):
    """`token` says where each token of the packed row is among the flattened queries of all calls."""

    calls: tuple[PaddedCall, ...]
    token: Int[Tensor, " token"]


@dataclass(frozen=True, eq=False)
class Layouts:
    """Of the transcripts whose tokens are at `spans` (`packing.PackedBatch`)."""

    spans: tuple[tuple[Span, ...], ...]
    device: torch.device
    _varlen: dict[int, tuple[VarlenCall, ...]] = field(default_factory=dict, repr=False)
    _padded: dict[tuple[int | None, bool], PaddedLayout] = field(default_factory=dict, repr=False)

    @cached_property
    def longest(self) -> int:
        """The number of tokens of the longest transcript."""
        return max(self._length)

    @cached_property
    def members(self) -> tuple[Int[Tensor, " key"], Int[Tensor, " key"]]:
        """The place of every token of every transcript, in their order, and the transcript that it is one of."""
        with torch.inference_mode(False):  # what is made in inference mode could not be used with gradients later
            token = torch.cat([torch.arange(start, end) for spans in self.spans for start, end in spans])
            transcript = torch.repeat_interleave(torch.arange(len(self.spans)), torch.tensor(self._length))
            return self._moved(token), self._moved(transcript)

    def varlen(self, copies: int) -> tuple[VarlenCall, ...]:
        """For as many copies of the packed row: one call, or several where prefixes are repeated too often (`MOST_KEYS`)."""
        if copies not in self._varlen:
            cuts, keys = [0], 0
            for i, length in enumerate(self._length):
                if keys + length > self._most_keys:
                    cuts.append(i)
                    keys = 0
                keys += length
            with torch.inference_mode(False):
                calls = (self._varlen_call(start, end, copies) for start, end in zip(cuts, [*cuts[1:], len(self.spans)], strict=True))
                self._varlen[copies] = tuple(calls)
        return self._varlen[copies]

    def padded(self, window: int | None, *, scores: bool = False) -> PaddedLayout:
        """A query attends to the keys of its transcript up to itself, no further back than `window`. One call, or a few.

        Args:
            scores: the kernel holds the scores of all heads, so that a call has no more of them than `tokens * longest` a head.
        """
        window = window if window is not None and window < self.longest else None
        if (window, scores) not in self._padded:
            with torch.inference_mode(False):
                self._padded[window, scores] = self._filled_up(window, scores)
        return self._padded[window, scores]

    @cached_property
    def _added(self) -> list[int]:
        """The number of tokens that each transcript adds to the packed row."""
        return [spans[-1].end - spans[-1].start for spans in self.spans]

    @cached_property
    def _length(self) -> list[int]:
        return [length_of(spans) for spans in self.spans]

    @property
    def _tokens(self) -> int:
        return self.spans[-1][-1].end

    @property
    def _most_keys(self) -> int:
        return max(self.longest, MOST_KEYS * self._tokens)

    def _moved(self, index: Tensor) -> Tensor:
        return batch_tensor_on(index, self.device)

    def _varlen_call(self, start: int, end: int, copies: int) -> VarlenCall:
        """Of the transcripts from `start` to `end`."""
        added, length, first = self._added[start:end], self._length[start:end], sum(self._length[:start])
        query_ends, key_ends = (self._moved(torch.tensor(_ends(counts * copies), dtype=torch.int32)) for counts in (added, length))
        queries = Span(self.spans[start][-1].start, self.spans[end - 1][-1].end)
        return VarlenCall(queries, self.members[0][first : first + sum(length)], query_ends, key_ends, max(added), max(length))

    def _alike(self, most_scores: int) -> list[list[int]]:
        """Transcripts of about the same size together, as many as a padded call has room for."""
        groups: list[list[int]] = []
        longest = 0
        for i in sorted(range(len(self.spans)), key=lambda i: (-self._added[i], -self._length[i])):
            longest = max(longest, self._length[i])
            keys = (len(groups[-1]) + 1) * longest if groups else 0
            if groups and keys <= self._most_keys and keys * self._added[groups[-1][0]] <= most_scores:
                groups[-1].append(i)
            else:
                groups.append([i])
                longest = self._length[i]
        return groups

    def _filled_up(self, window: int | None, scores: bool) -> PaddedLayout:
        groups = self._alike(self._tokens * self.longest * (1 if scores else MOST_KEYS))
        token, before = torch.zeros(self._tokens, dtype=torch.long), 0
        for group in groups:
            most = max(self._added[i] for i in group)
            for i in group:
                start, end = self.spans[i][-1]
                token[start:end] = torch.arange(before, before + end - start)
                before += most
        return PaddedLayout(tuple(self._padded_call(group, window) for group in groups), self._moved(token))

    def _padded_call(self, group: list[int], window: int | None) -> PaddedCall:
        ends = _ends(self._length)
        columns = ([values[i] for i in group] for values in (self._added, self._length, ends, [spans[-1].start for spans in self.spans]))
        added, length, first, start = (self._moved(torch.tensor(values)[:, None]) for values in columns)
        query = torch.arange(max(self._added[i] for i in group), device=self.device)
        key = torch.arange(max(self._length[i] for i in group), device=self.device)
        # Filled up with the transcript's own: from another's, a value that is not finite would come through the mask (0 * NaN is NaN).
        keys = self.members[0][first + key.minimum(length - 1)]
        distance = (length - added + query)[:, :, None] - key
        allowed = (distance >= 0) & (key < length)[:, None]
        if window is not None:
            allowed &= distance < window
        # What fills a row up may attend to nothing, which kernels answer with NaN: let it see the first key. Nobody reads it.
        allowed |= (query >= added)[:, :, None] & (key == 0)
        return PaddedCall(start + query.minimum(added - 1), keys, allowed)


def length_of(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def _ends(counts: Sequence[int]) -> list[int]:
    return list(accumulate(counts, initial=0))
