"""A `TransformerBridge` around a Hugging Face reward model, and the changes that our analyses would need of it. For the spike alone."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tl_reward.data.batches.packing import PackedBatch
from tl_reward.model.architectures import ARCHITECTURES

Hooks = Sequence[tuple[str, Callable[..., Tensor | None]]]


class Activation(GeneralizedComponent):
    """The activation function of an MLP as a component, so that its output has our hook point."""

    hook_aliases = {"hook_act": "hook_out"}  # noqa: RUF012


def bridge_of(hf: PreTrainedModel, *, native: bool = False, blocks: bool = False, head: str = "score") -> Any:
    """A bridge on a copy of a classifier. `native`: Hugging Face's attention in place of the bridge's; `blocks`: our order of a layer."""

    def adapt(adapter: Any) -> None:
        adapter.component_mapping["unembed"].name = head
        act = "act" if hf.config.model_type in ("gpt2", "gpt_neox") else "act_fn"
        adapter.component_mapping["blocks"].submodules["mlp"].submodules["act_fn"] = Activation(name=act)

    name = ARCHITECTURES[hf.config.model_type].name
    bridge = build_bridge_from_module(copy.deepcopy(hf), name, hf_config=hf.config, post_adapter_hook=adapt)
    for layer, block in enumerate(bridge.blocks):
        if native:
            vars(block.attn)["forward"] = native_attention(block.attn)  # an assignment would go to the module that it wraps
        if blocks:
            point = HookPoint()
            point.name = f"blocks.{layer}.hook_mid"
            bridge._hook_registry[point.name] = point
            block.original_component.forward = own_order(block, point)
    return bridge.requires_grad_(False)


def native_attention(attention: Any) -> Callable[..., Any]:
    """Hugging Face's own attention between the bridge's hook points: the kernel that the config names, without scores to hook."""
    if hasattr(attention.original_component, "c_proj"):  # GPT-2's is left as it was
        attention.original_component.c_proj = attention.o

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        out, *rest = attention.original_component(attention.hook_in(hidden_states), *args, **kwargs)
        return attention.hook_out(out), *rest

    return forward


def own_order(block: Any, hook_mid: HookPoint) -> Callable[..., Tensor]:
    """A layer with norms before, or before and after, whose middle residual stream has a hook point on the stream itself."""

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kwargs |= {"attention_mask": args[1]} if args else {}  # GPT-2 hands its mask by position
        out = block.attn(hidden_states=block.ln1(hidden_states), **kwargs)[0]
        middle = hook_mid(hidden_states + (block.ln1_post(out) if hasattr(block, "ln1_post") else out))
        out = block.mlp(block.ln2(middle))
        return middle + (block.ln2_post(out) if hasattr(block, "ln2_post") else out)

    return forward


def handed_down(bridge: Any, *args: Any, **kwargs: Any) -> list[tuple[Any, Any]]:
    """What Hugging Face hands to each layer beside the residual stream, from a pass whose layers do nothing."""
    calls = []

    def skip(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append((args, kwargs))
        return hidden_states

    for block in bridge.blocks:
        vars(block)["forward"] = skip
    bridge(*args, **kwargs)
    for block in bridge.blocks:
        del vars(block)["forward"]
    return calls


def resume(bridge: Any, residual: Tensor, calls: list[tuple[Any, Any]], start: int) -> Tensor:
    """Our own loop over the bridge's layers: the reward at each token."""
    for block, (args, kwargs) in list(zip(bridge.blocks, calls, strict=True))[start:]:
        residual = block(residual, *args, **kwargs)
    return bridge.unembed(bridge.ln_final(residual))[..., 0]


def fold_final_norm(bridge: Any) -> None:
    norm, head = bridge.ln_final.original_component, bridge.unembed.original_component
    offset = 1.0 if getattr(bridge.cfg, "rmsnorm_uses_offset", False) else 0.0  # Gemma stores w - 1
    if getattr(norm, "bias", None) is not None:
        head.bias.data += head.weight.data @ norm.bias.data  # the bridge gave the head a bias
        norm.bias.data.zero_()
    head.weight.data *= norm.weight.data + offset
    norm.weight.data.fill_(1.0 - offset)


def at_readout(rewards: Tensor, mask: Tensor) -> Tensor:
    return rewards.gather(1, mask.shape[1] - 1 - mask.flip(1).argmax(1, keepdim=True))[:, 0]


def token_rewards(model: Any, tokens: Tensor, hooks: Hooks = (), **options: Any) -> Tensor:
    seen: list[Tensor] = []
    with model.hooks(fwd_hooks=[*hooks, ("unembed.hook_out", lambda logits, hook: seen.append(logits[..., 0]))]):
        model(tokens, **options)
    return seen[0]


def dense_mask(batch: PackedBatch, window: int | None) -> Tensor:
    allowed = torch.zeros(2 * [batch.tokens.shape[1]], dtype=torch.bool)
    for i, spans in enumerate(batch.spans):
        own = torch.arange(*spans[-1])
        causal = batch.allowed(i, window)
        allowed[own[:, None], batch.places(i)] = torch.ones(2 * [len(own)], dtype=torch.bool).tril() if causal is None else causal
    return allowed[None, None]


def attend_packed(
    module: Any, q: Tensor, k: Tensor, v: Tensor, mask: None, *, packed: PackedBatch, scaling: float | None = None, **rest: Any
) -> tuple[Tensor, None]:
    """An attention function for Hugging Face's registry: transcript by transcript, as in our fused attention."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    parts, cap = [], rest.get("softcap")
    for i, spans in enumerate(packed.spans):
        new, places, allowed = q[:, :, slice(*spans[-1])], packed.places(i), packed.allowed(i, rest.get("sliding_window"))
        keys, values, scale = k[:, :, places], v[:, :, places], scaling or k.shape[-1] ** -0.5
        if cap is None:
            sdpa = torch.nn.functional.scaled_dot_product_attention
            parts.append(sdpa(new, keys, values, attn_mask=allowed, is_causal=allowed is None, scale=scale))
            continue
        scores = cap * torch.tanh(scale * new @ keys.mT / cap)
        allowed = torch.ones_like(scores[0, 0], dtype=torch.bool).tril() if allowed is None else allowed
        parts.append(scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ values)
    return torch.cat(parts, 2).transpose(1, 2), None


ALL_ATTENTION_FUNCTIONS.register("packed", attend_packed)


def run_packed(bridge: Any, batch: PackedBatch, way: str) -> Tensor:
    """The rewards of a packed batch, by a mask of every pair of its tokens or by our function in the registry."""
    options: dict[str, Any] = {"packed": batch} if way == "registry" else {}
    config = bridge.original_model.config
    if way == "registry":
        config._attn_implementation = "packed"
    elif config.model_type == "gemma2":
        options["attention_mask"] = {
            "full_attention": dense_mask(batch, None),
            "sliding_attention": dense_mask(batch, config.sliding_window),
        }
    else:
        options["attention_mask"] = dense_mask(batch, None)
    return token_rewards(bridge, batch.tokens, position_ids=batch.position[None], **options)[0, batch.readout]
