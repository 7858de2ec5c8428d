"""Pairs as rows of tokens: each different transcript once, cut or left out where it is over-long."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tl_reward.arguments import check_argument
from tl_reward.data.pairs import Overlong, PreferencePair, Transcript, check_unique_ids, faults_of
from tl_reward.data.reading import Reading
from tl_reward.data.text import RenderedTranscript, render, template_date
from tl_reward.errors import InputError, summary_of


class Row(NamedTuple):
    """A tokenised transcript; tokens from `response_start` on belong to the last assistant turn."""

    ids: tuple[int, ...]
    response_start: int


class EndAt(NamedTuple):
    """The token at which a reward is read, where that is not simply the last one.

    appended: every transcript ends with it: it is put there, unless it is there already. Else a transcript is read up to the last such
    token of its last turn (the end of its last step, for a model that rewards steps): no reward depends on what comes later.
    """

    token: int
    appended: bool


class Encoding(NamedTuple):
    """How pairs were made tokens, as in `encode_pairs`."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    overlong: Overlong
    unread: int | None
    end: EndAt | None = None


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as rows of token ids. Transcripts of the same tokens are one row, however many pairs they are part of.

    `chosen[i]` and `rejected[i]` index `rows`. They are the same row where the model reads both sides as equal: such a pair's margin is
    exactly 0, which counts as half right (`Scores.accuracy`). `reading` counts the pairs left out, by reason. `how` is None where that is
    not known, or another model is to read the very same tokens.
    """

    pairs: tuple[PreferencePair, ...]
    rows: tuple[Row, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    reading: Reading = field(default_factory=lambda: Reading(0))
    how: Encoding | None = field(default=None, compare=False, repr=False)

    __repr__ = summary_of

    @property
    def dropped(self) -> int:
        """How many pairs were left out."""
        return self.reading.dropped

    @cached_property
    def equal(self) -> tuple[int, ...]:
        """The pairs whose two sides are the same tokens."""
        sides = zip(self.chosen, self.rejected, strict=True)
        return tuple(i for i, (a, b) in enumerate(sides) if a == b or self.rows[a].ids == self.rows[b].ids)

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
        return EncodedPairs(self.pairs, tuple(rows), chosen, rejected, self.reading, self.how)

    def take(self, index: Sequence[int]) -> "EncodedPairs":
        """Some of the pairs, as they were encoded, with the rows that these need."""
        used = sorted({row for i in index for row in (self.chosen[i], self.rejected[i])})
        place = {row: i for i, row in enumerate(used)}
        chosen, rejected = (tuple(place[side[i]] for i in index) for side in (self.chosen, self.rejected))
        return EncodedPairs(tuple(self.pairs[i] for i in index), tuple(self.rows[row] for row in used), chosen, rejected, how=self.how)

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


def encode(
    transcripts: Sequence[Transcript], tokenizer: PreTrainedTokenizerBase, *, unread: int | None = None, end: EndAt | None = None
) -> list[Row]:
    """Tokenises transcripts. A chat template writes its own special tokens, so the tokenizer then adds none.

    Args:
        unread: a token that the read-out passes over at the end of a transcript (`HookedRewardModel.unread_token`): left out there, since
            no token before it depends on it. Of a transcript of nothing else, the first stays.
        end: the token that transcripts are read up to (`HookedRewardModel.end`).

    Raises:
        InputError: a transcript whose last turn is without that token, or one without any token.
    """
    return _rows([render(transcript, tokenizer) for transcript in transcripts], tokenizer, unread, end)


def _rows(rendered: Sequence[RenderedTranscript], tokenizer: PreTrainedTokenizerBase, unread: int | None, end: EndAt | None) -> list[Row]:
    encoded = tokenizer(
        [item.text for item in rendered],
        add_special_tokens=tokenizer.chat_template is None,
        return_offsets_mapping=True,
    )
    rows = []
    for item, ids, offsets in zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True):
        if not ids:
            raise InputError(f"the tokenizer makes no token of a transcript: {item.text[:60]!r}")
        if unread is not None and (end is None or not end.appended):  # else pad tokens come before the one that is read, which sees them
            ids = ids[: max([1, *(i for i, token in enumerate(ids, 1) if token != unread)])]
            offsets = offsets[: len(ids)]
        start = next((i for i, (_, stop) in enumerate(offsets) if stop > item.response_start), len(ids) - 1)
        if end is not None:
            ids = _up_to(end, ids, start, tokenizer)
        rows.append(Row(tuple(ids), start))
    return rows


def _up_to(end: EndAt, ids: list[int], start: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    if end.appended:
        return ids if ids[-1] == end.token else [*ids, end.token]
    last = max([i for i, token in enumerate(ids, 1) if token == end.token and i > start], default=0)
    if not last:
        raise _without_step(end, tokenizer)
    return ids[:last]


def _without_step(end: EndAt, tokenizer: PreTrainedTokenizerBase) -> InputError:
    token = tokenizer.convert_ids_to_tokens(end.token)
    return InputError(f"this model reads rewards at the token {token}, which ends a step, and the answer has none")


def encode_pairs(
    pairs: Sequence[PreferencePair],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    overlong: Overlong = "drop",
    unread: int | None = None,
    end: EndAt | None = None,
    on_bad: Literal["error", "drop"] = "error",
    limited_by: str = "max_length",
) -> EncodedPairs:
    """Tokenises pairs, and deals with transcripts of more than `max_length` tokens.

    Args:
        overlong: "drop" leaves out a pair with an over-long side (with a best-of-n row, all of its pairs) and counts it; "left" cuts
            tokens off the start of the transcript, so that its end, where the reward is read, stays; "error" stops.
        unread, end: see `encode`.
        on_bad: "error" stops at a pair that the tokenizer's chat template refuses, "drop" leaves it out (with a best-of-n row, all of its
            pairs) and counts it.
        limited_by: what the limit is, for messages.

    Raises:
        InputError: no pair is left; `overlong` is "error" and a transcript is over-long; `on_bad` is "error" and the chat template refuses
            a transcript (with the pair and where it was read).
    """
    pairs = list(pairs)
    check_unique_ids(pairs, "pairs")
    check_argument("overlong", overlong, Overlong)
    check_argument("on_bad", on_bad, Literal["error", "drop"])
    if not pairs:
        raise InputError("at least one pair is needed, got none")
    texts, refused = _rendered(pairs, tokenizer, on_bad, end)
    rows = dict(zip(texts, _rows(list(texts.values()), tokenizer, unread, end), strict=True))
    limit = f"longer than {max_length:,} tokens ({limited_by})"
    long = [pair for pair in pairs if any(side in rows and len(rows[side].ids) > max_length for side in (pair.chosen, pair.rejected))]
    if long and overlong == "error":
        raise InputError(f"{len(long)} pairs are longer than {max_length} tokens, the first is {long[0].id}")
    why: dict[str, str] = {}  # by best-of-n row, or pair
    bad = "refused by the tokenizer's chat template"
    bad = bad if end is None or end.appended else f"{bad}, or without the end of a step"
    for reason, those in ((bad, refused), (limit, long if overlong == "drop" else [])):
        for pair in those:
            why.setdefault(pair.group or pair.id, reason)
    kept = [pair for pair in pairs if (pair.group or pair.id) not in why]
    left_out = Counter(why[name] for name in (pair.group or pair.id for pair in pairs) if name in why)
    if not kept:
        if set(left_out) == {limit}:
            raise InputError(f"every one of {len(pairs)} pairs is longer than {max_length} tokens ({limited_by})")
        raise InputError(f"none of {len(pairs)} pairs is left: {', '.join(f'{count} {reason}' for reason, count in left_out.items())}")
    if overlong == "left":
        bos = cast(int | None, tokenizer.bos_token_id)  # the stubs name types that it never has
        rows = {side: _cut_left(row, max_length, bos) for side, row in rows.items()}
    place: dict[Row, int] = {}
    sides: list[tuple[int, int]] = []
    for pair in kept:
        one, other = rows[pair.chosen], rows[pair.rejected]
        if one.ids == other.ids:  # the same tokens, of which it is not certain where the answer begins
            one = other = min(one, other)
        sides.append((place.setdefault(one, len(place)), place.setdefault(other, len(place))))
    chosen, rejected = zip(*sides, strict=True)
    noted = faults_of(kept) + Counter({"read as equal": sum(a == b for a, b in sides)})
    reading = Reading(len(pairs), dict(left_out), dict(noted), template_date(tokenizer))
    how = Encoding(tokenizer, max_length, overlong, unread, end)
    return EncodedPairs(tuple(kept), tuple(place), chosen, rejected, reading, how)


def check_encoding(
    encoded: EncodedPairs,
    tokenizer: PreTrainedTokenizerBase,
    unread: int | None,
    max_length: int | None,
    overlong: Overlong | None,
    end: EndAt | None = None,
) -> None:
    """Raises InputError where pairs were made tokens in another way than is asked for now; None asks for nothing."""
    how = encoded.how
    if how is None:
        return
    differ = []
    if not _write_alike(how.tokenizer, tokenizer):
        differ.append(
            f"the tokenizer of {how.tokenizer.name_or_path or 'another model'}, not that of {tokenizer.name_or_path or 'this one'}"
        )
    if how.unread != unread:
        differ.append(f"the read-out {'mask' if how.unread is None else 'hf'}, not {'mask' if unread is None else 'hf'}")
    if how.end != end:
        said = ["the last token" if each is None else f"the token {each.token}" for each in (how.end, end)]
        differ.append(f"the read-out at {said[0]}, not at {said[1]}")
    if max_length not in (None, how.max_length):
        differ.append(f"max_length {how.max_length}, not {max_length}")
    if overlong not in (None, how.overlong):
        differ.append(f"overlong {how.overlong!r}, not {overlong!r}")
    if differ:
        raise InputError(f"these EncodedPairs were made with {'; with '.join(differ)}: give the pairs themselves, or encode them again")


def _write_alike(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether two tokenizers make the same tokens of a transcript."""
    if one is other:
        return True
    return one.chat_template == other.chat_template and one.encode("") == other.encode("") and one.get_vocab() == other.get_vocab()


def _rendered(
    pairs: Sequence[PreferencePair], tokenizer: PreTrainedTokenizerBase, on_bad: Literal["error", "drop"], end: EndAt | None
) -> tuple[dict[Transcript, RenderedTranscript], list[PreferencePair]]:
    """The text of each different transcript, and the pairs of which the chat template refuses a side."""
    texts: dict[Transcript, RenderedTranscript] = {}
    refused: list[PreferencePair] = []
    for pair in pairs:
        for side, transcript in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            try:
                rendered = texts.get(transcript) or render(transcript, tokenizer)
                answer = rendered.text[rendered.response_start :]
                if end is not None and not end.appended and str(tokenizer.convert_ids_to_tokens(end.token)) not in answer:
                    raise _without_step(end, tokenizer)
                texts[transcript] = rendered
            except InputError as error:
                if on_bad == "error":
                    where = f"{pair.where}: " if pair.where else ""
                    hint = 'such pairs can be left out: on_bad="drop"'
                    raise InputError(f"{where}pair {pair.id}: {side}: {error} ({hint})") from None
                refused.append(pair)
                break
    return texts, refused


def _cut_left(row: Row, max_length: int, bos: int | None) -> Row:
    surplus = len(row.ids) - max_length
    if surplus <= 0:
        return row
    if bos is not None and row.ids[0] == bos:
        ids = (bos, *row.ids[surplus + 1 :])
        return Row(ids, max(row.response_start - surplus, 1))
    return Row(row.ids[surplus:], max(row.response_start - surplus, 0))
