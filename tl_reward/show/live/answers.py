"""What one request of the live page computes: the rewards of a pair that was typed in, clean and edited, and the neurons behind them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward.analyses.attribution import attribute
from tl_reward.data.batches.packing import Batch
from tl_reward.data.encoding import EncodedPairs, encode
from tl_reward.data.pairs import pairs_of_row
from tl_reward.data.reading import Reading
from tl_reward.data.text import token_texts
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import MeanAblation, ScaleAblation, ZeroAblation
from tl_reward.interventions.patches import Patch, Source
from tl_reward.interventions.protocol import Hooks, Intervention
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.running.batches.batching import tokenizer_of
from tl_reward.running.scoring import sweep
from tl_reward.sites import Site, unit_shape

EditKind = Literal["zero", "mean", "scale", "patch"]
MAX_TOKENS = 1024  # of a transcript: an answer should come while one waits


class Cancelled(BaseException):
    """Nobody waits for the answer any more. No `Exception`: `user_code` makes an `InputError` of each that a hook raises."""


@dataclass(frozen=True)
class LiveEdit:
    """What is done to neurons at "mlp_post", at every token of both transcripts.

    Attributes:
        kind: "zero"; "mean", each neuron's mean in the run; "scale", `factor` times what it is; "patch", what it is in the pair's other
            transcript, whose tokens are aligned from the read-out back.
    """

    neurons: NeuronSet
    kind: EditKind
    factor: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(EditKind):
            raise InputError(f"the kind of an edit must be one of {', '.join(get_args(EditKind))}, got {self.kind!r}")
        if not math.isfinite(self.factor):
            raise InputError(f"factor must be finite, got {self.factor}")


@dataclass(frozen=True)
class LiveRequest:
    """A pair as it was typed in, and what to do to the model.

    Attributes:
        prompt: one user turn, or turns opened by "\\n\\nHuman:" and "\\n\\nAssistant:".
        neuron: the (layer, neuron) to read at every token.
        top: how many neurons to name, those with the largest effects; 0 saves the backward pass.
    """

    prompt: str
    chosen: str
    rejected: str
    edits: tuple[LiveEdit, ...] = ()
    neuron: tuple[int, int] | None = None
    top: int = 20


@dataclass(frozen=True)
class LiveRewards:
    """In raw reward units; the margin is chosen minus rejected."""

    chosen: float
    rejected: float
    margin: float


@dataclass(frozen=True)
class LiveTranscript:
    """A transcript as the model reads it: `response_start` is its first token of the response. `clean` and `edited` are what the neuron
    that was asked for is at each token; None where none was, or nothing was edited."""

    tokens: tuple[str, ...]
    response_start: int
    clean: tuple[float, ...] | None
    edited: tuple[float, ...] | None


@dataclass(frozen=True)
class TopNeuron:
    """A neuron of the clean model.

    Attributes:
        effect: gradient attribution to this pair's margin, in raw reward units; positive: zeroing the neuron would *lower* the margin.
        peak: its activation of the largest size, with its sign, over the tokens of both transcripts.
    """

    layer: int
    neuron: int
    effect: float
    peak: float


@dataclass(frozen=True)
class LiveAnswer:
    """`edited` is None where there was no edit. `top` begins with the largest effect in size."""

    clean: LiveRewards
    edited: LiveRewards | None
    chosen: LiveTranscript
    rejected: LiveTranscript
    top: tuple[TopNeuron, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Stop:
    """Changes nothing, and raises `Cancelled` before the next layer, forward or backward, once the work is cancelled."""

    n_layers: int
    cancelled: Callable[[], bool]
    per_token: ClassVar[bool] = True

    def hooks(self, batch: Batch) -> Hooks:
        def check(gradient: Tensor | None = None) -> None:
            if self.cancelled():
                raise Cancelled

        def look(activation: Tensor, hook: Any) -> None:
            check()
            if activation.requires_grad:
                activation.register_hook(check)

        return [(Site(layer, "resid_pre").hook_name, look) for layer in range(self.n_layers)]


@dataclass(frozen=True, eq=False)
class _Look:
    """Changes nothing, and hands over neurons' activations: `see(layer, activations, batch)`."""

    layers: Sequence[int]
    see: Callable[[int, Float[Tensor, "token neuron"], Batch], None]
    per_token: ClassVar[bool] = True

    def hooks(self, batch: Batch) -> Hooks:
        def at(layer: int) -> Any:
            return lambda activation, hook: self.see(layer, batch.flat(activation.detach()), batch)

        return [(Site(layer, "mlp_post").hook_name, at(layer)) for layer in self.layers]


def compute(
    model: HookedRewardModel,
    request: LiveRequest,
    *,
    mean: Float[Tensor, "layer neuron"] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> LiveAnswer:
    """The answer to a request. It leaves no hook on the model, however it ends.

    Args:
        mean: each neuron's mean at "mlp_post", for edits of the kind "mean".
        cancelled: asked before every layer.

    Raises:
        InputError: an empty or an over-long side, two equal ones, a neuron that the model does not have, a mean that the run does not have.
        Cancelled: `cancelled()` was true.
    """
    shape = unit_shape(model.cfg, "mlp_post")
    if not 0 <= request.top <= math.prod(shape):
        raise InputError(f"top must be in [0, {math.prod(shape)}], got {request.top}")
    edits = _interventions(model, request.edits, mean)
    encoded = _encoded(model, request)
    tokenizer = tokenizer_of(model)
    stop = _Stop(model.cfg.n_layers, cancelled)
    read: list[dict[int, tuple[float, ...]]] = [{}, {}]  # clean and edited, by row
    looks: list[list[_Look]] = [[], []]
    if request.neuron is not None:
        NeuronSet([request.neuron]).check_fits(*shape)
        looks = [[_read_neuron(*request.neuron, kept)] for kept in read]
    # The look comes after the edits, so that it sees what they leave.
    conditions = [looks[0], [*edits, *looks[1]]] if edits else [looks[0]]
    scores = sweep(model, encoded, conditions, interventions=[stop])
    rewards = [LiveRewards(*(float(side[0]) for side in (each.chosen, each.rejected, each.margin))) for each in scores]
    transcripts = [
        LiveTranscript(tuple(token_texts(row.ids, tokenizer)), row.response_start, *(kept.get(i) for kept in read))
        for i, row in enumerate(encoded.rows)
    ]
    top = _top(model, encoded, request.top, stop) if request.top else ()
    return LiveAnswer(rewards[0], rewards[1] if edits else None, transcripts[0], transcripts[1], top)


def _encoded(model: HookedRewardModel, request: LiveRequest) -> EncodedPairs:
    """One pair, whose row 0 is the chosen transcript, and row 1 the rejected one."""
    (pair,) = pairs_of_row({"prompt": request.prompt, "chosen": request.chosen, "rejected": request.rejected}, "live")
    rows = encode([pair.chosen, pair.rejected], tokenizer_of(model), unread=model.unread_token, end=model.end)
    limit = min(MAX_TOKENS, model.cfg.n_ctx)
    for side, row in zip(("chosen", "rejected"), rows, strict=True):
        if len(row.ids) > limit:
            raise InputError(f"the {side} transcript has {len(row.ids)} tokens, its prompt included; at most {limit} are allowed")
    return EncodedPairs((pair,), tuple(rows), (0,), (1,), Reading(1))


def _interventions(model: HookedRewardModel, edits: Sequence[LiveEdit], mean: Tensor | None) -> list[Intervention]:
    source, made = Source(model), []
    for edit in edits:
        edit.neurons.check_fits(*unit_shape(model.cfg, "mlp_post"))
        if edit.kind == "zero":
            made.append(ZeroAblation(edit.neurons))
        elif edit.kind == "scale":
            made.append(ScaleAblation(edit.neurons, edit.factor))
        elif edit.kind == "patch":
            made.append(Patch(source, edit.neurons, within_pair=True))
        elif mean is not None:
            made.append(MeanAblation(edit.neurons, mean))
        else:
            raise InputError(
                "this run has no means of this model's neurons; tl-reward discover MODEL --out RUN finds them, serve that RUN too"
            )
    return made


def _read_neuron(layer: int, neuron: int, kept: dict[int, tuple[float, ...]]) -> _Look:
    """Keeps what a neuron is at every token, by row."""

    def see(_: int, activations: Tensor, batch: Batch) -> None:
        for i, row in enumerate(batch.row.tolist()):
            kept[row] = tuple(activations[batch.places(i), neuron].tolist())

    return _Look([layer], see)


def _top(model: HookedRewardModel, encoded: EncodedPairs, count: int, stop: _Stop) -> tuple[TopNeuron, ...]:
    # Peaks come out of the forward pass that the attribution makes anyway.
    peak = torch.zeros(unit_shape(model.cfg, "mlp_post"))

    def see(layer: int, activations: Tensor, batch: Batch) -> None:
        # Several batches, where memory is short: the larger one stays.
        seen = torch.cat([activations.float().cpu(), peak[layer][None]])
        peak[layer] = seen.gather(0, seen.abs().argmax(0, keepdim=True))[0]

    effect = attribute(model, encoded, interventions=[stop, _Look(range(model.cfg.n_layers), see)]).effect
    places = sorted(NeuronSet.top(effect.abs(), k=count), key=lambda place: -abs(float(effect[place])))
    return tuple(TopNeuron(*place, float(effect[place]), float(peak[place])) for place in places)
