"""Streams activations and gradients, batch by batch: what an analysis sees of a model, without holding on to it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import TokenBatch, batch_tensor_on, places_in
from tl_reward.data.encoding import EncodedPairs
from tl_reward.devices import wide
from tl_reward.errors import InputError
from tl_reward.interventions.attaching import attached, edited
from tl_reward.interventions.protocol import Hooks, traits_of
from tl_reward.model.heads.chosen import check_direction, reward_bias
from tl_reward.model.layer_by_layer import check_comparable, mask_of, run_layers
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.batches.batching import Pairs, batches_for, encode_for, in_turn, interventions_of, pairs_of
from tl_reward.running.consumers import Consumer, Function, Merge, consumer_of
from tl_reward.running.options import RunOptions, checked_without_rewards
from tl_reward.sites import Site, UnitSite, Where, check_where, layer_of, unit_shape

# Takes the activations, or gradients, of a batch at a hook point.
Look = Callable[[str, Tensor], None]


@checked_without_rewards
def stream(
    model: HookedRewardModel,
    pairs: Pairs,
    sites: Sequence[Site],
    consumer: Consumer | Function,
    *,
    base: HookedRewardModel | None = None,
    whole: bool = False,
    merge: Merge | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> None:
    """One forward pass over every transcript; the consumer is shown the activations at each site of each batch.

    A prefix that transcripts share comes once: `batch.occurrences` says how often each token stands for itself. With `base`, another
    model of the same shape reads the same tokens, layer by layer beside the first, and the consumer gets its activations as well.

    Args:
        consumer: a `consumers.Consumer`, or a function of a site, its activations [token …] without padding, the batch, and the base
            model's activations there, or None.
        whole: the consumer computes rewards from the residual stream itself, so that an edit past the last layer is refused.
        merge: of a function: called at the end where several processes run, which are refused without it.

    Raises:
        InputError: an activation is not finite (with the site and the pairs), the models differ in shape, a budget is too small.
    """
    consumer = consumer_of(consumer, merge)
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
                consumer.begin(batch)
                with finite_only(batch, encoded) as look:
                    residual = _embedded(model, batch)
                    beside = _embedded(base, batch) if base is not None else None
                    for layer, here in layers.items():
                        kept: dict[str, Tensor] = {}
                        if base is not None and beside is not None:
                            with attached(base, [(site.hook_name, _keep(kept)) for site in here]):
                                beside = run_layers(base, beside, batch, layer, layer + 1)
                        with attached(model, [(site.hook_name, _feed(site, consumer, batch, kept, look)) for site in here]):
                            residual = run_layers(model, residual, batch, layer, layer + 1)
                consumer.end()
    if parallel.count() > 1:
        consumer.merge()


@checked_without_rewards
def sample_activations(
    model: HookedRewardModel, pairs: Pairs, site: UnitSite, *, count: int = 64, seed: int = 0, **options: Unpack[RunOptions]
) -> Float[Tensor, "sample layer neuron ..."]:
    """The activations of all neurons at tokens drawn at random, with replacement, from all transcripts, float32.

    At "attn_z" those of all heads, [sample, layer, head, d_head].
    """
    encoded = encode_for(model, pairs, **options)
    shape = (*unit_shape(model.cfg, site), *([model.cfg.d_head] if site == "attn_z" else []))
    bank = _Bank(encoded, torch.zeros(count, *shape, device=model.cfg.device), seed)
    stream(model, encoded, [Site(layer, site) for layer in range(model.cfg.n_layers)], bank, **options)
    return bank.samples.cpu()


class _Bank:
    """Tokens drawn before the pass, and what is found there (`samples`)."""

    def __init__(self, encoded: EncodedPairs, samples: Float[Tensor, "sample layer neuron ..."], seed: int) -> None:
        order = torch.tensor(sorted(range(len(encoded.rows)), key=lambda i: encoded.rows[i].ids))  # so that that of the pairs is no matter
        lengths = torch.tensor([len(encoded.rows[i].ids) for i in order])
        ends = lengths.cumsum(0)
        drawn = torch.randint(int(ends[-1]), (len(samples),), generator=torch.Generator().manual_seed(seed))
        at = torch.searchsorted(ends, drawn, right=True)
        self._row, self._position = order[at], drawn - (ends - lengths)[at]
        self._here = self._tokens = torch.empty(0)  # of the batch: which samples, and where their tokens are
        self.samples = samples

    def begin(self, batch: Batch) -> None:
        at = [(self._row == row).nonzero()[:, 0] for row in batch.row.tolist()]
        tokens = [places_in(spans)[self._position[here]] for here, spans in zip(at, batch.spans, strict=True)]
        self._here, self._tokens = (batch_tensor_on(torch.cat(each), self.samples.device) for each in (at, tokens))

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        self.samples[self._here, site.layer] = activation.index_select(0, self._tokens).float()

    def end(self) -> None:
        pass

    def merge(self) -> None:
        parallel.add_up(self.samples)


def rewards_at(model: HookedRewardModel, residual: Float[Tensor, "token d_model"]) -> Float[Tensor, " token"]:
    """The reward head, read from the residual stream at some tokens, float64 (float32 where the device has none).

    Not as a matrix product, whose rounding depends on the batch: transcripts that end with the same token tie before the first layer.
    """
    return (wide(model.ln_final(residual[None])[0]) * wide(model.reward_direction)).sum(1) + wide(reward_bias(model))


def final_rewards(
    model: HookedRewardModel, residual: Float[Tensor, "token d_model"], batch: Batch, at_end: Int[Tensor, " row"]
) -> Float[Tensor, " row"]:
    """The reward of each transcript of a batch, from the last residual stream at all of its tokens: `rewards_at` the transcript's end, or
    what the head itself gives where the reward is along no single direction.

    Args:
        residual: in the order of `flat`.
    """
    if has_direction(model):
        return rewards_at(model, residual.index_select(0, at_end))
    whole = residual[None]
    if isinstance(batch, TokenBatch):
        whole = residual.new_zeros(*batch.tokens.shape, residual.shape[1])
        whole[batch.attention_mask] = residual
    return wide(model(whole, attention_mask=mask_of(batch), start_at_layer=model.cfg.n_layers, tokens=batch.tokens))


def has_direction(model: HookedRewardModel) -> bool:
    """Whether the reward is along a single direction of the residual stream."""
    try:
        check_direction(model)
    except InputError:
        return False
    return True


def side_weights(encoded: EncodedPairs, batch: Batch) -> Float[Tensor, "objective side token"]:
    """For each token of a batch: in how many chosen (0) and rejected (1) transcripts of each objective's pairs it occurs."""
    weight = encoded.sides.to(batch.row.device)[:, :, batch.row]
    return batch.occurrences(weight.flatten(0, 1)).unflatten(0, weight.shape[:2])


def meant_places(encoded: EncodedPairs, batch: Batch, rows: Sequence[int], where: Where) -> list[Int[Tensor, " token"]]:
    """For each transcript of a batch, whose rows these are, where its tokens that are meant are in the order of `flat`; on the CPU."""
    check_where(where)
    start = {"readout": -1, "all": 0}
    return [places_in(spans)[start.get(where, encoded.rows[row].response_start) :] for row, spans in zip(rows, batch.spans, strict=True)]


def averages_over(places: Sequence[Tensor], batch: Batch) -> Float[Tensor, "row token"]:
    """For each transcript of a batch, the weights of tokens whose sum is the mean over some places in it, on the batch's device."""
    lengths = torch.tensor([len(each) for each in places])
    row, token, share = (
        batch_tensor_on(each, batch.row.device)
        for each in (
            torch.arange(len(places)).repeat_interleave(lengths),
            torch.cat([*places]),
            (1 / lengths.double()).float().repeat_interleave(lengths),
        )
    )
    tokens = sum(batch.lengths) if isinstance(batch, TokenBatch) else batch.tokens.shape[1]
    return torch.zeros(len(places), tokens, device=batch.row.device).index_put_((row, token), share)


def _embedded(model: HookedRewardModel, batch: Batch) -> Float[Tensor, "batch pos d_model"]:
    return model(batch.tokens, None, attention_mask=mask_of(batch), stop_at_layer=0)


def _keep(kept: dict[str, Tensor]) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation.clone()  # an edit in place further on must not reach it

    return fn


def _feed(site: Site, consumer: Consumer, batch: Batch, kept: dict[str, Tensor], look: Look) -> Any:
    def fn(activation: Tensor, hook: Any) -> None:
        tokens = batch.flat(activation)
        look(hook.name, tokens)
        other = kept.get(hook.name)
        consumer.layer(site, tokens, batch.flat(other) if other is not None else None)

    return fn


def _refuse_late(hooks: Hooks, n_layers: int) -> None:
    late = [name for name, _ in hooks if layer_of(name, n_layers) == n_layers]
    if late:
        raise InputError(f"an edit at {late[0]}, past the last layer, is for scores; this reads the reward from the residual stream itself")


@contextmanager
def finite_only(batch: Batch, encoded: EncodedPairs) -> Iterator[Look]:
    """Takes what is seen at each site of a batch, and says no at the end to what is not finite: the device is asked once a batch.

    Raises:
        InputError: naming the first site, in the order of looks, that has such a value, and the pairs. It goes before any other error,
            which may come of such a value.
    """
    seen: list[tuple[str, Bool[Tensor, " token"]]] = []

    def look(name: str, tokens: Float[Tensor, "token ..."]) -> None:
        # On a CPU one pass over memory, where a closer look takes several; a sum may overflow.
        if tokens.device.type != "cpu" or not tokens.sum(dtype=torch.float32).isfinite():
            seen.append((name, torch.linalg.vector_norm(tokens.detach().flatten(1), torch.inf, dim=1).isfinite()))

    try:
        yield look
    except Exception as error:
        if found := _not_finite(seen, batch, encoded):
            raise InputError(found) from error
        raise
    if found := _not_finite(seen, batch, encoded):
        raise InputError(found)


def _not_finite(seen: Sequence[tuple[str, Bool[Tensor, " token"]]], batch: Batch, encoded: EncodedPairs) -> str:
    good = torch.stack([tokens for _, tokens in seen]) if seen else None
    if good is None or good.all():
        return ""
    name, tokens = next((name, tokens) for name, tokens in zip((name for name, _ in seen), good.cpu(), strict=True) if not tokens.all())
    rows = [row for row, spans in zip(batch.row.tolist(), batch.spans, strict=True) if not tokens[places_in(spans)].all()]
    return f"{name} is not finite for {pairs_of(encoded, rows)}"


def _all_per_token(options: RunOptions) -> bool:
    """Raises InputError where an intervention patches between the transcripts of a pair: its batches are made for scores alone."""
    traits = [traits_of(each) for each in interventions_of(options)]
    if any(each.paired for each in traits):
        raise InputError(
            "an intervention that patches within a pair is for scores and sweeps; statistics and gradients are of one transcript"
        )
    return all(each.per_token for each in traits)
