"""Streams activations and gradients, batch by batch: what an analysis sees of a model, without holding on to it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.encoding import EncodedPairs
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import Hooks, is_per_token
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.budget import RunOptions
from tl_reward.running.scoring import (
    Batch,
    Pairs,
    attached,
    batches_for,
    check_comparable,
    edited,
    encode_for,
    in_turn,
    interventions_of,
    mask_of,
    pairs_of,
    run_layers,
)
from tl_reward.sites import Site, UnitSite, layer_of, unit_shape

# Site, its activations [token …] without padding, the batch, and the base model's activations there if one runs beside.
Consumer = Callable[[Site, Tensor, Batch, Tensor | None], None]
# Site, by how much its activations exceed the baseline [token …], the gradient there, of the same shape, and the batch.
GradientConsumer = Callable[[Site, Tensor, Tensor, Batch], None]
# Adds up, with `parallel.add_up`, what the consumers of all processes have: each saw a share of the batches.
Merge = Callable[[], None]
# Site, its activations [batch pos …], and the batch: what they are compared with, of a shape that broadcasts to theirs.
Baseline = Callable[[Site, Tensor, Batch], Tensor]


class Grouping(NamedTuple):
    """The group of each row: rows of different groups share no token in a batch. `whole`: a group has to be in one batch."""

    of_row: Sequence[int]
    whole: bool = False


class _Path(NamedTuple):
    """A step of integrated gradients: the clean activations, how far from the baseline to them it is, and the number of steps."""

    clean: dict[str, Tensor]
    share: float
    steps: int


def stream(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: Sequence[Site],
    consumer: Consumer,
    *,
    base: HookedRewardModel | None = None,
    whole: bool = False,
    merge: Merge | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> None:
    """One forward pass over every transcript; the consumer is called with the activations at each site of each batch.

    A prefix that transcripts share comes once: `batch.occurrences` says how often each token stands for itself. With `base`, another
    model of the same shape reads the same tokens, layer by layer beside the first, and the consumer gets its activations as well.

    Args:
        whole: the consumer computes rewards from the residual stream itself, so that an edit past the last layer is refused.
        merge: called at the end where several processes run, which are refused without it.

    Raises:
        InputError: an activation is not finite (with the site and the pairs), the models differ in shape, a budget is too small.
    """
    _check_merge(merge)
    if base is not None:
        check_comparable(model, base)
    encoded = encode_for(model, pairs, **options)
    layers = {layer: [site for site in sites if site.layer == layer] for layer in range(model.cfg.n_layers)}
    missing = [site for site in sites if site.layer not in layers]
    if missing:
        raise InputError(f"layer must be in [0, {model.cfg.n_layers}), got {missing[0].layer}")
    shared = _all_per_token(options)
    made = batches_for([model] if base is None else [model, base], encoded, options, shared=shared)
    with parallel.together():
        for batch in in_turn(made.batches, progress, model.cfg.device):
            with torch.inference_mode(), edited(model, batch, interventions_of(options)) as hooks:
                if whole:
                    _refuse_late(hooks, model.cfg.n_layers)
                residual = model(batch.tokens, None, attention_mask=mask_of(batch), stop_at_layer=0)
                beside = base(batch.tokens, None, attention_mask=mask_of(batch), stop_at_layer=0) if base is not None else None
                for layer, here in layers.items():
                    kept: dict[str, Tensor] = {}
                    if base is not None:
                        with attached(base, [(site.hook_name, _keep(kept)) for site in here]):
                            beside = run_layers(base, beside, batch, layer, layer + 1)
                    with attached(model, [(site.hook_name, _feed(site, consumer, batch, kept, encoded)) for site in here]):
                        residual = run_layers(model, residual, batch, layer, layer + 1)
    if merge is not None and parallel.count() > 1:
        merge()


@torch.inference_mode(False)  # a notebook may have switched gradients off
@torch.enable_grad()
def backpropagate(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: Sequence[Site],
    consumer: GradientConsumer,
    *,
    steps: int | None = None,
    baseline: Baseline | None = None,
    grouping: Grouping | None = None,
    merge: Merge | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> None:
    """The gradient of the sum of all margins, at each site of each batch: one forward and one backward pass over every transcript.

    Activations and gradients are handed over as they come up and then let go: nothing is kept but what the backward pass needs itself.

    Args:
        steps: with a number, the gradient is the mean of as many on the straight path from the baseline to the activations, at all
            sites jointly (integrated gradients; Sundararajan et al. 2017), by the midpoint rule; as many forward and backward passes.
            The consumer is called at each step, with the gradient divided by `steps`.
        baseline: what activations are compared with; None is 0.
        grouping: which rows may share tokens. By default all: then the gradient at a token that transcripts of several prompts share is
            the sum over these.
        merge: as in `stream`.

    Errors as in `stream`.
    """
    if steps is not None and steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    _check_merge(merge)
    encoded = encode_for(model, pairs, **options)
    sign = encoded.sides[:, 0].sum(0) - encoded.sides[:, 1].sum(0)
    of_row, whole = grouping or (None, False)
    made = batches_for([model], encoded, options, shared=_all_per_token(options), gradients=True, groups=of_row, whole=whole)
    with parallel.together():
        for batch in in_turn(made.batches, progress, model.cfg.device, times=steps or 1):
            with edited(model, batch, interventions_of(options)):
                clean: dict[str, Tensor] = {}
                with torch.no_grad():
                    embedded = model(batch.tokens, None, attention_mask=mask_of(batch), stop_at_layer=0)
                    if steps is not None:
                        with attached(model, [(site.hook_name, _keep(clean)) for site in sites]):
                            model(embedded, None, attention_mask=mask_of(batch), start_at_layer=0)
                for step in range(steps or 1):
                    path = _Path(clean, (step + 0.5) / steps, steps) if steps is not None else None
                    leaves = [embedded.detach().requires_grad_()]
                    hooks = [(site.hook_name, _feed_gradient(site, consumer, batch, encoded, baseline, path, leaves)) for site in sites]
                    with attached(model, hooks):
                        reward = model(leaves[0], attention_mask=mask_of(batch), start_at_layer=0)
                        # Of these alone: weights that can be trained get no gradient.
                        (reward * sign.to(reward)[batch.row]).sum().backward(inputs=leaves)
    if merge is not None and parallel.count() > 1:
        merge()


def sample_activations(
    model: HookedRewardModel, pairs: Pairs, site: UnitSite, *, count: int = 64, seed: int = 0, **options: Unpack[RunOptions]
) -> Float[Tensor, "sample layer neuron ..."]:
    """The activations of all neurons at tokens drawn at random, with replacement, from all transcripts, float32.

    At "attn_z" those of all heads, [sample, layer, head, d_head].
    """
    encoded = encode_for(model, pairs, **options)
    order = torch.tensor(sorted(range(len(encoded.rows)), key=lambda i: encoded.rows[i].ids))  # so that that of the pairs is no matter
    lengths = torch.tensor([len(encoded.rows[i].ids) for i in order])
    ends = lengths.cumsum(0)
    drawn = torch.randint(int(ends[-1]), (count,), generator=torch.Generator().manual_seed(seed))
    at = torch.searchsorted(ends, drawn, right=True)
    row, position = order[at], drawn - (ends - lengths)[at]
    shape = (*unit_shape(model.cfg, site), *([model.cfg.d_head] if site == "attn_z" else []))
    bank = torch.zeros(count, *shape)

    def take(place: Site, activation: Tensor, batch: Batch, _: Tensor | None) -> None:
        for i, here in enumerate(batch.row.tolist()):
            samples = (row == here).nonzero()[:, 0]
            if len(samples):
                bank[samples, place.layer] = activation[batch.places(i)[position[samples]]].float().cpu()

    stream(model, encoded, [Site(layer, site) for layer in range(model.cfg.n_layers)], take, merge=lambda: parallel.add_up(bank), **options)
    return bank


def side_weights(encoded: EncodedPairs, batch: Batch) -> Float[Tensor, "objective side token"]:
    """For each token of a batch: in how many chosen (0) and rejected (1) transcripts of each objective's pairs it occurs."""
    weight = encoded.sides.to(batch.row.device)[:, :, batch.row]
    return batch.occurrences(weight.flatten(0, 1)).unflatten(0, weight.shape[:2])


def _keep(kept: dict[str, Tensor]) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation.clone()  # an edit in place further on must not reach it

    return fn


def _feed(site: Site, consumer: Consumer, batch: Batch, kept: dict[str, Tensor], encoded: EncodedPairs) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        tokens = batch.flat(activation)
        _check_finite(tokens, hook.name, batch, encoded)
        other = kept.pop(hook.name, None)
        consumer(site, tokens, batch, batch.flat(other) if other is not None else None)

    return fn


def _feed_gradient(
    site: Site,
    consumer: GradientConsumer,
    batch: Batch,
    encoded: EncodedPairs,
    baseline: Baseline | None,
    path: _Path | None,
    leaves: list[Tensor],
) -> Any:
    """`leaves` takes the activations that are set on a path."""

    def fn(activation: Tensor, hook: Any) -> Tensor | None:
        clean = (path.clean[hook.name] if path else activation).detach()
        excess = clean - baseline(site, clean, batch) if baseline else clean
        tokens = batch.flat(excess)
        _check_finite(tokens, hook.name, batch, encoded)

        def gradient(value: Tensor) -> None:
            _check_finite(batch.flat(value), f"gradient at {hook.name}", batch, encoded)
            consumer(site, tokens, batch.flat(value) / (path.steps if path else 1), batch)

        # On a path, a site's activations are set, whatever the layers below now give.
        seen = (clean - (1 - path.share) * excess).requires_grad_() if path else activation
        own = path is not None or not seen.requires_grad  # an edit may have set it to a constant
        if own:
            seen = seen.detach().requires_grad_()
            leaves.append(seen)
        seen.register_hook(gradient)
        return seen if own else None

    return fn


def _check_merge(merge: Merge | None) -> None:
    if merge is None:
        parallel.require_one("a pass over activations or gradients that gives no merge")


def _refuse_late(hooks: Hooks, n_layers: int) -> None:
    late = [name for name, _ in hooks if layer_of(name, n_layers) == n_layers]
    if late:
        raise InputError(f"an edit at {late[0]}, past the last layer, is for scores; this reads the reward from the residual stream itself")


def _check_finite(tokens: Float[Tensor, "token ..."], name: str, batch: Batch, encoded: EncodedPairs) -> None:
    # One pass over memory, where isfinite().all() takes several. A sum that overflows is looked at more closely.
    if tokens.sum(dtype=torch.float32).isfinite() or tokens.isfinite().all():
        return
    bad = ~tokens.flatten(1).isfinite().all(1)
    one_hot = torch.eye(len(batch.row), device=batch.row.device)
    rows = [row for i, row in enumerate(batch.row.tolist()) if (batch.occurrences(one_hot[i : i + 1])[0].bool() & bad).any()]
    raise InputError(f"{name} is not finite for {pairs_of(encoded, rows)}")


def _all_per_token(options: RunOptions) -> bool:
    """Raises InputError where an intervention patches between the transcripts of a pair: its batches are made for scores alone."""
    given = interventions_of(options)
    if any(getattr(each, "paired", False) for each in given):
        raise InputError(
            "an intervention that patches within a pair is for scores and sweeps; statistics and gradients are of one transcript"
        )
    return all(map(is_per_token, given))
