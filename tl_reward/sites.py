"""Where in a model something is read or edited: sites, and sets of neurons."""

import re
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from tl_reward.arguments import check_argument
from tl_reward.errors import InputError

SiteKind = Literal["resid_pre", "resid_mid", "resid_post", "attn_z", "attn_out", "mlp_pre", "mlp_gate", "mlp_post", "mlp_out"]

_HOOK_NAMES: dict[str, str] = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_z": "attn.hook_z",
    "attn_out": "hook_attn_out",
    "mlp_pre": "mlp.hook_pre",
    "mlp_gate": "mlp.act_fn.hook_act",
    "mlp_post": "mlp.hook_post",
    "mlp_out": "hook_mlp_out",
}
# Which tokens of a transcript: the last one, where the reward is read; the last assistant turn; or all.
Where = Literal["readout", "response", "all"]
# A unit is an MLP neuron, by one of its two readings, or an attention head.
UnitSite = Literal["mlp_post", "mlp_gate", "attn_z"]
UNIT_SITES: tuple[UnitSite, ...] = get_args(UnitSite)


def check_site_kind(kind: str) -> None:
    if kind not in _HOOK_NAMES:
        raise InputError(f"site must be one of {', '.join(get_args(SiteKind))}, got {kind!r}")


def layer_of(hook_name: str, n_layers: int) -> int:
    """The first layer whose output an edit at a hook point changes: `n_layers` past the last one, 0 for all that comes first."""
    block = re.match(r"blocks\.(\d+)\.", hook_name)
    if block:
        return int(block[1])
    return n_layers if hook_name.startswith(("ln_final.", "unembed.", "hook_reward")) else 0


def check_where(where: str) -> None:
    if where not in get_args(Where):
        raise InputError(f"where must be one of {', '.join(get_args(Where))}, got {where!r}")


def check_unit_site(kind: str) -> None:
    if kind not in UNIT_SITES:
        raise InputError(f"site must be one of {', '.join(UNIT_SITES)}, got {kind!r}")


class UnitShape(NamedTuple):
    """How many layers a model has, and how many units in each: MLP neurons, or attention heads."""

    layers: int
    units: int


def unit_shape(cfg: Any, kind: str) -> UnitShape:
    """The units at a site of a model with this TransformerLens config: heads at "attn_z", neurons at "mlp_post" and "mlp_gate"."""
    check_unit_site(kind)
    return UnitShape(cfg.n_layers, cfg.n_heads if kind == "attn_z" else cfg.d_mlp)


@dataclass(frozen=True)
class Site:
    """A place in one layer.

    The two readings of an MLP neuron: "mlp_post" is what enters the down projection, in a gated MLP `act(gate) * up`; "mlp_gate" is the
    output of the activation module, `act(gate)`, which is what arXiv 2606.13209 reads. They are the same in an MLP without a gate.
    Zeroing either removes the neuron; means and probabilities differ.
    """

    layer: int
    kind: SiteKind

    def __post_init__(self) -> None:
        check_argument("layer", self.layer, int)
        check_site_kind(self.kind)
        if self.layer < 0:
            raise InputError(f"layer must be at least 0, got {self.layer}")

    @property
    def hook_name(self) -> str:
        """TransformerLens' name of the hook point."""
        return f"blocks.{self.layer}.{_HOOK_NAMES[self.kind]}"
