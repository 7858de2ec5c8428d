"""Runs a model over pairs in batches and scores them, under edits too.

Two things are never computed twice. Transcripts that share a prefix run in packed batches, where it is there once. Conditions of a
sweep share everything below the first layer that they edit: the clean model runs once, and each condition branches off it there.
"""

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.alignment import align
from tl_reward.data.batches.packing import Batch, PackedBatch
from tl_reward.errors import InputError
from tl_reward.interventions.attaching import attached, edited
from tl_reward.interventions.protocol import Hooks, Intervention, hooks_of, traits_of
from tl_reward.measures.scores import Scores
from tl_reward.model.layer_by_layer import mask_of, run_layers
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Grouping, Pairs, batches_for, encode_for, in_turn, interventions_of, pairs_of
from tl_reward.running.options import RunOptions, checked
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
    encoded = encode_for(model, pairs, **options)
    every = [*interventions_of(options), *(intervention for condition in conditions for intervention in condition)]
    traits = [traits_of(intervention) for intervention in every]
    paired = any(each.paired for each in traits)
    if paired:
        others = [type(intervention).__name__ for intervention, each in zip(every, traits, strict=True) if not each.per_token]
        if others:
            raise InputError(f"patching within a pair goes with interventions that state per_token = True; {others[0]} does not")
        align(encoded)  # says which pair cannot be aligned
        encoded = encoded.apart()
    grouping = Grouping(encoded.pair_of_row, whole=True) if paired else None
    made = batches_for([model], encoded, options, shared=all(each.per_token for each in traits), grouping=grouping)
    rewards = torch.zeros(len(conditions), len(encoded.rows), dtype=torch.float64)
    with parallel.together():
        for batch in in_turn(made.batches, progress, model.cfg.device, times=len(conditions)):
            with torch.inference_mode(), edited(model, batch, interventions_of(options)):
                reward = _branches(model, batch, [_hooks(model, condition, batch) for condition in conditions], made.max_tokens)
            rewards[:, batch.row.cpu()] = reward.cpu()
    parallel.add_up(rewards)
    bad = (~rewards.isfinite()).any(0).nonzero()[:, 0].tolist()
    if bad:
        raise InputError(f"{model.cfg.model_name}: reward is not finite for {pairs_of(encoded, bad)}")
    # Of one pair, where each has a row of its own: what is computed twice may differ in its last bits.
    for i in encoded.equal:
        rewards[:, encoded.rejected[i]] = rewards[:, encoded.chosen[i]]
    chosen, rejected = rewards[:, list(encoded.chosen)].tolist(), rewards[:, list(encoded.rejected)].tolist()
    return [Scores.of(encoded.pairs, a, b, encoded.reading) for a, b in zip(chosen, rejected, strict=True)]


def _hooks(model: HookedRewardModel, condition: Condition, batch: Batch) -> Hooks:
    if len(condition) == 1:
        return hooks_of(condition, batch)
    with edited(model, batch, condition) as hooks:
        return hooks


def _branches(model: HookedRewardModel, batch: Batch, hooks: Sequence[Hooks], max_tokens: int) -> Float[Tensor, "condition row"]:
    """The clean model runs from layer to layer, as far as the last branch; each condition branches off where it edits first."""
    last = model.cfg.n_layers
    first = [min((layer_of(name, last) for name, _ in condition), default=last) for condition in hooks]
    # Where tokens are few, copies of the batch run side by side, a condition each.
    copies = max(1, max_tokens // batch.tokens.shape[1]) if isinstance(batch, PackedBatch) else 1
    rewards = torch.zeros(len(hooks), len(batch.row), dtype=torch.float64, device=batch.tokens.device)
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
                reward = model(start, attention_mask=mask_of(batch), start_at_layer=at)
            for i, own in zip(group, reward.view(len(group), -1).double(), strict=True):  # a list as an index would be sent to the device
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
