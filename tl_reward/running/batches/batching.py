"""Pairs as batches that a model reads one after the other: encoded, packed where that is possible, and shared out among processes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, Unpack
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedTokenizerBase

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch, PackedBatch, group_sizes, pack
from tl_reward.data.batches.padding import batches
from tl_reward.data.encoding import EncodedPairs, check_encoding, encode_pairs
from tl_reward.data.readers import GivenPairs, as_pairs
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.budget import Sizes, longest_that_fits, tokens_per_batch
from tl_reward.running.options import RunOptions, checked_without_rewards
from tl_reward.running.promises import check_per_token
from tl_reward.terminal.progress import Progress

Pairs = GivenPairs | EncodedPairs


class Batching(NamedTuple):
    """Batches, and the number of tokens that one may hold."""

    batches: list[Batch]
    max_tokens: int


class Grouping(NamedTuple):
    """The group of each row: rows of different groups share no token in a batch. `whole`: a group has to be in one batch."""

    of_row: Sequence[int]
    whole: bool = False


def interventions_of(options: RunOptions) -> Sequence[Any]:
    return options.get("interventions", ())


def tokenizer_of(model: HookedRewardModel) -> PreTrainedTokenizerBase:
    """Raises InputError where the model was made without one."""
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer; load it with one to read pairs")
    return model.tokenizer


@checked_without_rewards
def encode_for(model: HookedRewardModel, pairs: Pairs, *, gradients: bool = False, **options: Unpack[RunOptions]) -> EncodedPairs:
    """Tokenises pairs for a model, by `max_length`, `overlong` and `on_bad` of the options. `EncodedPairs.reading` says what was left out.

    Args:
        gradients: a backward pass follows, which takes more memory, so that long transcripts may not fit.

    Raises:
        InputError: as `encode_pairs`; pairs that are encoded already, with another tokenizer, read-out, `max_length` or `overlong`.
    """
    if isinstance(pairs, EncodedPairs):
        if model.tokenizer is not None:
            check_encoding(pairs, model.tokenizer, model.unread_token, options.get("max_length"), options.get("overlong"), model.end)
        return pairs
    context, limit, what = int(model.cfg.n_ctx), options.get("max_length"), "max_length"
    if limit is None:
        limit = _default_length(model, options.get("max_memory_gb"), gradients)
        shortest = min([context, *(each.n_ctx for each in _alike[-1].models)]) if _alike else context
        what = "the model's context" if limit == context else "the shortest context of the models" if limit == shortest else _FITS
    elif not 1 <= limit <= context:
        raise InputError(f"max_length must be in [1, {context}], got {limit}")
    overlong, on_bad = options.get("overlong", "drop"), options.get("on_bad", "error")
    return encode_pairs(
        as_pairs(pairs),
        tokenizer_of(model),
        max_length=limit,
        overlong=overlong,
        on_bad=on_bad,
        limited_by=what,
        unread=model.unread_token,
        end=model.end,
    )


_FITS = "what fits in memory: see max_memory_gb"
_Limits = dict[tuple[float | None, bool], int]
_lengths: WeakKeyDictionary[HookedRewardModel, _Limits] = WeakKeyDictionary()


class _Alike(NamedTuple):
    models: Sequence[Sizes]
    limits: _Limits


_alike: list[_Alike] = []


@contextmanager
def read_alike(models: Sequence[Sizes]) -> Iterator[None]:
    """Within it, these models have one default limit, so that all of them read the same pairs, whatever their contexts and the memory that
    is free when each is loaded."""
    _alike.append(_Alike(models, {}))
    try:
        yield
    finally:
        _alike.pop()


def _default_length(model: HookedRewardModel, max_memory_gb: float | None, gradients: bool) -> int:
    """The limit where none is given. It is found once for a model, so that all that asks of it reads the same pairs: free memory varies,
    and an edit that needs attention scores, for which there may be no room, is refused rather than tested on fewer pairs."""
    known = _alike[-1].limits if _alike else _lengths.setdefault(model, {})
    others = _alike[-1].models if _alike else ()
    asked = max_memory_gb, gradients
    if asked not in known:
        with parallel.together():
            fits = longest_that_fits(model, max_memory_gb=max_memory_gb, gradients=gradients, others=others)
        known[asked] = min(parallel.gathered(fits))
    return known[asked]


def _packs(models: Sequence[HookedRewardModel], shared: bool) -> bool:
    """Whether transcripts may share tokens: every edit allows it, and nobody else listens, since a hook of the user's expects one
    transcript a row."""
    others = any(module._forward_hooks or module._forward_pre_hooks for model in models for module in model.modules())
    return shared and not others and not any(model.cfg.use_attn_result for model in models)


def pairs_of(encoded: EncodedPairs, rows: Sequence[int]) -> str:
    ids = [p.id for p, a, b in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True) if {a, b} & set(rows)]
    return f"{len(ids)} pairs: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}"


def batches_for(
    models: Sequence[HookedRewardModel],
    encoded: EncodedPairs,
    options: RunOptions,
    *,
    shared: bool = True,
    gradients: bool = False,
    grouping: Grouping | None = None,
    kept: int = 0,
) -> Batching:
    """The batches that all of some models read.

    They are packed where every edit allows it (`shared`) and nobody else listens: a hook of the user's expects one transcript a row.

    Args:
        grouping: which rows may share tokens in packed batches. By default all.
        kept: bytes that edits keep of each token.
    """
    groups, whole = grouping or (None, False)
    packed = _packs(models, shared)
    with parallel.together():
        budget = tokens_per_batch(
            models[0],
            max(group_sizes(encoded.rows, groups) if whole and groups is not None else (len(row.ids) for row in encoded.rows), default=1),
            max_tokens=options.get("max_tokens"),
            max_memory_gb=options.get("max_memory_gb"),
            gradients=gradients,
            scores=not packed,
            kept=kept,
            unit="pair" if whole else "transcript",
        )
    budget = min(parallel.gathered(budget))  # memory differs, and batches must not
    if packed:
        check_per_token(models[0], encoded, interventions_of(options))
        return Batching(list(pack(encoded.rows, max_tokens=budget, groups=groups)), budget)
    return Batching(list(batches(encoded.rows, max_tokens=budget)), budget)


def smaller(batch: Batch, encoded: EncodedPairs, max_tokens: int, grouping: Grouping | None = None) -> list[Batch]:
    """The transcripts of a batch in batches of at most `max_tokens` tokens, or where one transcript or whole group has more, of as many."""
    chosen = batch.row.tolist()
    rows = [encoded.rows[i] for i in chosen]
    groups = [grouping.of_row[i] for i in chosen] if grouping else None
    if grouping and grouping.whole and groups is not None:
        max_tokens = max(max_tokens, *group_sizes(rows, groups))
    packed = isinstance(batch, PackedBatch)
    parts = list(pack(rows, max_tokens=max_tokens, groups=groups)) if packed else list(batches(rows, max_tokens=max_tokens))
    return [replace(part, row=torch.tensor(chosen)[part.row]) for part in parts]


def in_turn(made: Sequence[Batch], label: str | None, device: Any, *, times: int = 1) -> Iterator[Batch]:
    """The batches on the model's device, with their progress in tokens that are computed, so that its estimate is of work left.

    Where several processes run, each gets its share (inside `parallel.together`), and the first one shows the progress of its own.
    """
    mine = parallel.deal([batch.tokens.numel() for batch in made], parallel.count())[parallel.rank()]
    sizes = [made[i].tokens.numel() * times for i in mine]
    if label and parallel.count() > 1:
        label = f"{label}, 1 of {parallel.count()} shares"
    with Progress(label or None, sum(sizes), "tokens") as progress:
        for i, size in zip(mine, sizes, strict=True):
            parallel.look_around()
            yield made[i].to(device)
            progress.add(size)
