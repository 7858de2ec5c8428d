"""What an intervention is: data that turns into hooks, a batch at a time."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from tl_reward.data.packing import PackedBatch
from tl_reward.data.padding import TokenBatch
from tl_reward.errors import InputError
from tl_reward.interventions.user_code import guarded, is_ours, raised_at
from tl_reward.neurons import NeuronSet

HookFunction = Callable[..., Tensor | None]


Hooks = list[tuple[str, HookFunction]]


@runtime_checkable
class Intervention(Protocol):
    """An edit of a forward pass. `run.score` asks it for the hooks of each batch, attaches them, and takes them off again.

    A hook is a pair of a hook point's name and `fn(activation, hook)`, which returns the new activation, as in TransformerLens.
    Interventions combine by listing them: hooks at the same place run in that order.

    An intervention may state `per_token = True`: what it does to a token depends on that token alone (its activations, its id, its place in
    the transcript), not on the other tokens or on which transcript it is in. Then transcripts that share a prefix share its computation,
    and its hooks get a `PackedBatch`: one row of tokens, without padding, [copies, token, …]. Without that promise, hooks get one
    transcript a row.

    An edit must be a function of what it sees: one that draws at random has to draw the same for the same token (`ResampleAblation` does).

    Which tokens a batch has in readout, response or all is `batch.at(where)`; no token has two roles, so an edit of some tokens alone may
    still state `per_token`.
    """

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks: ...


# What is done to a set of neurons.
Edit = Callable[[NeuronSet], Intervention]


def is_per_token(intervention: Any) -> bool:
    return getattr(intervention, "per_token", False)


def hooks_of(interventions: Sequence[Any], batch: TokenBatch | PackedBatch) -> Hooks:
    """The hooks of several interventions, in their order. One that fails says where, in an `InputError`."""
    return [pair for intervention in interventions for pair in _own_hooks(intervention, batch)]


def _own_hooks(intervention: Any, batch: TokenBatch | PackedBatch) -> Hooks:
    kind = type(intervention).__name__
    if not callable(getattr(intervention, "hooks", None)):
        raise InputError(f"an intervention must have hooks(batch), got {kind}; make one of a function with @tl_reward.intervention(site)")
    try:
        made = intervention.hooks(batch)
    except InputError:
        raise
    except Exception as error:
        place = raised_at(error, intervention.hooks)
        raise InputError(f"{kind}.hooks: {type(error).__name__} at {place}: {error}") from error
    if not isinstance(made, list):
        raise InputError(f"{kind}.hooks must give a list of pairs, of a hook point's name and a function, got {type(made).__name__}")
    for pair in made:
        if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str) or not callable(pair[1]):
            raise InputError(f"{kind}.hooks must give pairs of a hook point's name and a function, got {str(pair)[:60]}")
    return [(name, guarded(name, fn, copy=not is_ours(intervention))) for name, fn in made]
