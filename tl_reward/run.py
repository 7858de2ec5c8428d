"""Runs a model over pairs in batches: scores them, and streams activations. The only file that attaches hooks in a loop."""

import difflib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from tl_reward.errors import InputError
from tl_reward.interventions import Hooks, Intervention, hooks_of
from tl_reward.model import HookedRewardModel
from tl_reward.pairs import PreferencePair
from tl_reward.scores import Scores
from tl_reward.sites import Site
from tl_reward.tokens import EncodedPairs, Overlong, TokenBatch, batches, encode_pairs

Pairs = Sequence[PreferencePair] | EncodedPairs
# Site, its activations [batch pos …], the batch, and the base model's activations there if one runs beside.
Consumer = Callable[[Site, Tensor, TokenBatch, Tensor | None], None]
BATCH_SIZE = 8


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


def encode_for(model: HookedRewardModel, pairs: Pairs, *, max_length: int | None = None, overlong: Overlong = "drop") -> EncodedPairs:
    """Tokenises pairs for a model. `max_length` is by default 1,024 tokens (the study's), or the model's context if that is shorter."""
    if isinstance(pairs, EncodedPairs):
        return pairs
    if model.tokenizer is None:
        raise InputError("this model has no tokenizer; load it with one to read pairs")
    limit = min(1024, model.cfg.n_ctx) if max_length is None else max_length
    if not 1 <= limit <= model.cfg.n_ctx:
        raise InputError(f"max_length must be in [1, {model.cfg.n_ctx}], got {limit}")
    return encode_pairs(pairs, model.tokenizer, max_length=limit, overlong=overlong)


def score(
    model: HookedRewardModel,
    pairs: Pairs,
    *,
    interventions: Sequence[Intervention] = (),
    batch_size: int = BATCH_SIZE,
    max_length: int | None = None,
    overlong: Overlong = "drop",
    progress: str | None = None,
) -> Scores:
    """The rewards of pairs, with the interventions applied. A transcript that several pairs share is run once.

    Args:
        interventions: edits of the forward pass (`tl_reward.interventions`), applied in their order.
        batch_size: transcripts a batch.
        progress: the label of a progress bar; None shows none.

    Raises:
        InputError: a reward is not finite (with the pairs), an edit names a place that the model does not have.
    """
    encoded = encode_for(model, pairs, max_length=max_length, overlong=overlong)
    rewards = torch.zeros(len(encoded.rows), dtype=torch.float64)
    for batch in _progress(encoded, batch_size, progress, model.cfg.device):
        with torch.inference_mode(), attached(model, hooks_of(interventions, batch)):
            reward = model(batch.tokens, attention_mask=batch.attention_mask)
        rewards[batch.row.cpu()] = reward.double().cpu()
    bad = (~rewards.isfinite()).nonzero()[:, 0].tolist()
    if bad:
        raise InputError(f"{model.cfg.model_name}: reward is not finite for {_pairs_of(encoded, bad)}")
    chosen, rejected = rewards[list(encoded.chosen)], rewards[list(encoded.rejected)]
    return Scores.of(encoded.pairs, chosen.tolist(), rejected.tolist(), encoded.dropped)


def stream(
    model: HookedRewardModel,
    encoded: EncodedPairs,
    sites: Sequence[Site],
    consumer: Consumer,
    *,
    base: HookedRewardModel | None = None,
    batch_size: int = BATCH_SIZE,
    progress: str | None = None,
) -> None:
    """One forward pass over every transcript; the consumer is called with the activations at each site of each batch.

    With `base`, another model of the same shape reads the same tokens first, and the consumer gets its activations as well. They are
    held for one batch at all sites: `2 * sites * batch * pos * d_mlp` bytes in bf16, so that a large model wants a small batch.

    Raises:
        InputError: an activation is not finite (with the site and the pairs), or the models differ in shape.
    """
    if base is not None:
        _check_same_shape(model, base)
    for batch in _progress(encoded, batch_size, progress, model.cfg.device):
        kept: dict[str, Tensor] = {}
        with torch.inference_mode():
            if base is not None:
                with attached(base, [(site.hook_name, _keep(kept)) for site in sites]):
                    base(batch.tokens, None, attention_mask=batch.attention_mask)
            with attached(model, [(site.hook_name, _feed(site, consumer, batch, kept, encoded)) for site in sites]):
                model(batch.tokens, None, attention_mask=batch.attention_mask)


def side_weights(encoded: EncodedPairs, batch: TokenBatch) -> Float[Tensor, "side token"]:
    """For each real token of a batch: in how many chosen (0) and rejected (1) transcripts it occurs."""
    count = torch.zeros(2, len(encoded.rows))
    for side, rows in enumerate((encoded.chosen, encoded.rejected)):
        count[side].index_add_(0, torch.tensor(rows), torch.ones(len(rows)))
    spread = count.to(batch.row.device)[:, batch.row, None].expand(2, *batch.tokens.shape)
    return spread[:, batch.attention_mask]


def _keep(kept: dict[str, Tensor]) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation

    return fn


def _feed(site: Site, consumer: Consumer, batch: TokenBatch, kept: dict[str, Tensor], encoded: EncodedPairs) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        if not activation[batch.attention_mask].isfinite().all():
            rows = [row for row, values in zip(batch.row.tolist(), activation, strict=True) if not values.isfinite().all()]
            raise InputError(f"{hook.name}: activation is not finite for {_pairs_of(encoded, rows)}")
        consumer(site, activation, batch, kept.pop(hook.name, None))

    return fn


def _pairs_of(encoded: EncodedPairs, rows: Sequence[int]) -> str:
    ids = [p.id for p, a, b in zip(encoded.pairs, encoded.chosen, encoded.rejected, strict=True) if {a, b} & set(rows)]
    return f"{len(ids)} pairs: {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}"


def _check_same_shape(model: HookedRewardModel, base: HookedRewardModel) -> None:
    for name in ("n_layers", "d_model", "d_mlp", "n_heads", "d_vocab"):
        ours, theirs = getattr(model.cfg, name), getattr(base.cfg, name)
        if ours != theirs:
            raise InputError(f"base model must have the same shape: {name} is {ours} and {theirs}")


def _progress(encoded: EncodedPairs, batch_size: int, label: str | None, device: Any) -> Iterator[TokenBatch]:
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    total = sum(len(row.ids) for row in encoded.rows)
    if label and not sys.stderr.isatty():  # where there is no terminal, tqdm (disable=None) shows nothing
        print(f"{label}: {total:,} tokens", file=sys.stderr, flush=True)
    with tqdm(total=total, unit="tok", unit_scale=True, desc=label, disable=None if label else True) as bar:
        for batch in batches(encoded.rows, batch_size=batch_size):
            yield batch.to(device)
            bar.update(int(batch.attention_mask.sum()))
