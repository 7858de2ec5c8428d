"""Pairs as rows of tokens: each different transcript once, cut or left out where it is over-long."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tl_reward.data.pairs import Overlong, PreferencePair, Transcript, check_unique_ids
from tl_reward.data.text import render
from tl_reward.errors import InputError


class Row(NamedTuple):
    """A tokenised transcript; tokens from `response_start` on belong to the last assistant turn."""

    ids: tuple[int, ...]
    response_start: int


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as rows of token ids. Each different transcript is one row, however many pairs it is part of.

    `chosen[i]` and `rejected[i]` index `rows`. `dropped` counts the pairs left out because a side was over-long.
    """

    pairs: tuple[PreferencePair, ...]
    rows: tuple[Row, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    dropped: int

    @cached_property
    def objectives(self) -> tuple[str, ...]:
        """The objectives of the pairs, in the order of their names; "" stands for none."""
        return tuple(sorted({pair.objective or "" for pair in self.pairs}))

    @cached_property
    def sides(self) -> Float[Tensor, "objective side row"]:
        """How many times each row is a chosen (0) and a rejected (1) side in the pairs of each objective."""
        place = torch.tensor([self.objectives.index(pair.objective or "") for pair in self.pairs])
        counts = torch.zeros(len(self.objectives), 2, len(self.rows))
        for side, rows in enumerate((self.chosen, self.rejected)):
            counts[:, side].index_put_((place, torch.tensor(rows)), torch.ones(len(rows)), accumulate=True)
        return counts

    @cached_property
    def prompts(self) -> tuple[int, ...]:
        """The prompt of each row, as a number: rows of one prompt, or of one pair, have the same."""
        first: dict[Transcript, int] = {}
        links = [(row, first.setdefault(pair.chosen[:-1], row)) for pair, row in zip(self.pairs, self.chosen, strict=True)]
        a, b = zip(*links, *zip(self.chosen, self.rejected, strict=True), strict=True)
        graph = coo_array((np.ones(len(a)), (a, b)), shape=(len(self.rows), len(self.rows)))
        return tuple(connected_components(graph, directed=False)[1].tolist())

    def apart(self) -> "EncodedPairs":
        """The same pairs with two rows of their own each, those of `rows_of_pair`, also where pairs have a transcript in common."""
        rows = [self.rows[row] for pair in zip(self.chosen, self.rejected, strict=True) for row in pair]
        chosen, rejected = zip(*map(rows_of_pair, range(len(self.pairs))), strict=True)
        return EncodedPairs(self.pairs, tuple(rows), chosen, rejected, self.dropped)

    @property
    def pair_of_row(self) -> tuple[int, ...]:
        """The pair that each row is part of, where pairs are `apart`."""
        return tuple(map(pair_of_row, range(len(self.rows))))


def rows_of_pair(pair: int) -> tuple[int, int]:
    """The rows of a pair's chosen and rejected transcripts, where pairs are `apart`."""
    return 2 * pair, 2 * pair + 1


def pair_of_row(row: int) -> int:
    """The pair of a row, where pairs are `apart`.

    >>> [pair_of_row(row) for pair in range(3) for row in rows_of_pair(pair)]
    [0, 0, 1, 1, 2, 2]
    """
    return row // 2


def encode(transcripts: Sequence[Transcript], tokenizer: PreTrainedTokenizerBase, *, unread: int | None = None) -> list[Row]:
    """Tokenises transcripts. A chat template writes its own special tokens, so the tokenizer then adds none.

    Args:
        unread: a token that the read-out passes over at the end of a transcript (`HookedRewardModel.unread_token`): left out there, since
            no token before it depends on it. Of a transcript of nothing else, the first stays.
    """
    rendered = [render(transcript, tokenizer) for transcript in transcripts]
    encoded = tokenizer(
        [item.text for item in rendered],
        add_special_tokens=tokenizer.chat_template is None,
        return_offsets_mapping=True,
    )
    rows = []
    for item, ids, offsets in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if unread is not None:
            ids = ids[: max([1, *(i for i, token in enumerate(ids, 1) if token != unread)])]
            offsets = offsets[: len(ids)]
        start = next((i for i, (_, end) in enumerate(offsets) if end > item.response_start), len(ids) - 1)
        rows.append(Row(tuple(ids), start))
    return rows


def encode_pairs(
    pairs: Sequence[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlong: Overlong = "drop",
    unread: int | None = None,
) -> EncodedPairs:
    """Tokenises pairs, and deals with transcripts of more than `max_length` tokens.

    Args:
        overlong: "drop" leaves out a pair with an over-long side (with a best-of-n row, all of its pairs) and counts it; "left" cuts
            tokens off the start of the transcript, so that its end, where the reward is read, stays; "error" stops.
        unread: see `encode`.

    Raises:
        InputError: no pair is left, or `overlong` is "error" and a transcript is over-long.
    """
    check_unique_ids(pairs, "pairs")
    index: dict[Transcript, int] = {}
    for pair in pairs:
        for transcript in (pair.chosen, pair.rejected):
            index.setdefault(transcript, len(index))
    rows = encode(list(index), tokenizer, unread=unread)
    long_rows = {i for i, row in enumerate(rows) if len(row.ids) > max_length}
    long_pairs = [p for p in pairs if {index[p.chosen], index[p.rejected]} & long_rows]
    if long_pairs and overlong == "error":
        raise InputError(f"{len(long_pairs)} pairs are longer than {max_length} tokens, the first is {long_pairs[0].id}")
    kept = list(pairs)
    if long_pairs and overlong == "drop":
        gone = {p.group or p.id for p in long_pairs}
        kept = [p for p in pairs if (p.group or p.id) not in gone]
        if not kept:
            raise InputError(f"every one of {len(pairs)} pairs is longer than {max_length} tokens")
    if overlong == "left":
        bos = cast(int | None, tokenizer.bos_token_id)  # the stubs name types that it never has
        rows = [_cut_left(row, max_length, bos) for row in rows]
    used = sorted({index[side] for p in kept for side in (p.chosen, p.rejected)})
    place = {old: new for new, old in enumerate(used)}
    return EncodedPairs(
        pairs=tuple(kept),
        rows=tuple(rows[i] for i in used),
        chosen=tuple(place[index[p.chosen]] for p in kept),
        rejected=tuple(place[index[p.rejected]] for p in kept),
        dropped=len(pairs) - len(kept),
    )


def _cut_left(row: Row, max_length: int, bos: int | None) -> Row:
    surplus = len(row.ids) - max_length
    if surplus <= 0:
        return row
    if bos is not None and row.ids[0] == bos:
        ids = (bos, *row.ids[surplus + 1 :])
        return Row(ids, max(row.response_start - surplus, 1))
    return Row(row.ids[surplus:], max(row.response_start - surplus, 0))
