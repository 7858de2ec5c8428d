"""Patches: activations of one run in the place of another's, between the transcripts of a pair or between reward models.

Each is an intervention, so that it scores, sweeps and combines like any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tl_reward.alignment import partners
from tl_reward.errors import InputError
from tl_reward.interventions import Hooks, edits
from tl_reward.layers import output_norms
from tl_reward.model import HookedRewardModel
from tl_reward.run import Batch, attached, check_comparable, mask_of, run_layers
from tl_reward.sites import NeuronSet, Site, UnitSite, Where, check_unit_site, check_where, layer_of

Places = NeuronSet | Sequence[Site | str]


@dataclass(eq=False)
class Source:
    """What a model computes on the batches that are patched: kept for one batch, at the places that were asked for.

    Patches that share a source share its runs: each says when it is made what it will need, so that one forward pass a batch is enough.
    """

    model: HookedRewardModel
    _names: dict[str, None] = field(default_factory=dict, repr=False)
    _kept: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _batch: Batch | None = field(default=None, repr=False)
    _tokens: dict[Where | int, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def expect(self, names: Sequence[str]) -> None:
        """Hook points that will be asked for."""
        self._names |= dict.fromkeys(names)

    def activations(self, batch: Batch, names: Sequence[str]) -> dict[str, Float[Tensor, "batch pos ..."]]:
        """The activations of a batch at these hook points, and perhaps at others."""
        self.expect(names)
        if self._batch is not batch or not set(names) <= set(self._kept):
            past_layers = any(layer_of(name, self.model.cfg.n_layers) == self.model.cfg.n_layers for name in self._names)
            kept: dict[str, Tensor] = {}

            def keep(activation: Tensor, hook: Any) -> None:
                kept[hook.name] = activation.detach()

            with torch.no_grad(), attached(self.model, [(name, keep) for name in self._names]):
                self.model(batch.tokens, "reward" if past_layers else None, attention_mask=mask_of(batch))
            self._batch, self._kept, self._tokens = batch, kept, {}
        return self._kept

    def within_pair(self, batch: Batch, where: Where | int) -> "PairTokens":
        """Which tokens of a batch, whose activations were asked for, stand for each other, and which of them are patched."""
        if where not in self._tokens:  # many patches of one batch ask
            self._tokens[where] = partners(batch), patched_tokens(batch, where, within_pair=True)
        return PairTokens(*self._tokens[where])


class PairTokens(NamedTuple):
    partner: Int[Tensor, " token"]
    patched: Bool[Tensor, "1 token"]


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
        check_unit_site(self.site)
        if isinstance(self.where, str):
            check_where(self.where)
        elif not self.within_pair:
            raise InputError(
                f"a place in the transcript is for patches within a pair; where must be readout, response or all, got {self.where}"
            )
        if not isinstance(self.places, NeuronSet):
            late = [name for name in map(_name, self.places) if name.startswith("hook_reward")]
            if late:
                raise InputError(f"{late[0]} cannot be patched: it holds rewards, not activations of tokens")
        self.source.expect(self._names())

    def _names(self) -> list[str]:
        if isinstance(self.places, NeuronSet):
            return [Site(layer, self.site).hook_name for layer in self.places.by_layer()]
        return list(map(_name, self.places))

    @property
    def paired(self) -> bool:
        """Whether both transcripts of a pair have to be in one batch."""
        return self.within_pair

    def hooks(self, batch: Batch) -> Hooks:
        names = self._names()
        if not names:
            return []
        source, mask = _read(self.source, names, batch, self.where, self.within_pair)
        if not isinstance(self.places, NeuronSet):
            return [(name, _replace(source[name], mask)) for name in names]
        index = self.places.by_layer()

        def take(values: Tensor, layer: int) -> Tensor:
            here = index[layer].to(values.device)
            new = source[Site(layer, self.site).hook_name].index_select(2, here).to(values)
            return torch.where(_spread(mask, values), new, values)

        return edits(self.places, self.site, take)


@dataclass(frozen=True, eq=False)
class HeadPatch:
    """Reads the reward with another model's head. (Reads the same residual stream: only the reward direction and bias are its own.)"""

    source: HookedRewardModel
    per_token: ClassVar[bool] = True

    def hooks(self, batch: Batch) -> Hooks:
        seen: dict[str, Tensor] = {}

        def look(residual: Tensor, hook: Any) -> None:
            seen["residual"] = residual

        def read(logits: Tensor, hook: Any) -> Tensor:
            head = self.source.unembed
            return (seen.pop("residual").float() @ head.W_U.float() + head.b_U.float()).to(logits)

        return [("unembed.hook_in", look), ("unembed.hook_out", read)]


@dataclass(frozen=True, eq=False)
class PathPatch:
    """Patches one path alone: what a component writes reaches the reward head directly, or through one later layer, and nothing else.

    Everything off the path keeps its clean activations (path patching; Goldowsky-Dill et al. 2023, Wang et al. 2022). Exact: the final
    norm, and the layer on the path, are run again.

    Attributes:
        source: what the component is replaced by.
        clean: the patched model's own, unedited run.
        sender: the component: a site "attn_out" or "mlp_out", or neurons (or heads) of one layer at `site`.
        through: the later layer on the path; None is the direct path.
        where, within_pair: as in `Patch`.
    """

    source: Source
    clean: Source
    sender: Site | NeuronSet
    through: int | None = None
    site: UnitSite = "mlp_post"
    where: Where | int = "all"
    within_pair: bool = False
    per_token: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_unit_site(self.site)
        cfg, layer = self.clean.model.cfg, self.layer
        if not 0 <= layer < cfg.n_layers:
            raise InputError(f"layer must be in [0, {cfg.n_layers}), got {layer}")
        if isinstance(self.sender, Site) and self.sender.kind not in ("attn_out", "mlp_out"):
            raise InputError(f"the sender of a path must be attn_out, mlp_out or neurons of one layer, got {self.sender.kind!r}")
        if self.through is not None and not layer < self.through < cfg.n_layers:
            raise InputError(f"a path from layer {layer} must go through a layer in [{layer + 1}, {cfg.n_layers}), got {self.through}")
        if self.site == "mlp_gate":
            raise InputError("the sender of a path writes what is at mlp_post or attn_z; mlp_gate is multiplied by the linear part first")
        norms = output_norms(self.clean.model.blocks[layer])
        if isinstance(self.sender, NeuronSet) and (norms.attention or norms.mlp) is not None:
            raise InputError("neurons and heads send no path of their own where a norm follows them; patch attn_out or mlp_out")
        self.source.expect([self._at().hook_name])
        self.clean.expect([self._at().hook_name, self._end(), *self._on_path()])

    def _at(self) -> Site:
        return self.sender if isinstance(self.sender, Site) else Site(self.layer, self.site)

    def _end(self) -> str:
        return Site(self.clean.model.cfg.n_layers - 1, "resid_post").hook_name

    def _on_path(self) -> list[str]:
        return [] if self.through is None else [Site(self.through, kind).hook_name for kind in ("resid_pre", "resid_post")]

    @property
    def layer(self) -> int:
        """The sender's layer."""
        if isinstance(self.sender, Site):
            return self.sender.layer
        layers = list(self.sender.by_layer())
        if len(layers) != 1:
            raise InputError(f"the sender of a path must be in one layer, got neurons of {len(layers)}")
        return layers[0]

    @property
    def paired(self) -> bool:
        return self.within_pair

    def hooks(self, batch: Batch) -> Hooks:
        at, end, on_path = self._at(), self._end(), self._on_path()
        clean = self.clean.activations(batch, [at.hook_name, end, *on_path])
        source, mask = _read(self.source, [at.hook_name], batch, self.where, self.within_pair)
        change = self._written(source[at.hook_name].to(clean[at.hook_name]) - clean[at.hook_name], at)
        change = change * _spread(mask, change)
        if self.through is not None:
            before, after = (clean[name] for name in on_path)
            # What the layer itself writes differently: not what goes past it.
            change = run_layers(self.clean.model, before + change, batch, self.through, self.through + 1) - after - change
        final = clean[end] + change
        return [(end, lambda residual, hook: final.expand_as(residual))]

    def _written(self, change: Tensor, at: Site) -> Float[Tensor, "batch pos d_model"]:
        """What a change of the component's activations changes in the residual stream."""
        if isinstance(self.sender, Site):
            return change
        (index,) = self.sender.by_layer().values()
        block: Any = self.clean.model.blocks[at.layer]
        weight = block.attn.W_O if self.site == "attn_z" else block.mlp.W_out
        here = index.to(change.device)
        return change.index_select(2, here).flatten(2) @ weight[here].flatten(0, -2).to(change)


def patch_between(model: HookedRewardModel, other: HookedRewardModel) -> Source:
    """Another model as the source of patches. Raises InputError where the two differ in shape, tokenizer or fold."""
    check_comparable(model, other)
    for each in (model, other):
        if not (getattr(each.ln_final, "w", torch.ones(1)) == 1).all():
            raise InputError(f"the final norm of {each.cfg.model_name} is not folded into its head; load it with tl_reward.load")
    return Source(other)


def _name(place: Site | str) -> str:
    return place.hook_name if isinstance(place, Site) else place


class _Reading(NamedTuple):
    """What a patch sets, token by token of the batch, and which tokens it sets."""

    activations: dict[str, Tensor]
    mask: Bool[Tensor, "batch pos"]


def _read(source: Source, names: Sequence[str], batch: Batch, where: Where | int, within_pair: bool) -> _Reading:
    kept = source.activations(batch, names)
    if not within_pair:
        return _Reading(kept, patched_tokens(batch, where, within_pair=False))
    tokens = source.within_pair(batch, where)
    return _Reading({name: kept[name][:, tokens.partner] for name in names}, tokens.patched)


def patched_tokens(batch: Batch, where: Where | int, *, within_pair: bool) -> Bool[Tensor, "batch pos"]:
    """Which tokens of a batch a patch replaces; within a pair, those that have a counterpart after the shared prefix."""
    if isinstance(where, str):
        mask = batch.at(where)
    else:
        mask = torch.zeros_like(batch.at("all"))
        for i in range(len(batch.row)):
            places = batch.places(i)
            if not -len(places) <= where < len(places):
                raise InputError(f"where must be in [-{len(places)}, {len(places)}), a transcript's places, got {where}")
            mask[0, places[where]] = True
    if within_pair:
        partner = partners(batch)
        mask = mask & (partner != torch.arange(len(partner), device=partner.device))
    return mask


def _spread(mask: Bool[Tensor, "batch pos"], values: Tensor) -> Bool[Tensor, "batch pos ..."]:
    return mask.view(*mask.shape, *[1] * (values.ndim - 2))


def _replace(new: Tensor, mask: Bool[Tensor, "batch pos"]) -> Any:
    def fn(activation: Tensor, hook: Any) -> Tensor:
        return torch.where(_spread(mask, activation), new.to(activation), activation)

    return fn
