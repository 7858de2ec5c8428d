"""Runs a model over pairs in batches and scores them, under edits too.

Two things are never computed twice. Transcripts that share a prefix run in packed batches, where it is there once. Conditions of a
sweep share everything below the first layer that they edit: the clean model runs once, and each condition branches off it there.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.alignment import align
from tl_reward.data.batches.packing import Batch, PackedBatch
from tl_reward.data.encoding import EncodedPairs
from tl_reward.devices import forget_cached, widest
from tl_reward.errors import InputError, is_out_of_memory
from tl_reward.interventions.attaching import attached, edited
from tl_reward.interventions.patches import Source
from tl_reward.interventions.protocol import Hooks, Intervention, hooks_of, traits_of
from tl_reward.measures.scores import Scores
from tl_reward.model.heads.chosen import output_name
from tl_reward.model.layer_by_layer import mask_of, run_layers
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Grouping, Pairs, batches_for, encode_for, in_turn, interventions_of, pairs_of, smaller
from tl_reward.running.options import RunOptions, checked
from tl_reward.running.promises import check_per_token
from tl_reward.sites import layer_of

Condition = Sequence[Intervention]


@checked
def score(model: HookedRewardModel, pairs: Pairs, *, progress: str | None = None, **options: Unpack[RunOptions]) -> Scores:
    """The rewards of pairs, with `interventions` of the options applied. A prefix that transcripts share is run once.

    Args:
        progress: the label of a progress bar; None shows none.
        options: how the model is run (`running.options.RunOptions`).

    Raises:
        InputError: a reward is not finite (with the pairs), an edit names a place that the model does not have, a budget is too small.
    """
    return sweep(model, pairs, [()], progress=progress, **options)[0]


@checked
def sweep(
    model: HookedRewardModel,
    pairs: Pairs,
    conditions: Sequence[Condition],
    *,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> list[Scores]:
    """The rewards of pairs under each condition, a list of interventions on top of those of the options; an empty one adds no edit.

    The layers below a condition's first edit are run once for all conditions: a sweep over late layers costs a fraction of as many
    calls of `score`, with the same result. One condition that is not per token makes all of them run one transcript a row, so keep such
    conditions apart. Args and errors as in `score`.
    """
    every = [*interventions_of(options), *(intervention for condition in conditions for intervention in condition)]
    traits = [traits_of(intervention) for intervention in every]
    shared = all(each.per_token for each in traits)
    encoded = encode_for(model, pairs, **options)
    paired = any(each.paired for each in traits)
    if paired:
        others = [type(intervention).__name__ for intervention, each in zip(every, traits, strict=True) if not each.per_token]
        if others:
            raise InputError(f"patching within a pair goes with interventions that state per_token = True; {others[0]} does not")
        align(encoded)  # says which pair cannot be aligned
        encoded = encoded.apart()
    grouping = Grouping(encoded.pair_of_row, whole=True) if paired else None
    sources = {source for each in every if isinstance(source := getattr(each, "source", None), Source)}
    kept = sum(source.bytes_per_token for source in sources)
    made = batches_for([model], encoded, options, shared=shared, grouping=grouping, kept=kept)
    if isinstance(made.batches[0], PackedBatch):
        check_per_token(model, encoded, [intervention for condition in conditions for intervention in condition])
    rewards = torch.zeros(len(conditions), len(encoded.rows), dtype=torch.float64)

    def rewards_of(batch: Batch, max_tokens: int) -> Float[Tensor, "condition row"]:
        with torch.inference_mode(), edited(model, batch, interventions_of(options)):
            return _branches(model, batch, [_hooks(model, condition, batch) for condition in conditions], max_tokens).cpu()

    with parallel.together():
        for batch in in_turn(made.batches, progress, model.cfg.device, times=len(conditions)):
            for row, reward in _once_more_in_halves(rewards_of, batch, made.max_tokens, len(conditions), encoded, grouping):
                rewards[:, row] = reward
    parallel.add_up(rewards)
    bad = (~rewards.isfinite()).any(0).nonzero()[:, 0].tolist()
    if bad:
        raise InputError(f"{model.cfg.model_name}: reward is not finite for {pairs_of(encoded, bad)}")
    # Of one pair, where each has a row of its own: what is computed twice may differ in its last bits.
    for i in encoded.equal:
        rewards[:, encoded.rejected[i]] = rewards[:, encoded.chosen[i]]
    chosen, rejected = rewards[:, list(encoded.chosen)].tolist(), rewards[:, list(encoded.rejected)].tolist()
    return [Scores.of(encoded.pairs, a, b, encoded.reading, output_name(model)) for a, b in zip(chosen, rejected, strict=True)]


def _once_more_in_halves(
    run: Callable[[Batch, int], Tensor], batch: Batch, max_tokens: int, conditions: int, encoded: EncodedPairs, grouping: Grouping | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Which rows of `encoded`, and what `run` gives for them. A batch that does not fit in memory is run once more, in halves.

    This is sound for rewards, which a batch gives at its end; a statistic may have half of a batch in it by then.
    """
    tokens = batch.tokens.numel()
    half = tokens * min(conditions, _copies(batch, max_tokens)) // 2
    try:
        yield batch.row.cpu(), run(batch, max_tokens)
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        parts = smaller(batch, encoded, half, grouping)
        if len(parts) == 1 and half < tokens:
            raise  # one transcript, once
    # Out here the error is gone, and with it the activations that its traceback held.
    device = batch.tokens.device
    forget_cached()
    half = max(half, *(part.tokens.numel() for part in parts))
    warnings.warn(
        f"a batch did not fit in memory on {device}, and is run in halves; max_tokens={half} does so from the start", stacklevel=4
    )
    for part in parts:
        yield part.row, run(part.to(device), half)


def _copies(batch: Batch, max_tokens: int) -> int:
    """How many conditions run side by side, each on a copy of the batch: several where its tokens are few."""
    return max(1, max_tokens // batch.tokens.shape[1]) if isinstance(batch, PackedBatch) else 1


def _hooks(model: HookedRewardModel, condition: Condition, batch: Batch) -> Hooks:
    if len(condition) == 1:
        return hooks_of(condition, batch)
    with edited(model, batch, condition) as hooks:
        return hooks


def _branches(model: HookedRewardModel, batch: Batch, hooks: Sequence[Hooks], max_tokens: int) -> Float[Tensor, "condition row"]:
    """The clean model runs from layer to layer, as far as the last branch; each condition branches off where it edits first."""
    last = model.cfg.n_layers
    first = [min((layer_of(name, last) for name, _ in condition), default=last) for condition in hooks]
    copies = _copies(batch, max_tokens)
    device = batch.tokens.device
    rewards = torch.zeros(len(hooks), len(batch.row), dtype=widest(device), device=device)
    residual, at = batch.tokens, None
    for layer in sorted(set(first)):
        if layer > 0:
            residual, at = run_layers(model, residual, batch, at, layer), layer
        here = [i for i, start in enumerate(first) if start == layer]
        for group in (here[i : i + copies] for i in range(0, len(here), copies)):
            joint = hooks[group[0]] if len(group) == 1 else _side_by_side([hooks[i] for i in group])
            # Copies of its own: a hook that edits in place must reach neither the other conditions nor the trunk.
            start = torch.cat([residual] * len(group))
            with attached(model, joint):
                reward = model(
                    start, attention_mask=mask_of(batch), **({} if at is None else {"start_at_layer": at, "tokens": batch.tokens})
                )
            # One by one: a list as an index would be sent to the device.
            for i, own in zip(group, reward.view(len(group), -1).to(rewards.dtype), strict=True):
                rewards[i] = own
    return rewards


def _side_by_side(conditions: Sequence[Hooks]) -> Hooks:
    """Hooks for copies of one batch: those of condition i act on copy i alone."""
    names = dict.fromkeys(name for hooks in conditions for name, _ in hooks)

    def at(name: str) -> Any:
        def fn(activation: Tensor, hook: Any) -> Tensor:
            copies = list(activation.split(1))
            assert len(copies) == len(conditions), (name, activation.shape)
            for i, hooks in enumerate(conditions):
                for _, edit in (pair for pair in hooks if pair[0] == name):
                    edited = edit(copies[i], hook=hook)
                    copies[i] = copies[i] if edited is None else edited
            return torch.cat(copies)

        return fn

    return [(name, at(name)) for name in names]
