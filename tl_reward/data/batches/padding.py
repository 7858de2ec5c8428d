"""Padded batches: a transcript a row, of about the same length, with its mask and the position at which its reward is read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.data.encoding import Row
from tl_reward.sites import Where


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded rows of about the same length, ready for the model.

    `readout` is the position at which the reward is read: the last real token. `row` holds the index of each row in
    `EncodedPairs.rows`. The response mask is true on the tokens of the last assistant turn. `lengths` counts the real tokens of each row.
    """

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Bool[Tensor, "batch pos"]
    response_mask: Bool[Tensor, "batch pos"]
    readout: Int[Tensor, " batch"]
    row: Int[Tensor, " batch"]
    lengths: tuple[int, ...]

    def to(self, device: torch.device | str) -> "TokenBatch":
        moved = (batch_tensor_on(getattr(self, name), device) for name in self.__dataclass_fields__ if name != "lengths")
        return TokenBatch(*moved, lengths=self.lengths)

    @cached_property
    def spans(self) -> tuple[tuple[tuple[int, int]], ...]:
        """Where the tokens of each row begin and end, in the order of `flat`."""
        return tuple(((start, end),) for start, end in pairwise(accumulate(self.lengths, initial=0)))

    @cached_property
    @torch.inference_mode(False)  # made once, perhaps in inference mode, and then part of a backward pass
    def _row_of(self) -> Int[Tensor, " token"]:
        """The row of this batch that each real token is in."""
        return batch_tensor_on(torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths)), self.tokens.device)

    @cached_property
    @torch.inference_mode(False)
    def _real(self) -> Int[Tensor, " token"]:
        """The place of each real token among all of the batch. Known without asking the device, which a mask as an index does."""
        width = self.tokens.shape[1]
        places = [torch.arange(length) + i * width for i, length in enumerate(self.lengths)]
        return batch_tensor_on(torch.cat(places), self.tokens.device)

    @property
    def position(self) -> Int[Tensor, "1 pos"]:
        """Each token's place in its transcript."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None]

    def at(self, where: Where) -> Bool[Tensor, "batch pos"]:
        """True at the real tokens that are meant."""
        if where == "readout":
            return torch.arange(self.tokens.shape[1], device=self.tokens.device) == self.readout[:, None]
        return self.response_mask if where == "response" else self.attention_mask

    def flat(self, activation: Float[Tensor, "batch pos ..."]) -> Float[Tensor, "token ..."]:
        """An activation of this batch at its real tokens."""
        return activation.flatten(0, 1).index_select(0, self._real)

    def places(self, i: int) -> Int[Tensor, " token"]:
        """Where the tokens of transcript `i` are, in the order of `flat`."""
        ((start, end),) = self.spans[i]
        return torch.arange(start, end, device=self.tokens.device)

    def occurrences(self, weight: Float[Tensor, "side batch"]) -> Float[Tensor, "side token"]:
        """For each real token, the weight of the transcript that it is part of."""
        return weight.index_select(1, self._row_of)


def batch_tensor_on(tensor: Tensor, device: torch.device | str) -> Tensor:
    """The tensor on a device; from pinned memory to a GPU, so that the copy does not hold up what runs there."""
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def places_in(spans: Sequence[tuple[int, int]]) -> Int[Tensor, " token"]:
    """Where the tokens of one transcript of a batch are (`batch.spans[i]`), in the order of `flat`, on the CPU: indices are made there and
    moved once a batch, so that nothing waits for a device."""
    return torch.cat([torch.arange(start, end) for start, end in spans])


def batches(rows: Sequence[Row], *, max_tokens: int, pad_id: int = 0) -> Iterator[TokenBatch]:
    """Padded batches of at most `max_tokens` tokens, padding included; a longer row is a batch of its own.

    Rows come longest first, so that a batch that does not fit in memory fails at once and padding stays small.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
    start = 0
    while start < len(order):
        end = start + max(1, max_tokens // len(rows[order[start]].ids))
        yield _batch(rows, order[start:end], pad_id)
        start = end


def _batch(rows: Sequence[Row], chosen: list[int], pad_id: int) -> TokenBatch:
    lengths = torch.tensor([len(rows[i].ids) for i in chosen])
    starts = torch.tensor([rows[i].response_start for i in chosen])
    positions = torch.arange(int(lengths.max()))
    tokens = torch.full((len(chosen), len(positions)), pad_id)
    for at, i in enumerate(chosen):
        tokens[at, : len(rows[i].ids)] = torch.tensor(rows[i].ids)
    real = positions < lengths[:, None]
    return TokenBatch(
        tokens=tokens,
        attention_mask=real,
        response_mask=real & (positions >= starts[:, None]),
        readout=lengths - 1,
        row=torch.tensor(chosen),
        lengths=tuple(lengths.tolist()),
    )
