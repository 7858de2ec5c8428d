"""Patches: activations of one run in the place of another's, between the transcripts of a pair or between reward models.

Each is an intervention, so that it scores, sweeps and combines like any other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.arguments import check_argument, check_fields
from tl_reward.data.alignment import partners
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on, places_in
from tl_reward.errors import InputError
from tl_reward.interventions.ablations import edits
from tl_reward.interventions.attaching import attached, check_hook_point
from tl_reward.interventions.protocol import Hooks
from tl_reward.model.heads.chosen import check_direction
from tl_reward.model.heads.outputs import reward_of
from tl_reward.model.layer_by_layer import check_comparable, mask_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.sites import Site, UnitSite, Where, check_where, layer_of, unit_shape

Places = NeuronSet | Sequence[Site | str]


@dataclass(eq=False)
class Source:
    """What a model computes on the batches that are patched: kept for one batch, at the places that were asked for.

    Patches that share a source share its runs: each says when it is made what it will need, so that one forward pass a batch is enough.
    A source runs under whatever edits its model has when a patch asks: those that come before the patch, in its list or in the options.
    """

    model: HookedRewardModel
    _names: dict[str, None] = field(default_factory=dict, init=False, repr=False)
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _state: tuple[Any, ...] = field(default=(), init=False, repr=False)
    _tokens: dict[Where | int, "PairTokens"] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_argument("model", self.model, HookedRewardModel)

    def expect(self, names: Sequence[str]) -> None:
        """Hook points that will be asked for. Raises InputError where the model lacks one."""
        for name in names:
            check_hook_point(self.model, name)
        self._names |= dict.fromkeys(names)

    @property
    def bytes_per_token(self) -> int:
        """What it keeps of each token of a batch, at the places that it expects."""
        cfg = self.model.cfg
        wide = max(cfg.d_model, cfg.n_heads * cfg.d_head)
        return sum(int(cfg.d_mlp or 0) if ".mlp." in name else wide for name in self._names) * torch.finfo(cfg.dtype).bits // 8

    def activations(self, batch: Batch, names: Sequence[str]) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """The activations of a batch at these hook points, and perhaps at others."""
        self.expect(names)
        edits_now = [handle.hook.id for point in self.model.hook_points() for handle in point.fwd_hooks]
        same = bool(self._state) and self._state[0] is batch and self._state[1] == edits_now
        if not same or not set(names) <= set(self._kept):
            if int(batch.tokens.max()) >= self.model.cfg.d_vocab:
                raise InputError(
                    "the source has a smaller vocabulary than the patched model; patch_between(model, other) says what differs"
                )
            n_layers = self.model.cfg.n_layers
            past_layers = any(layer_of(name, n_layers) == n_layers for name in self._names)
            kept: dict[str, Tensor] = {}

            def keep(activation: Tensor, hook: Any) -> None:
                kept[hook.name] = activation.detach().clone()  # an edit in place further on must not reach it

            with torch.no_grad(), attached(self.model, [(name, keep) for name in self._names]):
                self.model(batch.tokens, "logits" if past_layers else None, attention_mask=mask_of(batch))
            self._kept, self._state, self._tokens = kept, (batch, edits_now), {}
        return self._kept

    def within_pair(self, batch: Batch, where: Where | int) -> "PairTokens":
        """Which tokens of a batch, whose activations were asked for, stand for each other, and which of them are patched."""
        if where not in self._tokens:  # many patches of one batch ask
            self._tokens[where] = pair_tokens(batch, where)
        return self._tokens[where]


class PairTokens(NamedTuple):
    """For each token of a batch its counterpart in the other transcript of the pair, and whether a patch replaces it."""

    partner: Int[Tensor, " token"]
    patched: Bool[Tensor, "1 token"]


class Reading(NamedTuple):
    """What a patch sets, token by token of the batch: `value(hook name, units)`, and the tokens that it sets."""

    value: Callable[..., Float[Tensor, "batch pos ..."]]
    mask: Bool[Tensor, "batch pos"]


@dataclass(frozen=True, eq=False)
class Patch:
    """Replaces activations by what the source computes on the same tokens, or in the other transcript of the pair.

    With the model itself as source and `within_pair`, the chosen transcript's run is patched from the rejected one and the other way
    round, in one pass: of the resulting `Scores`, `chosen` are noised and `rejected` are denoised rewards. With another model as source,
    one model's activations run on in the other ("dynamic" patching): the source reads the whole transcript by itself.

    Attributes:
        places: neurons (or heads) at `site`, or whole sites and hook points, of shape [batch, pos, …].
        where: the tokens that are patched; a number is a place in the transcript, counted from its end where negative (-1: the read-out).
            Within a pair, tokens that have no counterpart (`alignment.align`) stay as they are.
    """

    source: Source
    places: Places
    site: UnitSite = "mlp_post"
    where: Where | int = "all"
    within_pair: bool = False
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_tokens(self.where, self.within_pair)
        if isinstance(self.places, NeuronSet):
            self.places.check_fits(*unit_shape(self.source.model.cfg, self.site))
        else:
            late = [name for name in map(name_of, self.places) if name.startswith("hook_reward")]
            if late:
                raise InputError(f"{late[0]} cannot be patched: it holds rewards, not activations of tokens")
        self.source.expect(self._names())

    def _names(self) -> list[str]:
        if isinstance(self.places, NeuronSet):
            return [Site(layer, self.site).hook_name for layer in self.places.by_layer()]
        return list(map(name_of, self.places))

    @property
    def paired(self) -> bool:
        """Whether both transcripts of a pair have to be in one batch."""
        return self.within_pair

    def hooks(self, batch: Batch) -> Hooks:
        names = self._names()
        if not names:
            return []
        value, mask = read_source(self.source, names, batch, self.where, self.within_pair)
        if not isinstance(self.places, NeuronSet):

            def replace(activation: Tensor, hook: Any) -> Tensor:
                return torch.where(spread(mask, activation), value(hook.name).to(activation), activation)

            return [(name, replace) for name in names]
        index = self.places.by_layer(batch.tokens.device)

        def take(values: Tensor, layer: int) -> Tensor:
            return torch.where(spread(mask, values), value(Site(layer, self.site).hook_name, index[layer]).to(values), values)

        return edits(self.places, self.site, take)


@dataclass(frozen=True, eq=False)
class HeadPatch:
    """Reads the reward with another model's head, from the same residual stream: reward direction and bias are the other's.

    Of several outputs of that head it takes the one that the other model is read by, its `output`. What the patched model's own outputs
    are ("logits") stays; its rewards are the other's. `Scores.output` still names the output that the patched model is set to, which has no
    part in these rewards.
    """

    source: HookedRewardModel
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_folded(self.source)
        check_direction(self.source)

    def hooks(self, batch: Batch) -> Hooks:
        seen: dict[str, Tensor] = {}

        def look(residual: Tensor, hook: Any) -> None:
            seen["residual"] = residual

        def head(rewards: Tensor, hook: Any) -> Tensor:
            weight, bias = self.source.W_U.to(rewards), self.source.b_U.to(rewards)
            return reward_of(seen.pop("residual").to(rewards) @ weight + bias, self.source.output, self.source.outputs)

        return [("unembed.hook_in", look), ("hook_reward_tokens", head)]


def patch_between(model: HookedRewardModel, other: HookedRewardModel) -> Source:
    """Another model as the source of patches. Raises InputError where the two differ in shape, tokenizer or fold, or are one."""
    check_argument("model", model, HookedRewardModel)
    check_argument("other", other, HookedRewardModel)
    if model is other:
        raise InputError("a patch between models needs two, got one twice; Source(model) is for patches within a pair")
    check_comparable(model, other)
    check_folded(model)
    check_folded(other)
    return Source(other)


def check_folded(model: HookedRewardModel) -> None:
    if not (getattr(model.ln_final, "w", torch.ones(1)) == 1).all():
        raise InputError(f"the final norm of {model.cfg.model_name} is not folded into its head; load it with tl_reward.load")


def check_tokens(where: Where | int, within_pair: bool) -> None:
    if isinstance(where, str):
        check_where(where)
    elif not within_pair:
        raise InputError(f"a place in the transcript is for patches within a pair; where must be readout, response or all, got {where}")


def read_source(source: Source, names: Sequence[str], batch: Batch, where: Where | int, within_pair: bool) -> Reading:
    """The source's activations at some hook points, and the tokens of the batch that they are for."""
    kept = source.activations(batch, names)
    tokens = source.within_pair(batch, where) if within_pair else None

    def value(name: str, units: Int[Tensor, " unit"] | None = None) -> Tensor:
        found = kept[name] if units is None else kept[name].index_select(2, units)
        return found if tokens is None else found[:, tokens.partner]

    if tokens is not None:
        return Reading(value, tokens.patched)
    assert isinstance(where, str)
    return Reading(value, batch.at(where))


def pair_tokens(batch: Batch, where: Where | int) -> PairTokens:
    """See `PairTokens`; replaced are the tokens of `where` that have a counterpart after the shared prefix."""
    partner = partners(batch)
    if isinstance(where, str):
        mask = batch.at(where)
    else:
        mask = torch.zeros(batch.tokens.shape, dtype=torch.bool)
        for places in map(places_in, batch.spans):
            if not -len(places) <= where < len(places):
                raise InputError(f"where must be in [-{len(places)}, {len(places)}), a transcript's places, got {where}")
            mask[0, places[where]] = True
        mask = batch_tensor_on(mask, batch.tokens.device)
    return PairTokens(partner, mask & (partner != torch.arange(len(partner), device=partner.device)))


def name_of(place: Site | str) -> str:
    return place.hook_name if isinstance(place, Site) else place


def spread(mask: Bool[Tensor, "batch pos"], values: Tensor) -> Bool[Tensor, "batch pos ..."]:
    return mask.view(*mask.shape, *[1] * (values.ndim - 2))
