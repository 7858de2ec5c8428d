"""Runs a model over pairs in batches: scores them, under edits too, and streams activations. The only file that attaches hooks in a loop.

Two things are never computed twice. Transcripts that share a prefix run in packed batches, where it is there once. Conditions of a
sweep share everything below the first layer that they edit: the clean model runs once, and each condition branches off it there.
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tl_reward.attention import needs_scores
from tl_reward.budget import BatchOptions, tokens_per_batch
from tl_reward.errors import InputError
from tl_reward.interventions import Hooks, Intervention, hooks_of
from tl_reward.model import HookedRewardModel
from tl_reward.packing import PackedBatch, pack
from tl_reward.pairs import PreferencePair
from tl_reward.scores import Scores
from tl_reward.sites import Site
from tl_reward.tokens import EncodedPairs, TokenBatch, batches, encode_pairs

Pairs = Sequence[PreferencePair] | EncodedPairs
Batch = TokenBatch | PackedBatch
Condition = Sequence[Intervention]
# Site, its activations [token …] without padding, the batch, and the base model's activations there if one runs beside.
Consumer = Callable[[Site, Tensor, Batch, Tensor | None], None]


# Site, its activations [token …], the gradient there, of the same shape, and the batch.
GradientConsumer = Callable[[Site, Tensor, Tensor, Batch], None]


@contextmanager
def attached(model: HookedRewardModel, hooks: Hooks) -> Iterator[None]:
    """Attaches forward hooks, and takes off these and no others at the end, after an exception too.

    Raises:
        InputError: the model has no hook point of that name.
    """
    for name, _ in hooks:
        if name not in model.hook_dict:
            near = difflib.get_close_matches(name, model.hook_dict, n=3)
            raise InputError(
                f"no hook point {name!r} in {model.cfg.model_name}, whose layers are [0, {model.cfg.n_layers}); nearest: {', '.join(near)}"
            )
    with model.hooks(fwd_hooks=hooks):
        yield


def encode_for(model: HookedRewardModel, pairs: Pairs, **options: Unpack[BatchOptions]) -> EncodedPairs:
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


def score(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    interventions: Condition = (),
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> Scores:
    """The rewards of pairs, with the interventions applied. A prefix that transcripts share is run once.

    Args:
        interventions: edits of the forward pass (`tl_reward.interventions`), applied in their order.
        progress: the label of a progress bar; None shows none.
        options: how transcripts become batches (`budget.BatchOptions`).

    Raises:
        InputError: a reward is not finite (with the pairs), an edit names a place that the model does not have, a budget is too small.
    """
    return sweep(model, pairs, [interventions], progress=progress, **options)[0]


def sweep(
    model: HookedRewardModel,
    pairs: Pairs,
    conditions: Sequence[Condition],
    *,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> list[Scores]:
    """The rewards of pairs under each condition, which is a list of interventions; an empty one is the model without an edit.

    The layers below a condition's first edit are run once for all conditions: a sweep over late layers costs a fraction of as many
    calls of `score`, with the same result. Args and errors as in `score`.
    """
    encoded = encode_for(model, pairs, **options)
    rewards = torch.zeros(len(conditions), len(encoded.rows), dtype=torch.float64)
    per_token = all(getattr(intervention, "per_token", False) for condition in conditions for intervention in condition)
    budget = _budget(model, encoded, options)
    made = _batches(model, encoded, budget, shared=per_token)
    for batch in _progress(made, progress, model.cfg.device, times=len(conditions)):
        hooks = [hooks_of(condition, batch) for condition in conditions]
        with torch.inference_mode():
            reward = _branches(model, batch, hooks, budget)
        rewards[:, batch.row.cpu()] = reward.double().cpu()
    bad = (~rewards.isfinite()).any(0).nonzero()[:, 0].tolist()
    if bad:
        raise InputError(f"{model.cfg.model_name}: reward is not finite for {_pairs_of(encoded, bad)}")
    chosen, rejected = rewards[:, list(encoded.chosen)].tolist(), rewards[:, list(encoded.rejected)].tolist()
    return [Scores.of(encoded.pairs, a, b, encoded.dropped) for a, b in zip(chosen, rejected, strict=True)]


def stream(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: Sequence[Site],
    consumer: Consumer,
    *,
    base: HookedRewardModel | None = None,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> None:
    """One forward pass over every transcript; the consumer is called with the activations at each site of each batch.

    A prefix that transcripts share comes once: `batch.occurrences` says how often each token stands for itself. With `base`, another
    model of the same shape reads the same tokens, layer by layer beside the first, and the consumer gets its activations as well.

    Raises:
        InputError: an activation is not finite (with the site and the pairs), the models differ in shape, a budget is too small.
    """
    if base is not None:
        _check_same_shape(model, base)
    encoded = encode_for(model, pairs, **options)
    layers = {layer: [site for site in sites if site.layer == layer] for layer in range(model.cfg.n_layers)}
    missing = [site for site in sites if site.layer not in layers]
    if missing:
        raise InputError(f"layer must be in [0, {model.cfg.n_layers}), got {missing[0].layer}")
    for batch in _progress(_batches(model, encoded, _budget(model, encoded, options), shared=True), progress, model.cfg.device):
        with torch.inference_mode():
            residual = model(batch.tokens, None, attention_mask=_mask(batch), stop_at_layer=0)
            beside = base(batch.tokens, None, attention_mask=_mask(batch), stop_at_layer=0) if base is not None else None
            for layer, here in layers.items():
                kept: dict[str, Tensor] = {}
                if base is not None:
                    with attached(base, [(site.hook_name, _keep(kept)) for site in here]):
                        beside = _run(base, beside, batch, layer, layer + 1)
                with attached(model, [(site.hook_name, _feed(site, consumer, batch, kept, encoded)) for site in here]):
                    residual = _run(model, residual, batch, layer, layer + 1)


def backpropagate(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: Sequence[Site],
    consumer: GradientConsumer,
    *,
    progress: str | None = None,
    **options: Unpack[BatchOptions],
) -> None:
    """One forward and one backward pass over every transcript: the gradient of the sum of all margins, at each site of each batch.

    Activations and gradients are handed over as they come up and then let go: nothing is kept but what the backward pass needs itself.
    Errors as in `stream`.
    """
    encoded = encode_for(model, pairs, **options)
    sign = torch.zeros(len(encoded.rows))
    for side, rows in ((1.0, encoded.chosen), (-1.0, encoded.rejected)):
        sign.index_add_(0, torch.tensor(rows), torch.full((len(rows),), side))
    budget = _budget(model, encoded, options, gradients=True)
    for batch in _progress(_batches(model, encoded, budget, shared=True), progress, model.cfg.device):
        with torch.no_grad():
            embedded = model(batch.tokens, None, attention_mask=_mask(batch), stop_at_layer=0)
        embedded.requires_grad_()
        with attached(model, [(site.hook_name, _feed_gradient(site, consumer, batch, encoded)) for site in sites]):
            reward = model(embedded, attention_mask=_mask(batch), start_at_layer=0)
            (reward * sign.to(reward)[batch.row]).sum().backward()


def side_weights(encoded: EncodedPairs, batch: Batch) -> Float[Tensor, "side token"]:
    """For each token of a batch: in how many chosen (0) and rejected (1) transcripts it occurs."""
    count = torch.zeros(2, len(encoded.rows))
    for side, rows in enumerate((encoded.chosen, encoded.rejected)):
        count[side].index_add_(0, torch.tensor(rows), torch.ones(len(rows)))
    return batch.occurrences(count.to(batch.row.device)[:, batch.row])


def _branches(model: HookedRewardModel, batch: Batch, hooks: Sequence[Hooks], budget: int) -> Float[Tensor, "condition row"]:
    """The clean model runs from layer to layer, as far as the last branch; each condition branches off where it edits first."""
    first = [_first_layer(model, condition) for condition in hooks]
    # Where tokens are few, copies of the batch run side by side, a condition each.
    copies = max(1, budget // batch.tokens.shape[1]) if isinstance(batch, PackedBatch) else 1
    rewards = torch.zeros(len(hooks), len(batch.row), device=batch.tokens.device)
    residual, at = batch.tokens, None
    for layer in sorted(set(first)):
        if layer > 0:
            residual, at = _run(model, residual, batch, at, layer), layer
        here = [i for i, start in enumerate(first) if start == layer]
        for group in (here[i : i + copies] for i in range(0, len(here), copies)):
            joint = hooks[group[0]] if len(group) == 1 else _side_by_side([hooks[i] for i in group])
            start = residual.expand(len(group), *residual.shape[1:]) if len(group) > 1 else residual
            with attached(model, joint):
                reward = model(start, attention_mask=_mask(batch), start_at_layer=at)
            rewards[group] = reward.view(len(group), -1).float()
    return rewards


def _run(model: HookedRewardModel, residual: Tensor, batch: Batch, start: int | None, stop: int) -> Float[Tensor, "batch pos d_model"]:
    return model(residual, None, attention_mask=_mask(batch), start_at_layer=start, stop_at_layer=stop)


def _mask(batch: Batch) -> Any:
    return batch if isinstance(batch, PackedBatch) else batch.attention_mask


def _first_layer(model: HookedRewardModel, hooks: Hooks) -> int:
    """The layer from which on a forward pass with these hooks differs; the number of layers if none does."""

    def layer(name: str) -> int:
        block = re.match(r"blocks\.(\d+)\.", name)
        if block:
            return int(block[1])
        return model.cfg.n_layers if name.startswith(("ln_final.", "unembed.", "hook_reward")) else 0

    return min((layer(name) for name, _ in hooks), default=model.cfg.n_layers)


def _side_by_side(conditions: Sequence[Hooks]) -> Hooks:
    """Hooks for copies of one batch: those of condition i act on copy i alone."""
    names = dict.fromkeys(name for hooks in conditions for name, _ in hooks)

    def at(name: str) -> Any:
        def fn(activation: Tensor, hook: Any) -> Tensor:
            copies = list(activation.split(1))
            for i, hooks in enumerate(conditions):
                for _, edit in (pair for pair in hooks if pair[0] == name):
                    edited = edit(copies[i], hook=hook)
                    copies[i] = copies[i] if edited is None else edited
            return torch.cat(copies)

        return fn

    return [(name, at(name)) for name in names]


def _keep(kept: dict[str, Tensor]) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation

    return fn


def _feed(site: Site, consumer: Consumer, batch: Batch, kept: dict[str, Tensor], encoded: EncodedPairs) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        tokens = batch.flat(activation)
        _check_finite(tokens, hook.name, batch, encoded)
        other = kept.pop(hook.name, None)
        consumer(site, tokens, batch, batch.flat(other) if other is not None else None)

    return fn


def _feed_gradient(site: Site, consumer: GradientConsumer, batch: Batch, encoded: EncodedPairs) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        tokens = batch.flat(activation.detach())
        _check_finite(tokens, hook.name, batch, encoded)

        def gradient(value: Tensor) -> None:
            _check_finite(batch.flat(value), f"gradient at {hook.name}", batch, encoded)
            consumer(site, tokens, batch.flat(value), batch)

        activation.register_hook(gradient)

    return fn


def _check_finite(tokens: Float[Tensor, "token ..."], name: str, batch: Batch, encoded: EncodedPairs) -> None:
    # One pass over memory, where isfinite().all() takes several. A sum that overflows is looked at more closely.
    if tokens.sum(dtype=torch.float32).isfinite() or tokens.isfinite().all():
        return
    bad = ~tokens.flatten(1).isfinite().all(1)
    one_hot = torch.eye(len(batch.row), device=batch.row.device)
    rows = [row for i, row in enumerate(batch.row.tolist()) if (batch.occurrences(one_hot[i : i + 1])[0].bool() & bad).any()]
    raise InputError(f"{name} is not finite for {_pairs_of(encoded, rows)}")


def _pairs_of(encoded: EncodedPairs, rows: Sequence[int]) -> str:
    ids = [p.id for p, a, b in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True) if {a, b} & set(rows)]
    return f"{len(ids)} pairs: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}"


def _check_same_shape(model: HookedRewardModel, base: HookedRewardModel) -> None:
    for name in ("n_layers", "d_model", "d_mlp", "n_heads", "d_vocab"):
        ours, theirs = getattr(model.cfg, name), getattr(base.cfg, name)
        if ours != theirs:
            raise InputError(f"base model must have the same shape: {name} is {ours} and {theirs}")


def _budget(model: HookedRewardModel, encoded: EncodedPairs, options: BatchOptions, *, gradients: bool = False) -> int:
    given = {"max_tokens": options.get("max_tokens"), "max_memory_gb": options.get("max_memory_gb")}
    return tokens_per_batch(model, encoded.rows, gradients=gradients, **given)


def _batches(model: HookedRewardModel, encoded: EncodedPairs, budget: int, *, shared: bool) -> list[Batch]:
    """Packed batches where every edit allows it and nobody else listens: a hook of the user's expects one transcript a row."""
    others = any(point._forward_hooks or point._backward_hooks for point in model.hook_points())
    if shared and not others and not any(needs_scores(block.attn) for block in model.blocks):
        return list(pack(encoded.rows, max_tokens=budget))
    return list(batches(encoded.rows, max_tokens=budget))


def _progress(made: Sequence[Batch], label: str | None, device: Any, *, times: int = 1) -> Iterator[Batch]:
    """The batches on the model's device, with a progress bar in tokens that are computed, so that its estimate is of work left."""
    sizes = [batch.tokens.numel() * times for batch in made]
    if label and not sys.stderr.isatty():  # where there is no terminal, tqdm (disable=None) shows nothing
        many = f"{times} x " if times > 1 else ""
        print(f"{label}: {many}{sum(sizes) // times:,} tokens", file=sys.stderr, flush=True)
    with tqdm(total=sum(sizes), unit="tok", unit_scale=True, desc=label, disable=None if label else True) as bar:
        for batch, size in zip(made, sizes, strict=True):
            yield batch.to(device)
            bar.update(size)
