"""What each part of a model writes along the reward direction itself, with the final norm's scale as it is: a sum that is the reward."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Unpack, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tl_reward import parallel
from tl_reward.data.batches.packing import Batch
from tl_reward.data.batches.padding import batch_tensor_on
from tl_reward.data.encoding import EncodedPairs
from tl_reward.data.pairs import pair_hash
from tl_reward.data.reading import Reading as PairsRead
from tl_reward.devices import WideSums, wide, widest
from tl_reward.errors import InputError, summary_of
from tl_reward.measures.frames.columns import REWARD, DataFrame, frame, joined, places
from tl_reward.measures.neuron_statistics import SIDES
from tl_reward.model.heads.chosen import check_direction, output_name, reward_bias
from tl_reward.model.heads.outputs import Output, reward_of
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.running.activations import stream
from tl_reward.running.batches.batching import Pairs, encode_for
from tl_reward.running.options import RunOptions, checked
from tl_reward.sites import Site


@dataclass(frozen=True, eq=False)
class DirectAttribution:
    """The mean reward of chosen (side 0) and of rejected (side 1) transcripts as a sum of parts, in raw reward units.

    `reward` is the sum of `neuron`, `head`, `embedding`, `bias` and `remainder`. Of the margin, a part is side 0 minus side 1.

    Attributes:
        neuron: what each MLP neuron writes at the read-out token.
        head: what each attention head writes there.
        embedding: of the read-out token, and of its position.
        bias: of all layers and of the final norm.
        remainder: what float error leaves, and what `interventions` of the options write into the residual stream themselves.
        largest_remainder: of a single transcript, in size.
        pairs: the hash of each pair that it comes from.
        reading: how many pairs were given, and how many left out, by reason.
        output: as in `Scores`.
    """

    neuron: Float[Tensor, "side layer neuron"]
    head: Float[Tensor, "side layer head"]
    embedding: Float[Tensor, " side"]
    bias: Float[Tensor, " side"]
    remainder: Float[Tensor, " side"]
    reward: Float[Tensor, " side"]
    largest_remainder: float
    pairs: tuple[str, ...]
    reading: PairsRead
    output: str = ""

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a side and part, in reward units: the parts of a side sum to its reward. Layer and unit are -1 for what is of no layer."""
        side = {"side": np.array(SIDES)}
        parts = []
        for part, value in {"neuron": self.neuron, "head": self.head}.items():
            index = places(value.shape, ("side", "layer", "unit"))
            parts.append(frame(index | {"side": side["side"][index["side"]], "part": part, f"written ({REWARD})": value}))
        for part, value in {"embedding": self.embedding, "bias": self.bias, "remainder": self.remainder}.items():
            parts.append(frame(side | {"layer": -1, "unit": -1, "part": part, f"written ({REWARD})": value}))
        return joined(parts)

    def layers(self) -> dict[str, Float[Tensor, "side layer"]]:
        """Heads and neurons, summed by layer."""
        return {"attention": self.head.sum(2), "mlp": self.neuron.sum(2)}


@checked
def direct_attribution(
    model: HookedRewardModel, pairs: Pairs, *, progress: str | None = None, **options: Unpack[RunOptions]
) -> DirectAttribution:
    """Direct reward attribution: activation times (output weights times reward direction), at the read-out token.

    This is direct logit attribution (Elhage et al. 2021) for a head of one column. Norms are linear once their scale is held at what it
    is; a norm after attention or the MLP (Gemma-2, OLMo-2) scales their output weights. It leaves out what a part does to the reward by
    way of later layers. Args and errors as in `stream`; InputError too where the reward is along no single direction.
    """
    check_direction(model)
    encoded = encode_for(model, pairs, **options)
    sums = _Sums(model, encoded)
    stream(model, encoded, sums.sites, sums, whole=True, progress=progress, **options)
    return DirectAttribution(
        neuron=sums.neuron.total().float(),
        head=sums.head.total().float(),
        embedding=sums.embedding.total().float(),
        bias=sums.bias.total().float(),
        remainder=sums.remainder.total().float(),
        reward=sums.reward.total().float(),
        largest_remainder=max(parallel.gathered(float(sums.largest_remainder))),
        pairs=tuple(pair_hash(pair) for pair in encoded.pairs),
        reading=encoded.reading,
        output=output_name(model),
    )


class _Sums:
    """The parts of `DirectAttribution`, in float64."""

    def __init__(self, model: HookedRewardModel, encoded: EncodedPairs) -> None:
        cfg = self._cfg = model.cfg
        self._model, device = model, model.W_U.device
        self._sides = (encoded.sides.sum(0).double() / len(encoded.pairs)).to(widest(device)).to(device)
        self.head = WideSums(2, cfg.n_layers, cfg.n_heads, device=device)
        self.neuron = WideSums(2, cfg.n_layers, int(cfg.d_mlp or 0), device=device)
        self.embedding, self.bias, self.remainder, self.reward = (WideSums(2, device=device) for _ in range(4))
        self.largest_remainder = torch.zeros((), dtype=widest(device), device=device)
        each = [Site(layer, kind) for layer in range(cfg.n_layers) for kind in ("attn_z", "mlp_post")]
        self._first, self._last = Site(0, "resid_pre"), Site(cfg.n_layers - 1, "resid_post")
        self.sites = [self._first, *each, self._last]
        # Of the batch: the side of each row, where its last token is, and the activations there.
        self._weight = self._at_end = torch.empty(0)
        self._seen: dict[Site, Tensor] = {}

    def begin(self, batch: Batch) -> None:
        self._weight = self._sides[:, batch.row]
        self._at_end = batch_tensor_on(torch.tensor([spans[-1][1] - 1 for spans in batch.spans]), batch.row.device)

    def layer(self, site: Site, activation: Tensor, base: Tensor | None) -> None:
        self._seen[site] = activation.index_select(0, self._at_end).to(wider_than(self._model))

    def end(self) -> None:
        seen, weight = self._seen, self._weight
        reading = read_at_end(self._model, seen[self._last])
        total = (seen[self._first] * reading.direction).sum(1) + reading.bias
        self.embedding.add(..., weight @ wide(total - reading.bias))
        bias = reading.bias
        for layer in range(self._cfg.n_layers):
            z, post = seen[Site(layer, "attn_z")], seen[Site(layer, "mlp_post")]
            written = written_by(self._model, layer, z, post, reading.direction)
            self.head.add((slice(None), layer), weight @ wide(written.head))
            self.neuron.add((slice(None), layer), weight @ wide(written.neuron))
            bias = bias + written.bias
            total = total + written.head.sum(1) + written.neuron.sum(1) + written.bias
        left = wide(reading.reward - total)
        self.largest_remainder = torch.maximum(self.largest_remainder, left.abs().max())
        for sums, values in ((self.bias, bias), (self.remainder, left), (self.reward, reading.reward)):
            sums.add(..., weight @ wide(values))
        seen.clear()

    def merge(self) -> None:
        for sums in (self.head, self.neuron, self.embedding, self.bias, self.remainder, self.reward):
            sums.merge()


class TokenAttribution(NamedTuple):
    """The reward of one transcript as a sum over heads and the tokens that they read from, and the rest.

    Attributes:
        tokens: the transcript's tokens, as text.
        head: what each head writes at the read-out token of what it reads from each token.
        rest: what the read-out token's embedding, the MLPs there, and the biases write.
    """

    tokens: list[str]
    head: Float[Tensor, "layer head token"]
    rest: float
    reward: float

    __repr__ = summary_of

    def to_frame(self) -> DataFrame:
        """A row a head and token, in reward units; the reward is their sum and `rest`."""
        index = places(self.head.shape, ("layer", "head", "position"))
        return frame(index | {"token": [self.tokens[i] for i in index["position"]], f"written ({REWARD})": self.head})


@checked
@torch.inference_mode()
def token_attribution(model: HookedRewardModel, text: str, *, output: Output = None) -> TokenAttribution:
    """Direct reward attribution of one transcript, by the token that each head reads from: pattern times value, along the reward
    direction. `head.sum() + rest` is the reward.

    Args:
        output: as in `running.options.RunOptions`.

    Raises:
        InputError: there is no text; the reward is along no single direction.
    """
    check_direction(model)
    if not text:
        raise InputError("text must not be empty")
    final = Site(model.cfg.n_layers - 1, "resid_post").hook_name
    first = Site(0, "resid_pre").hook_name
    names = ("hook_pattern", "hook_v", "hook_z", "mlp.hook_post", first, final)
    tokens = model.to_tokens(text)
    reward, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith(names))
    reading = read_at_end(model, cache[final][:, -1].to(wider_than(model)))
    rest = cache[first][0, -1].to(reading.direction) @ reading.direction[0] + reading.bias[0]
    parts = []
    for layer in range(model.cfg.n_layers):
        z, post = (cache[Site(layer, kind).hook_name][:, -1].to(wider_than(model)) for kind in ("attn_z", "mlp_post"))
        written = written_by(model, layer, z, post, reading.direction)
        rest = rest + written.neuron.sum() + written.bias[0]
        direction = written.heads_direction[0]  # [d_model]
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1].to(direction)
        value = cache[f"blocks.{layer}.attn.hook_v"][0].to(direction)
        value = value.repeat_interleave(model.cfg.n_heads // value.shape[1], 1)  # grouped queries share a value
        along = torch.einsum("hdm,m->hd", model.blocks[layer].attn.W_O.to(direction), direction)
        parts.append(pattern * torch.einsum("shd,hd->hs", value, along))
    head = torch.stack(parts).float().cpu()
    return TokenAttribution(cast(list[str], model.to_str_tokens(tokens[0])), head, float(rest), float(reward[0]))


class Reading(NamedTuple):
    direction: Float[Tensor, "row d_model"]
    bias: Float[Tensor, " row"]
    reward: Float[Tensor, " row"]


class Written(NamedTuple):
    head: Float[Tensor, "row head"]
    neuron: Float[Tensor, "row neuron"]
    bias: Float[Tensor, " row"]
    heads_direction: Float[Tensor, "row d_model"]


def wider_than(model: HookedRewardModel) -> torch.dtype:
    return torch.promote_types(model.cfg.dtype, torch.float32)


def read_at_end(model: HookedRewardModel, final: Float[Tensor, "row d_model"]) -> Reading:
    """The direction along which the final residual stream is read, at the scale that the final norm has there."""
    head = model.reward_direction.to(final)
    direction = _through(model.ln_final, model.cfg.normalization_type, final, head.expand_as(final))
    shift = getattr(model.ln_final, "b", None)
    bias = reward_bias(model).to(final) + (shift.to(final) @ head if shift is not None else 0)
    logits = model.unembed(model.ln_final(final[:, None].to(model.cfg.dtype)))[:, 0, : model.W_U.shape[1]]  # without a gate's weights
    reward = reward_of(logits, model.output, model.outputs).to(final)
    return Reading(direction, bias.expand(len(final)), reward)


def written_by(model: HookedRewardModel, layer: int, z: Tensor, post: Tensor, direction: Float[Tensor, "row d_model"]) -> Written:
    """What a layer's heads and neurons write along a direction of the residual stream."""
    block = model.blocks[layer]
    norm, kind = block.output_norms().attention, model.cfg.normalization_type
    w_o = block.attn.W_O.to(z)
    of_heads = direction
    if norm is not None:
        of_heads = _through(norm, kind, torch.einsum("rhd,hdm->rm", z, w_o) + block.attn.b_O.to(z), direction)
    of_neurons = _neurons_direction(model, layer, post, direction)
    return Written(
        head=torch.einsum("rhd,hdm,rm->rh", z, w_o, of_heads),
        neuron=post * (of_neurons @ block.mlp.W_out.to(z).T),
        bias=of_heads @ block.attn.b_O.to(z) + of_neurons @ block.mlp.b_out.to(z),
        heads_direction=of_heads,
    )


def written_by_neurons(
    model: HookedRewardModel, layer: int, post: Float[Tensor, "row neuron"], direction: Float[Tensor, "row d_model"]
) -> Float[Tensor, "row neuron"]:
    """What a layer's neurons write along a direction of the residual stream."""
    return post * (_neurons_direction(model, layer, post, direction) @ model.blocks[layer].mlp.W_out.to(post).T)


def _neurons_direction(model: HookedRewardModel, layer: int, post: Tensor, direction: Tensor) -> Float[Tensor, "row d_model"]:
    """The direction before the norm that follows the MLP, where one does."""
    block = model.blocks[layer]
    norm = block.output_norms().mlp
    if norm is None:
        return direction
    return _through(norm, model.cfg.normalization_type, post @ block.mlp.W_out.to(post) + block.mlp.b_out.to(post), direction)


def _through(norm: Any, kind: str | None, x: Float[Tensor, "row d_model"], direction: Float[Tensor, "row d_model"]) -> Tensor:
    """The direction before a norm that becomes `direction` after it, at the scale that the norm has for `x`."""
    gain = getattr(norm, "w", None)
    direction = direction if gain is None else direction * gain.to(direction)
    if (kind or "").startswith("LN"):  # a layer norm centres; the transpose of centring is centring
        x, direction = (value - value.mean(1, keepdim=True) for value in (x, direction))
    return direction / (x.square().mean(1, keepdim=True) + norm.eps).sqrt()
