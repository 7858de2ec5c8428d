"""One path through the model, patched by itself: what a component writes reaches the reward head directly, or through one later layer."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from tl_reward.arguments import check_fields
from tl_reward.data.batches.packing import Batch
from tl_reward.errors import InputError
from tl_reward.interventions.patches import Source, check_tokens, read_source, spread
from tl_reward.interventions.protocol import Hooks
from tl_reward.model.layer_by_layer import run_layers
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.neurons import NeuronSet
from tl_reward.sites import Site, UnitSite, Where, unit_shape


@dataclass(frozen=True, eq=False)
class PathPatch:
    """Patches what a component writes along one path; everything off the path keeps what it has.

    This is path patching (Goldowsky-Dill et al. 2023; Wang et al. 2022), and exact: the final norm, and the layer on the path, are run
    again. Several paths add up their changes before the final norm.

    Attributes:
        model: the model that is patched.
        source: what the component is replaced by.
        sender: the component: a site "attn_out" or "mlp_out", or neurons (or heads) of one layer at `site`.
        through: the later layer on the path; None is the direct path.
        where, within_pair: as in `Patch`.
    """

    model: HookedRewardModel
    source: Source
    sender: Site | NeuronSet
    through: int | None = None
    site: UnitSite = "mlp_post"
    where: Where | int = "all"
    within_pair: bool = False
    per_token: ClassVar[bool] = True
    _clean: Source = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_fields(self)
        check_tokens(self.where, self.within_pair)
        cfg, at = self.model.cfg, self._at()
        if not 0 <= at.layer < cfg.n_layers:
            raise InputError(f"layer must be in [0, {cfg.n_layers}), got {at.layer}")
        if isinstance(self.sender, Site) and at.kind not in ("attn_out", "mlp_out"):
            raise InputError(f"the sender of a path must be attn_out, mlp_out or neurons of one layer, got {at.kind!r}")
        if self.through is not None and not at.layer < self.through < cfg.n_layers:
            raise InputError(
                f"a path from layer {at.layer} must go through a layer in [{at.layer + 1}, {cfg.n_layers}), got {self.through}"
            )
        if isinstance(self.sender, NeuronSet):
            self.sender.check_fits(*unit_shape(cfg, self.site))
            if self.site == "mlp_gate":
                raise InputError(
                    "the sender of a path writes what is at mlp_post or attn_z; mlp_gate is multiplied by the linear part first"
                )
            norms = self.model.blocks[at.layer].output_norms()
            if (norms.attention or norms.mlp) is not None:
                raise InputError("neurons and heads send no path of their own where a norm follows them; patch attn_out or mlp_out")
        clean = self.source if self.source.model is self.model else Source(self.model)
        object.__setattr__(self, "_clean", clean)
        self.source.expect([at.hook_name])
        clean.expect([at.hook_name, *self._on_path()])

    @property
    def paired(self) -> bool:
        return self.within_pair

    def hooks(self, batch: Batch) -> Hooks:
        at = self._at()
        clean = self._clean.activations(batch, [at.hook_name, *self._on_path()])
        value, mask = read_source(self.source, [at.hook_name], batch, self.where, self.within_pair)
        change = self._written(value(at.hook_name).to(clean[at.hook_name]) - clean[at.hook_name], at)
        change = change * spread(mask, change)
        if self.through is not None:
            (before,) = (clean[name] for name in self._on_path())
            with_change, without = (
                run_layers(self.model, start, batch, self.through, self.through + 1) for start in (before + change, before.clone())
            )
            change = with_change - without - change  # what the layer writes differently, without what goes past it
        end = Site(self.model.cfg.n_layers - 1, "resid_post").hook_name
        return [(end, lambda residual, hook: residual + change)]

    def _at(self) -> Site:
        if isinstance(self.sender, Site):
            return self.sender
        layers = list(self.sender.by_layer())
        if len(layers) != 1:
            raise InputError(f"the sender of a path must be in one layer, got neurons of {len(layers)}")
        return Site(layers[0], self.site)

    def _on_path(self) -> list[str]:
        """The residual stream that enters the layer on the path, before any edit of that layer's own."""
        return [] if self.through is None else [Site(self.through - 1, "resid_post").hook_name]

    def _written(self, change: Tensor, at: Site) -> Float[Tensor, "batch pos d_model"]:
        """What a change of the component's activations changes in the residual stream."""
        if isinstance(self.sender, Site):
            return change
        (here,) = self.sender.by_layer(change.device).values()
        block: Any = self.model.blocks[at.layer]
        weight = block.attn.W_O if self.site == "attn_z" else block.mlp.W_out
        return change.index_select(2, here).flatten(2) @ weight.index_select(0, here).flatten(0, -2).to(change)
