"""What a reward head computes, with its hook points: one layer, several, and a gate that weighs their outputs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from tl_reward.data.batches.packing import PackedBatch
from tl_reward.errors import InputError
from tl_reward.model.components import HookPoint, Unembed
from tl_reward.model.heads.outputs import Output, reward_of
from tl_reward.model.layers.attention import with_class

_ACTIVATIONS = {"relu": F.relu, "selu": F.selu}


class GateSetting(NamedTuple):
    """How a gate's last layer becomes weights. Of a softmax: `temperature`, and what its weights are multiplied with; None is no softmax.
    `prompt_end`: the tokens at whose last occurrence's first it reads; none is where the reward is read."""

    activation: str
    temperature: float | None = None
    scale: float = 1.0
    prompt_end: tuple[int, ...] = ()


class RewardHead(Unembed):
    """The head in float32 at least, whatever the model's precision: rewards of 8 bits would tie where the model prefers one."""

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos output"]:
        residual = self.hook_in(residual)
        return self.hook_out(self.first(residual))

    def first(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos width"]:
        wide = torch.promote_types(residual.dtype, torch.float32)
        return F.linear(residual.to(wide), self.W_U.T.to(wide), self.b_U.to(wide))


class Layer(nn.Module):
    """A layer of a head past the first one."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.empty_like(each, device="meta")) for each in (weight, bias))
        self.hook_in = HookPoint()  # [batch, pos, width]

    def forward(self, x: Float[Tensor, "batch pos width"]) -> Float[Tensor, "batch pos out"]:
        x = self.hook_in(x)
        return F.linear(x, self.weight.to(x), self.bias.to(x))


class DeepHead(RewardHead):
    """An MLP. `W_U` [d_model, width] and `b_U` are its first layer, with the final norm folded in; `hook_pre` [batch, pos, width] is what
    that gives, and `layers.{i}.hook_in` what enters each later layer, past a ReLU."""

    layers: nn.ModuleList
    hook_pre: HookPoint

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos output"]:
        x = self.hook_pre(self.first(self.hook_in(residual)))
        for layer in self.layers:
            x = layer(F.relu(x))
        return self.hook_out(x)


class GateNetwork(nn.Module):
    """The weight of each of a head's outputs, read from the residual stream: `hook_weights` [batch, pos, gate], times `mix`."""

    mix: Float[Tensor, "gate output"]

    def __init__(self, setting: GateSetting, layers: nn.ModuleList, mix: Tensor) -> None:
        super().__init__()
        self.setting, self.layers = setting, layers
        self.register_buffer("mix", torch.empty_like(mix, device="meta"))
        self.hook_weights = HookPoint()

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos output"]:
        x = residual.to(torch.promote_types(residual.dtype, torch.float32))
        for i, layer in enumerate(self.layers):
            x = layer(_ACTIVATIONS[self.setting.activation](x) if i else x)
        if self.setting.temperature is not None:
            x = torch.softmax(x / self.setting.temperature, -1) * self.setting.scale
        return self.hook_weights(x) @ self.mix.to(x)


class GatedHead(RewardHead):
    """One layer, whose outputs `hook_out` shows, and beside them the weights that the gate gives each at every token."""

    gate: GateNetwork

    def forward(self, residual: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos output_and_weight"]:
        residual = self.hook_in(residual)
        return torch.cat([self.hook_out(self.first(residual)), self.gate(residual)], -1)


def install(unembed: Any, state: Mapping[str, Tensor], gate: GateSetting | None) -> None:
    """Makes the module of a head, for the weights `state` that it has besides `W_U` (TransformerLens' names). It is without numbers."""
    shapes = {key.removeprefix("unembed."): value for key, value in state.items()}

    def layers(stem: str) -> nn.ModuleList:
        count = sum(key.startswith(stem) and key.endswith(".weight") for key in shapes)
        return nn.ModuleList(Layer(shapes[f"{stem}{i}.weight"], shapes[f"{stem}{i}.bias"]) for i in range(count))

    if gate is not None:
        cast(GatedHead, with_class(unembed, GatedHead)).gate = GateNetwork(gate, layers("gate.layers."), shapes["gate.mix"])
    elif any(key.startswith("layers.") for key in shapes):
        head = cast(DeepHead, with_class(unembed, DeepHead))
        head.layers, head.hook_pre = layers("layers."), HookPoint()
        width = shapes["b_U"].shape[0]
        head.W_U = nn.Parameter(torch.empty(len(head.W_U), width, device="meta", dtype=head.W_U.dtype))
        head.b_U = nn.Parameter(torch.empty(width, device="meta", dtype=head.b_U.dtype))


def outputs_at_tokens(
    unembed: Any, given: Float[Tensor, "batch pos *"], batch: PackedBatch | None, tokens: Any
) -> Float[Tensor, "batch pos output"]:
    """A head's outputs at each token; of a gated one, the sum that its gate makes of them comes last.

    Args:
        given: what the head's module gave.
        tokens: those of a padded batch, [batch, pos].

    Raises:
        InputError: the gate reads where the prompt ends, and the tokens that tell are not there.
    """
    if not isinstance(unembed, GatedHead):
        return given
    outputs, weights = given.chunk(2, -1)
    at = gate_places(unembed, given, batch, tokens)
    if at is not None:
        at = torch.where(at < 0, torch.arange(at.shape[1], device=at.device), at)  # so far it is all prompt
        weights = weights.gather(1, at[..., None].expand_as(weights))
    return torch.cat([outputs, (outputs * weights).sum(-1, keepdim=True)], -1)


def gate_places(unembed: Any, like: Tensor, batch: PackedBatch | None, tokens: Any) -> Int[Tensor, "batch pos"] | None:
    """Where the gate reads for the reward at each token: -1 before the prompt has ended. None where the reward is read."""
    pattern = unembed.gate.setting.prompt_end if isinstance(unembed, GatedHead) else ()
    if not pattern:
        return None
    if batch is not None:
        place, transcript = batch.layouts.members
        start = torch.zeros_like(transcript)
        start[1:] = torch.where(transcript[1:] != transcript[:-1], torch.arange(1, len(start), device=start.device), 0)
        found = _last_before(batch.tokens[0][place][None], pattern)[0]
        found = torch.where(found >= start.cummax(0).values, place[found.clamp(min=0)], -1)
        at = torch.full_like(batch.position, -1)
        at[place] = found  # a shared token comes up once for each transcript, and with the same place
        return at.expand(len(like), -1)
    if not isinstance(tokens, Tensor) or tokens.is_floating_point() or tokens.shape != like.shape[:2]:
        help = f"give tokens= beside it, {list(like.shape[:2])}"
        raise InputError(f"this head's gate reads where the prompt ends, which a residual stream does not show: {help}")
    return _last_before(tokens.to(like.device), pattern)


def _last_before(tokens: Int[Tensor, "row token"], pattern: tuple[int, ...]) -> Int[Tensor, "row token"]:
    """At each token, the first place of the last pattern that is whole by then; -1 where there is none."""
    found = torch.full_like(tokens, -1)
    width = tokens.shape[1] - len(pattern) + 1
    if width > 0:
        here = torch.stack([tokens[:, i : i + width] == token for i, token in enumerate(pattern)]).all(0)
        found[:, len(pattern) - 1 :] = torch.where(here, torch.arange(width, device=tokens.device), -1)
    return found.cummax(1).values


def check_gate_reads(unembed: Any, like: Tensor, batch: PackedBatch | None, tokens: Any, readout: Int[Tensor, " row"]) -> None:
    """Raises InputError for a transcript whose prompt does not end where its reward is read: the gate has nothing to read."""
    at = gate_places(unembed, like, batch, tokens)
    if at is None:
        return
    there = at[0, readout] if batch is not None else at.gather(1, readout[:, None])[:, 0]
    if (there < 0).any():
        row = int((there < 0).nonzero()[0])
        raise InputError(
            f"row {row}: this head's gate reads where the prompt ends, at the tokens {list(unembed.gate.setting.prompt_end)}, and they are "
            "not in it; write transcripts with the model's own chat template"
        )


def direction_of(unembed: Any, output: Output, names: Sequence[str]) -> Float[Tensor, " d_model"]:
    """What the residual stream, over the final norm's scale, is projected on to give the reward.

    Raises:
        InputError: the reward is no projection: the head is an MLP, or weighs its outputs by a gate.
    """
    if isinstance(unembed, DeepHead):
        raise InputError(
            f"this model's reward head is an MLP of {len(unembed.layers) + 1} layers, so its reward is no direction of the residual "
            "stream: direct attribution and the reward lens need one; attribute() with gradients, ablation and patching do not"
        )
    return reward_of(unembed.W_U, output, names)
