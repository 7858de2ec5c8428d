"""How a model is run over pairs: the options that every function which does so takes, and the check of whatever it is called with."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, ParamSpec, TypedDict, TypeVar, get_args, get_type_hints

from tl_reward.arguments import check_argument
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import Overlong, PreferencePair
from tl_reward.data.readers import as_pairs
from tl_reward.devices import says_what_was_free
from tl_reward.errors import check_keywords
from tl_reward.interventions.protocol import Intervention
from tl_reward.interventions.user_code import watching
from tl_reward.model.heads.chosen import check_output
from tl_reward.model.heads.outputs import Output, read_by
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.sites import UNIT_SITES, unit_shape


class RunOptions(TypedDict, total=False):
    """How a model is run over pairs, for every function that does.

    Attributes:
        interventions: edits of the model under study (`tl_reward.interventions`), in their order. Whatever is asked of the model is asked
            of the edited one: its scores, its statistics, its gradients; what a function edits besides comes after them.
        max_tokens: tokens a batch; a prefix that transcripts share counts once. Default: as many as run fastest and fit.
        max_memory_gb: memory that a batch may take besides the model's weights, in GiB. Default: half of what is free.
        max_length: longest transcript, in tokens. Default: the model's context, or what fits in memory where that does not (`reading` of a
            result says so where a pair was left out for it).
        overlong: what to do with longer ones; see `encoding.encode_pairs`.
        on_bad: "drop" leaves out pairs that the model's chat template refuses, and counts them; by default they are an error.
        output: which of its outputs is the reward of the model under study, for the length of the call: a name, an index, or weights over
            outputs, by name or one for each. Default: the model's own setting (`model.output`). Other models keep theirs.
    """

    interventions: Sequence[Intervention]
    max_tokens: int | None
    max_memory_gb: float | None
    max_length: int | None
    overlong: Overlong
    on_bad: Literal["error", "drop"]
    output: Output


P = ParamSpec("P")
T = TypeVar("T")


_HELPS = "a smaller max_tokens or max_memory_gb, a shorter max_length, or a model in bfloat16"


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with its arguments checked against its annotations: no keyword that it lacks gets in, nor anything of another kind.

    Every function with `**options: Unpack[RunOptions]` has it. Of its arguments, `pairs` may be pairs or rows, as
    `tl_reward.data.readers.as_pairs` takes them: the function gets a list of pairs.
    Of its options, `output` is no longer there: the model is read by it until the function returns.

    Raises (the function that is returned):
        UnknownOption: a keyword that neither the function nor its options have.
        InputError: no pair; an argument of another type, such as a path in the place of a model; a number outside its range; neurons that
            the model does not have, or that were found in a model of another shape; a head of several outputs, of which none is chosen.
        OutOfMemory: there was no room for a batch.
    """
    return _checked(function, of_rewards=True)


def checked_without_rewards(function: Callable[P, T]) -> Callable[P, T]:
    """As `checked`, for what reads activations alone: a head of several outputs, of which none is chosen, is no error."""
    return _checked(function, of_rewards=False)


def _checked(function: Callable[P, T], *, of_rewards: bool) -> Callable[P, T]:
    signature = inspect.signature(function)
    hints = {name: each.annotation for name, each in signature.parameters.items()}
    for each in signature.parameters.values():
        if each.kind is inspect.Parameter.VAR_KEYWORD:
            (options,) = get_args(hints.pop(each.name))
            hints |= get_type_hints(options)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        check_keywords(kwargs, hints, function.__name__)
        bound = signature.bind(*args, **kwargs)
        for name, value in {**bound.arguments, **bound.kwargs}.items():
            if name == "pairs":
                bound.arguments[name] = _as_pairs(value)
            elif name in hints:
                check_argument(name, value, hints[name])
        _check_sets(bound.arguments)
        output = bound.kwargs.get("output")
        bound.arguments.get("options", {}).pop("output", None)
        device = next((each.W_U.device for each in bound.arguments.values() if isinstance(each, HookedRewardModel)), "cpu")
        with watching(), says_what_was_free(function.__name__, device, helps=_HELPS), _read_by(bound.arguments, output, of_rewards):
            return function(*bound.args, **bound.kwargs)

    return call


@contextmanager
def _read_by(given: Mapping[str, Any], output: Output, of_rewards: bool) -> Iterator[None]:
    """Within it, `output` is the reward of the model under study. Raises InputError where the model has no such output, or has several of
    which none is chosen, and the function is of rewards."""
    model = given.get("model")
    if not isinstance(model, HookedRewardModel):
        yield
        return
    with read_by(model, output):
        if of_rewards:
            check_output(model)
        yield


def _check_sets(given: Mapping[str, Any]) -> None:
    """Raises InputError where neurons to edit or to look at are not those of the model, before anything runs."""
    model, site = given.get("model"), given.get("site")
    if model is None:
        return
    edits = [*given.get("options", {}).get("interventions", ()), *(each for condition in given.get("conditions", ()) for each in condition)]
    held = [(getattr(each, "neurons", None), getattr(each, "site", None)) for each in edits]
    sets = given.get("sets")
    held += [(each, site or "mlp_post") for each in (given.get("neurons"), *(sets.values() if isinstance(sets, Mapping) else ()))]
    for neurons, at in held:
        if isinstance(neurons, NeuronSet) and at in UNIT_SITES:
            neurons.check_fits(*unit_shape(model.cfg, at))


def _as_pairs(given: Any) -> list[PreferencePair] | EncodedPairs:
    """Pairs, or rows of which pairs are made. Raises InputError as `as_pairs`."""
    return given if isinstance(given, EncodedPairs) else as_pairs(given)
