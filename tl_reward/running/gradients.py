"""Gradients of the margin at sites, batch by batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.encoding import EncodedPairs
from tl_reward.interventions.attaching import attached, edited
from tl_reward.model.layer_by_layer import mask_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import Look, _all_per_token, _keep, finite_only
from tl_reward.running.baselines import Baseline
from tl_reward.running.batches.batching import Grouping, Pairs, batches_for, encode_for, in_turn, interventions_of
from tl_reward.running.consumers import GradientConsumer, check_consumer
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site


class _Path(NamedTuple):
    """A step of integrated gradients: the clean activations, how far from the baseline to them it is, and the number of steps."""

    clean: dict[str, Tensor]
    share: float
    steps: int


@checked
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
    weights: Float[Tensor, " pair"] | None = None,
    progress: str | None = None,
    **options: Unpack[RunOptions],
) -> None:
    """The gradient of the weighted sum of all margins, at each site of each batch: a forward and a backward pass over every transcript.

    Activations and gradients are handed over as they come up and then let go: nothing is kept but what the backward pass needs itself.

    Args:
        steps: with a number, the gradient is the mean of as many on the straight path from the baseline to the activations, at all
            sites jointly (integrated gradients; Sundararajan et al. 2017), by the midpoint rule; as many forward and backward passes.
            The consumer is shown each site at each step, with the gradient divided by `steps`.
        baseline: what activations are compared with; None is 0.
        grouping: which rows may share tokens. By default all: then the gradient at a token that transcripts of several prompts share is
            the sum over these.
        weights: of the margins, one for each pair that is read; None is 1.

    Errors as in `stream`.
    """
    check_consumer(consumer)
    encoded = encode_for(model, pairs, gradients=True, **options)
    sign = sign_of_rows(encoded, weights).to(model.cfg.device)
    made = batches_for([model], encoded, options, shared=_all_per_token(options), gradients=True, grouping=grouping)
    with parallel.together():
        for batch in in_turn(made.batches, progress, model.cfg.device, times=steps or 1):
            with edited(model, batch, interventions_of(options)):
                with finite_only(batch, encoded) as look:
                    if baseline is not None:
                        baseline.begin(batch)
                    consumer.begin(batch)
                    clean: dict[str, Tensor] = {}
                    with torch.no_grad():
                        embedded = model(batch.tokens, None, attention_mask=mask_of(batch), stop_at_layer=0)
                        if steps is not None:
                            with attached(model, [(site.hook_name, _keep(clean)) for site in sites]):
                                model(embedded, None, attention_mask=mask_of(batch), start_at_layer=0)
                    for step in range(steps or 1):
                        path = _Path(clean, (step + 0.5) / steps, steps) if steps is not None else None
                        leaves = [embedded.detach().requires_grad_()]
                        hooks = [(site.hook_name, _feed_gradient(site, consumer, batch, look, baseline, path, leaves)) for site in sites]
                        with attached(model, hooks):
                            reward = model(leaves[0], attention_mask=mask_of(batch), start_at_layer=0, tokens=batch.tokens)
                            # Of these alone: weights that can be trained get no gradient.
                            (reward * sign.to(reward)[batch.row]).sum().backward(inputs=leaves)
                consumer.end()
    if parallel.count() > 1:
        consumer.merge()


def sign_of_rows(encoded: EncodedPairs, weights: Float[Tensor, " pair"] | None = None) -> Float[Tensor, " row"]:
    """How the sum of all margins depends on the reward of each row."""
    weights = torch.ones(len(encoded.pairs)) if weights is None else weights.float()
    chosen, rejected = (torch.tensor(side) for side in (encoded.chosen, encoded.rejected))
    return torch.zeros(len(encoded.rows)).index_add(0, chosen, weights).index_add(0, rejected, -weights)


def _feed_gradient(
    site: Site,
    consumer: GradientConsumer,
    batch: Batch,
    look: Look,
    baseline: Baseline | None,
    path: _Path | None,
    leaves: list[Tensor],
) -> Any:
    """`leaves` takes the activations that are set on a path."""

    def fn(activation: Tensor, hook: Any) -> Tensor | None:
        clean = (path.clean[hook.name] if path else activation).detach()
        excess = clean - baseline.at(site, clean) if baseline is not None else clean
        tokens = batch.flat(excess)
        look(hook.name, tokens)

        def gradient(value: Tensor) -> None:
            flat = batch.flat(value)
            look(f"gradient at {hook.name}", flat)
            consumer.layer(site, tokens, flat / (path.steps if path else 1))

        # On a path, a site's activations are set, whatever the layers below now give.
        seen = (clean - (1 - path.share) * excess).requires_grad_() if path else activation
        own = path is not None or not seen.requires_grad  # an edit may have set it to a constant
        if own:
            seen = seen.detach().requires_grad_()
            leaves.append(seen)
        seen.register_hook(gradient)
        return seen if own else None

    return fn
