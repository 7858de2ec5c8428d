"""Runs a model over pairs in batches and scores them, under edits too.

Two things are never computed twice. Transcripts that share a prefix run in packed batches, where it is there once. Conditions of a
sweep share everything below the first layer that they edit: the clean model runs once, and each condition branches off it there.
"""

import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tl_reward import parallel
from tl_reward.data.alignment import align
from tl_reward.data.encoding import EncodedPairs, TokenBatch, batches, encode_pairs
from tl_reward.data.packing import PackedBatch, group_sizes, pack
from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import Hooks, Intervention, hooks_of, is_per_token
from tl_reward.measures.scores import Scores
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.budget import RunOptions, tokens_per_batch
from tl_reward.sites import layer_of

Pairs = Sequence[PreferencePair] | EncodedPairs
Batch = TokenBatch | PackedBatch
Condition = Sequence[Intervention]


# Hook points that TransformerLens runs only where a model is told to.
_SWITCHED = {"attn_in": "use_attn_in", "mlp_in": "use_hook_mlp_in", "result": "use_attn_result"} | dict.fromkeys(
    ("q_input", "k_input", "v_input"), "use_split_qkv_input"
)


class Batching(NamedTuple):
    """Batches, and the number of tokens that one may hold."""

    batches: list[Batch]
    max_tokens: int


@contextmanager
def attached(model: HookedRewardModel, hooks: Hooks) -> Iterator[None]:
    """Attaches forward hooks, and takes off these and no others at the end, after an exception too.

    Raises:
        InputError: the model has no hook point of that name.
    """
    for name, _ in hooks:
        check_hook_point(model, name)
    with model.hooks(fwd_hooks=hooks):
        yield


def check_hook_point(model: HookedRewardModel, name: str) -> None:
    """Raises InputError where a model has no hook point of that name, or one that never runs."""
    if name not in model.hook_dict:
        near = difflib.get_close_matches(name, model.hook_dict, n=3)
        raise InputError(
            f"no hook point {name!r} in {model.cfg.model_name}, whose layers are [0, {model.cfg.n_layers}); nearest: {', '.join(near)}"
        )
    point = name.rsplit("hook_", 1)[-1]
    if point in _SWITCHED and not getattr(model.cfg, _SWITCHED[point]):
        raise InputError(f"{name} does nothing unless {_SWITCHED[point]} is on: model.set_{_SWITCHED[point]}(True)")


def interventions_of(options: RunOptions) -> Sequence[Any]:
    given: Any = options.get("interventions", ())
    if not isinstance(given, Sequence):
        raise InputError(f"interventions must be a list of them, got {type(given).__name__}")
    return given


@contextmanager
def edited(model: HookedRewardModel, batch: Batch, interventions: Sequence[Any]) -> Iterator[Hooks]:
    """The model with some interventions, for one batch, and their hooks. Each is asked for its hooks under those before it, so that one
    that runs the model itself (a patch) sees their edits."""
    hooks: Hooks = []
    with ExitStack() as stack:
        for intervention in interventions:
            own = hooks_of([intervention], batch)
            stack.enter_context(attached(model, own))
            hooks += own
        yield hooks


def encode_for(model: HookedRewardModel, pairs: Pairs, **options: Unpack[RunOptions]) -> EncodedPairs:
    """Tokenises pairs for a model, by `max_length` and `overlong` of the options."""
    if isinstance(pairs, EncodedPairs):
        return pairs
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer; load it with one to read pairs")
    max_length = options.get("max_length")
    limit = min(1024, model.cfg.n_ctx) if max_length is None else max_length
    if not 1 <= limit <= model.cfg.n_ctx:
        raise InputError(f"max_length must be in [1, {model.cfg.n_ctx}], got {limit}")
    return encode_pairs(pairs, model.tokenizer, max_length=limit, overlong=options.get("overlong", "drop"))


def score(model: HookedRewardModel, pairs: Pairs, *, progress: str | None = None, **options: Unpack[RunOptions]) -> Scores:
    """The rewards of pairs, with `interventions` of the options applied. A prefix that transcripts share is run once.

    Args:
        progress: the label of a progress bar; None shows none.
        options: how the model is run (`budget.RunOptions`).

    Raises:
        InputError: a reward is not finite (with the pairs), an edit names a place that the model does not have, a budget is too small.
    """
    return sweep(model, pairs, [()], progress=progress, **options)[0]


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
    paired = any(getattr(intervention, "paired", False) for intervention in every)
    if paired:
        others = [type(intervention).__name__ for intervention in every if not is_per_token(intervention)]
        if others:
            raise InputError(f"patching within a pair goes with interventions that state per_token = True; {others[0]} does not")
        align(encoded)  # says which pair cannot be aligned
        encoded = encoded.apart()
    groups = [row // 2 for row in range(len(encoded.rows))] if paired else None
    made = batches_for([model], encoded, options, shared=all(map(is_per_token, every)), groups=groups, whole=paired)
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
    chosen, rejected = rewards[:, list(encoded.chosen)].tolist(), rewards[:, list(encoded.rejected)].tolist()
    return [Scores.of(encoded.pairs, a, b, encoded.dropped) for a, b in zip(chosen, rejected, strict=True)]


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
            rewards[group] = reward.view(len(group), -1).double()
    return rewards


def run_layers(
    model: HookedRewardModel, residual: Tensor, batch: Batch, start: int | None, stop: int
) -> Float[Tensor, "batch pos d_model"]:
    return model(residual, None, attention_mask=mask_of(batch), start_at_layer=start, stop_at_layer=stop)


def mask_of(batch: Batch) -> Any:
    return batch if isinstance(batch, PackedBatch) else batch.attention_mask


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


def check_comparable(model: HookedRewardModel, other: HookedRewardModel) -> None:
    """Raises InputError where two models cannot run side by side on the same tokens, neuron by neuron."""
    for name in ("original_architecture", "n_layers", "d_model", "d_mlp", "n_heads", "n_key_value_heads", "d_head", "d_vocab", "n_ctx"):
        ours, theirs = getattr(model.cfg, name), getattr(other.cfg, name)
        if ours != theirs:
            raise InputError(f"the models must have the same shape: {name} is {ours} in {_name(model)}, {theirs} in {_name(other)}")
    one, two = model.tokenizer, other.tokenizer
    if one is not None and two is not None and one.get_vocab() != two.get_vocab():
        raise InputError(f"the models must have the same tokenizer: the vocabularies of {_name(model)} and {_name(other)} differ")


def _name(model: HookedRewardModel) -> str:
    return str(model.cfg.model_name)


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
    groups: Sequence[int] | None = None,
    whole: bool = False,
) -> Batching:
    """The batches that all of some models read.

    They are packed where every edit allows it (`shared`) and nobody else listens: a hook of the user's expects one transcript a row.

    Args:
        groups: the group of each row. In packed batches, rows of different groups share no token.
        whole: each group has to be in one batch.
    """
    others = any(module._forward_hooks or module._forward_pre_hooks for model in models for module in model.modules())
    packed = shared and not others and not any(model.cfg.use_attn_result for model in models)
    with parallel.together():
        budget = tokens_per_batch(
            models[0],
            max(group_sizes(encoded.rows, groups) if whole and groups is not None else (len(row.ids) for row in encoded.rows), default=1),
            max_tokens=options.get("max_tokens"),
            max_memory_gb=options.get("max_memory_gb"),
            gradients=gradients,
            scores=not packed,
            unit="pair" if whole else "transcript",
        )
    budget = min(parallel.gathered(budget))  # memory differs, and batches must not
    if packed:
        return Batching(list(pack(encoded.rows, max_tokens=budget, groups=groups)), budget)
    return Batching(list(batches(encoded.rows, max_tokens=budget)), budget)


def in_turn(made: Sequence[Batch], label: str | None, device: Any, *, times: int = 1) -> Iterator[Batch]:
    """The batches on the model's device, with a progress bar in tokens that are computed, so that its estimate is of work left.

    Where several processes run, each gets its share (inside `parallel.together`), and the first one shows the progress of its own.
    """
    mine = parallel.deal([batch.tokens.numel() for batch in made], parallel.count())[parallel.rank()]
    sizes = [made[i].tokens.numel() * times for i in mine]
    if label and parallel.count() > 1:
        label = f"{label}, 1 of {parallel.count()} shares" if parallel.is_first() else None
    if label and not sys.stderr.isatty():  # where there is no terminal, tqdm (disable=None) shows nothing
        many = f"{times} x " if times > 1 else ""
        print(f"{label}: {many}{sum(sizes) // times:,} tokens", file=sys.stderr, flush=True)
    with tqdm(total=sum(sizes), unit="tok", unit_scale=True, desc=label, disable=None if label else True) as bar:
        for i, size in zip(mine, sizes, strict=True):
            parallel.look_around()
            yield made[i].to(device)
            bar.update(size)
