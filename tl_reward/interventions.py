"""Edits of activations, as data that turns into hooks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.packing import PackedBatch
from tl_reward.sites import NeuronSet, Site, SiteKind, check_neuron_site
from tl_reward.tokens import TokenBatch

HookFunction = Callable[..., Tensor | None]
Hooks = list[tuple[str, HookFunction]]


@runtime_checkable
class Intervention(Protocol):
    """An edit of a forward pass. `run.score` asks it for the hooks of each batch, attaches them, and takes them off again.

    A hook is a pair of a hook point's name and `fn(activation, hook)`, which returns the new activation, as in TransformerLens.
    Interventions combine by listing them: hooks at the same place run in that order.

    An intervention may state `per_token = True`: what it does to a token depends on that token's activations alone, not on its place, its
    row or the other tokens. Then transcripts that share a prefix share its computation, and its hooks get a `PackedBatch`: one row of
    tokens, without padding, [copies, token, …]. Without that promise, hooks get one transcript a row.
    """

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks: ...


@dataclass(frozen=True)
class ZeroAblation:
    """Sets neurons to 0 at every position of every row.

    At "mlp_post" and at "mlp_gate" this is the same edit: the neuron stops writing to the residual stream. (A bias inside the MLP,
    which no supported gated architecture has, would make them differ.)
    """

    neurons: NeuronSet
    site: SiteKind = "mlp_post"
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_neuron_site(self.site)

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks:
        return [(Site(layer, self.site).hook_name, _zero(index)) for layer, index in self.neurons.by_layer().items()]


def _zero(index: Tensor) -> HookFunction:
    def fn(activation: Tensor, hook: Any) -> Tensor:
        if int(index.max()) >= activation.shape[-1]:
            raise InputError(f"neuron must be in [0, {activation.shape[-1]}), got {int(index.max())} at {hook.name}")
        # Not in place: another hook may hold on to the clean activation.
        return activation.index_fill(-1, index.to(activation.device), 0)

    return fn


def hooks_of(interventions: Sequence[Intervention], batch: TokenBatch | PackedBatch) -> Hooks:
    """The hooks of several interventions, in their order."""
    return [pair for intervention in interventions for pair in intervention.hooks(batch)]


def random_like(neurons: NeuronSet, d_mlp: int, *, draws: int, seed: int) -> list[NeuronSet]:
    """Layer-matched random sets, disjoint from `neurons`: the control of every ablation."""
    seeds = torch.randint(2**31, (draws,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [neurons.matched_random(d_mlp, seed=s) for s in seeds]
