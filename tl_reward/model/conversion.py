"""Weights from Hugging Face's names and layouts to TransformerLens', and back, by the tables in `architectures`."""

from collections.abc import Iterable, Mapping
from typing import Any

import einops
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from tl_reward.errors import InputError
from tl_reward.model import architectures

StateDict = Mapping[str, Tensor]

# What old files hold besides weights, and no reward depends on: tables of rotary angles, masks of GPT-2 and GPT-NeoX, and the output
# embedding of a language model, in whose place the reward head is.
_LEFTOVERS = (".inv_freq", ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias")
_OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")
# What TransformerLens' model has, and an architecture may lack.
_KEEP = ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out", "b_U", "mask", "IGNORE", "rotary_sin", "rotary_cos")


def is_leftover(key: str) -> bool:
    """Whether a weight of this name may be left out without a word."""
    return key.endswith(_LEFTOVERS) or key.endswith(_OUTPUT_EMBEDDINGS)


def hint_for(unknown: Iterable[str]) -> str:
    """What helps where weights have no place, as the end of a message."""
    if any(".lora_" in key or ".base_layer." in key for key in unknown):
        return "; an adapter is not merged yet: call merge_and_unload() first, and save the result"
    return ""


def is_finite(value: Tensor) -> bool:
    """Whether all numbers are there, and finite. Without a copy of them."""
    if value.is_meta:
        return True  # a model of shapes alone
    return value.is_floating_point() and value.numel() > 0 and bool(torch.stack(value.aminmax()).isfinite().all())


def to_lens(
    state: dict[str, Tensor], hf_config: PretrainedConfig, dtype: torch.dtype, *, device: str | torch.device = "cpu", keep: bool = True
) -> dict[str, Tensor]:
    """TransformerLens weights from Hugging Face ones, which keep their memory layout. They go to the device one by one.

    Args:
        keep: off, for a checkpoint that nobody else holds: each weight is taken out of `state`, and its memory used on where no
            arithmetic is needed, else let go. So no two copies of more than one weight are there at any time.

    Raises:
        InputError: a key that one side has and the other lacks, so that none is left out in silence.
    """
    check_names(state, hf_config)
    table = _table(hf_config)
    known = {weight.hf for weight in table}
    for key, value in state.items():
        if key in known and not is_finite(value):
            of = f"{hf_config.name_or_path}: " if hf_config.name_or_path else ""
            raise InputError(f"{of}{key} holds numbers that are not finite, or none at all: every reward would be wrong")
    sizes = _sizes(hf_config)
    result = {}
    last = {weight.hf: i for i, weight in enumerate(table)}  # several weights may lie in one tensor
    for i, weight in enumerate(table):
        if weight.hf not in state:
            continue
        value = state[weight.hf] if keep or i < last[weight.hf] else state.pop(weight.hf)
        value = value[slice(*weight.rows)] if weight.rows else value
        if (weight.scale, weight.shift) != (1, 0):
            value = (value.float() * weight.scale).add_(weight.shift)
        if weight.pattern:
            value = einops.rearrange(value, weight.pattern, **_used(sizes, weight.pattern))
        parts = list(value.unbind(0)) if len(weight.lens) > 1 else [value]
        result |= {name: part.to(device, dtype, copy=keep) for name, part in zip(weight.lens, parts, strict=True)}
    return result


def check_names(state: Iterable[str], hf_config: PretrainedConfig) -> None:
    """Raises InputError for a weight that the architecture lacks, and one that it has and that is not there."""
    table, names = _table(hf_config), list(state)
    known = {weight.hf for weight in table}
    unknown = [key for key in names if key not in known and not is_leftover(key)]
    missing = [weight.hf for weight in table if weight.hf not in names and not weight.optional]
    if unknown or missing:
        raise InputError(
            f"the model does not fit architecture {hf_config.model_type!r}: unknown {unknown[:3]}, missing {missing[:3]}{hint_for(unknown)}"
        )


class WithoutMemory(TorchFunctionMode):
    """Within it, weights that are made without numbers take no memory: those of a model that gets its own by `set_weights`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty and (made := func(*args, **kwargs | {"device": "meta"})).numel():
            return made
        return func(*args, **kwargs)


def set_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Gives a TransformerLens model its weights, with the final norm folded into the head."""
    fold_final_norm(state)
    # assign: the weights keep Hugging Face's memory layout, which TransformerLens' components transpose to without a copy.
    missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
    # Biases that an architecture lacks keep their zeros; buffers hold constants.
    left = [key for key in missing if key.split(".")[-1].lstrip("_") not in _KEEP]
    assert not left and not unexpected, (left, unexpected)


def to_hf(state: StateDict, hf_config: PretrainedConfig) -> dict[str, Tensor]:
    """The inverse of `to_lens`."""
    sizes = _sizes(hf_config)
    result: dict[str, Tensor] = {}
    for weight in _table(hf_config):
        if any(name not in state for name in weight.lens):
            continue
        parts = [state[name] for name in weight.lens]
        value = torch.stack(parts) if len(parts) > 1 else parts[0]
        if weight.pattern:
            left, right = weight.pattern.split(" -> ")
            value = einops.rearrange(value, f"{right} -> {left}", **_used(sizes, weight.pattern))
        if (weight.scale, weight.shift) != (1, 0):
            value = ((value.float() - weight.shift) / weight.scale).to(value.dtype)
        # Rows come in their order.
        result[weight.hf] = torch.cat([result[weight.hf], value]) if weight.hf in result else value.contiguous()
    return result


def _table(hf_config: Any) -> list[architectures.Weight]:
    table = []
    for weight in architectures.architecture_of(hf_config).weights(hf_config):
        for layer in range(hf_config.num_hidden_layers) if "{l}" in weight.hf else (0,):
            names = tuple(name.replace("{l}", str(layer)) for name in weight.lens)
            table.append(weight._replace(hf=weight.hf.replace("{l}", str(layer)), lens=names))
    return table


def _sizes(hf_config: Any) -> dict[str, int]:
    return {"n": hf_config.num_attention_heads, "k": architectures.kv_heads(hf_config), "c": 3}


def _used(sizes: dict[str, int], pattern: str) -> dict[str, int]:
    axes = pattern.replace("(", " ").replace(")", " ").split()
    return {axis: size for axis, size in sizes.items() if axis in axes}


def fold_final_norm(state: dict[str, Tensor]) -> None:
    """Moves the final norm's weight and bias into what reads the residual stream past it, the head and its gate, in float32."""
    dtype = state["unembed.W_U"].dtype
    head, norm = state["unembed.W_U"].float(), state["ln_final.w"].float()
    bias, gate = "unembed.b_U", "unembed.gate.layers.0."
    if "ln_final.b" in state:
        shift = state["ln_final.b"].float()
        state[bias] = (shift @ head + (state[bias].float() if bias in state else 0)).to(dtype)
        if f"{gate}weight" in state:
            state[f"{gate}bias"] = (state[f"{gate}bias"].float() + state[f"{gate}weight"].float() @ shift).to(dtype)
        state["ln_final.b"] = torch.zeros_like(state["ln_final.b"])
    state["unembed.W_U"] = (norm[:, None] * head).to(dtype)
    if f"{gate}weight" in state:
        state[f"{gate}weight"] = (state[f"{gate}weight"].float() * norm).to(dtype)
    state["ln_final.w"] = torch.ones_like(state["ln_final.w"])


def hf_model_of(state: dict[str, Tensor], hf_config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """A Hugging Face model with these TransformerLens weights, whose final norm is folded into the head.

    Raises:
        InputError: a bias is not zero that the architecture cannot hold.
    """
    bias = state.pop("unembed.b_U").float()
    if "ln_final.b" in state:
        # A Hugging Face head has no bias. The norm's bias may be any vector whose product with the head is that number.
        head = state["unembed.W_U"].float()
        if head.shape[1] == 1:
            shift = head[:, 0] * bias / head[:, 0].dot(head[:, 0])
        else:  # the shortest of them
            shift = (torch.linalg.pinv(head.double().T) @ bias.double()).float()
        state["ln_final.b"] = shift.to(dtype)
        if not torch.allclose(shift.double() @ head.double(), bias.double(), atol=1e-5):
            raise InputError(f"the head has biases that no norm's bias gives, and {hf_config.model_type} has no other place for them")
    elif bias.any():
        raise InputError(f"the head has a bias of {bias.tolist()[:4]}, and {hf_config.model_type} has no place for one")
    hf_model = AutoModelForSequenceClassification.from_config(hf_config, dtype=dtype, trust_remote_code=False)
    weights = to_hf(state, hf_config)
    for key in weights.keys() - hf_model.state_dict().keys():
        # TransformerLens keeps a zero bias where the architecture has none.
        if weights.pop(key).any():
            raise InputError(f"{key} is not zero, and this {hf_config.model_type} config has no place for it")
    hf_model.load_state_dict(weights, strict=True)
    return hf_model
