"""What an intervention is: data that turns into hooks, a batch at a time."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from tl_reward.data.batches.packing import PackedBatch
from tl_reward.data.batches.padding import TokenBatch
from tl_reward.errors import InputError
from tl_reward.interventions.user_code import guarded, is_ours, raised_at
from tl_reward.neurons import NeuronSet

HookFunction = Callable[..., Tensor | None]


Hooks = list[tuple[str, HookFunction]]


@runtime_checkable
class Intervention(Protocol):
    """An edit of a forward pass. `scoring.score` asks it for the hooks of each batch, attaches them, and takes them off again.

    A hook is a pair of a hook point's name and `fn(activation, hook)`, which returns the new activation, as in TransformerLens.
    Interventions combine by listing them: hooks at the same place run in that order.

    An intervention may state `per_token = True`: what it does to a token depends on that token alone (its activations, its id, its place in
    the transcript), not on the other tokens or on which transcript it is in. Then transcripts that share a prefix share its computation,
    and its hooks get a `PackedBatch`: one row of tokens, without padding, [copies, token, …]. Without that promise, hooks get one
    transcript a row. `Traits` is all that an intervention may state of itself.

    An edit must be a function of what it sees: one that draws at random has to draw the same for the same token (`ResampleAblation` does).

    Which tokens a batch has in readout, response or all is `batch.at(where)`; no token has two roles, so an edit of some tokens alone may
    still state `per_token`.
    """

    def hooks(self, batch: TokenBatch | PackedBatch) -> Hooks: ...


_NEARLY = 0.87  # difflib's similarity: "per_tok" is 0.875 like "per_token"; "unpaired" is 0.86 like "paired", but a word of its own

# What is done to a set of neurons.
Edit = Callable[[NeuronSet], Intervention]


class Traits(NamedTuple):
    """What an intervention may state of itself, as an attribute of that name; False where it states nothing.

    Attributes:
        per_token: see `Intervention`.
        paired: it patches between the transcripts of a pair, which then have to be in one batch.
    """

    per_token: bool = False
    paired: bool = False


def traits_of(intervention: Any) -> Traits:
    """The only reader of these attributes.

    Raises:
        InputError: a trait that is neither True nor False; a public attribute whose name is nearly that of a trait, which it would leave
            unstated.
    """
    kind = type(intervention).__name__
    stated = {name: getattr(intervention, name) for name in Traits._fields if hasattr(intervention, name)}
    for name, value in stated.items():
        if not isinstance(value, bool):
            raise InputError(f"{kind}.{name} must be True or False, got {value!r}")
    missing = [name for name in Traits._fields if name not in stated]
    for name in dir(intervention):
        if name in missing:
            getattr(intervention, name)  # a property that fails: its own error says why
        near = difflib.get_close_matches(name.lower(), missing, n=1, cutoff=_NEARLY) if not name.startswith("_") else []
        if near:
            raise InputError(f"{kind} has {name!r}, which states nothing; it should be {near[0]!r}, or have a name less like it")
    return Traits(**stated)


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
