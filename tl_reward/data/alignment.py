"""Which tokens of a pair's two transcripts stand for each other, where these are of unequal length."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from tl_reward.data.batches.packing import PackedBatch, shared_prefix
from tl_reward.data.batches.padding import TokenBatch, batch_tensor_on, places_in
from tl_reward.data.encoding import EncodedPairs, pair_of_row, rows_of_pair
from tl_reward.errors import InputError


class Alignment(NamedTuple):
    """Which tokens of a pair's transcripts stand for each other: the prefix that they share, counted from the start, and the tokens after
    it, counted back from the read-out token. What the longer one has between them stands alone.

    Attributes:
        shared: tokens of the prefix, the same in both.
        aligned: tokens after it that have a counterpart, the read-out token among them.
        chosen_alone, rejected_alone: tokens without one.
    """

    shared: int
    aligned: int
    chosen_alone: int
    rejected_alone: int


def align(encoded: EncodedPairs) -> list[Alignment]:
    """The alignment of each pair. Raises InputError where a pair's transcripts share no prefix."""
    result = []
    for pair, a, b in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True):
        shared = shared_prefix(encoded.rows[a], encoded.rows[b])
        if shared == 0:
            raise InputError(f"pair {pair.id}: chosen and rejected share no prefix; aligning a pair needs one prompt, got two")
        after = [len(encoded.rows[row].ids) - shared for row in (a, b)]
        result.append(Alignment(shared, min(after), after[0] - min(after), after[1] - min(after)))
    return result


def partners(batch: PackedBatch | TokenBatch) -> Int[Tensor, " token"]:
    """For each token, the place of the token that stands for it in the other transcript of its pair, as `align` has it; its own
    place where there is none, and in the shared prefix. The pairs are `apart`."""
    at = {row: i for i, row in enumerate(batch.row.tolist())}
    partner = torch.arange(batch.tokens.shape[1])
    for chosen, rejected in map(rows_of_pair, sorted(set(map(pair_of_row, at)))):
        if not isinstance(batch, PackedBatch) or not {chosen, rejected} <= set(at):
            raise InputError("patching within a pair needs both of its transcripts in one packed batch; take off hooks of your own")
        a, b = (places_in(batch.spans[at[row]]) for row in (chosen, rejected))
        same = int((a[: len(b)] == b[: len(a)]).cumprod(0).sum())
        count = min(len(a), len(b)) - same
        partner[a[-count:]], partner[b[-count:]] = b[-count:], a[-count:]
    return batch_tensor_on(partner, batch.tokens.device)
