"""A Hugging Face model and its head as a hooked one."""

from copy import deepcopy
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tl_reward.model import architectures, checkpoints, conversion
from tl_reward.model.components import HookedTransformerConfig
from tl_reward.model.heads import modules
from tl_reward.model.heads.outputs import Output
from tl_reward.model.heads.reading import Head, plain_head
from tl_reward.model.inputs import Readout
from tl_reward.model.origin import MadeFrom, Weights


def build(
    cls: Any,
    hf_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    name: str | None,
    source: MadeFrom | None = None,
    head: Head | None = None,
    *,
    device: str,
    readout: Readout = "mask",
    output: Output = None,
) -> Any:
    """A model of the class `cls`, with the weights of `hf_model`.

    Args:
        source: the files of a model that nobody else holds: its weights are then taken from it.
        head: one that is no `score` of the model, or has more to it.
    """
    hf_config = deepcopy(hf_model.config)
    checkpoints.check_reward_head(hf_config, type(hf_model).__name__)
    dtype, called = hf_model.dtype, name or hf_config.name_or_path or hf_config.model_type
    state = hf_model.state_dict()
    if head is None:
        hf_config.architectures = [type(hf_model).__name__]
        bias = state.pop("score.bias", None)
        conversion.check_names(state, hf_config)
        head = plain_head(state["score.weight"], bias, hf_config)
    made = {"device": device, "init_weights": False, "dtype": dtype, "model_name": called}  # every weight is set below
    columns = {"d_vocab_out": len(head.outputs) - (head.gate is not None)}
    cfg = HookedTransformerConfig.from_dict(architectures.lens_config(hf_config) | made | columns)
    with conversion.WithoutMemory():
        model = cls(cfg, tokenizer, move_to_device=False)
    if head.state:
        modules.install(model.unembed, head.state, head.gate)
        model.setup()  # its hook points have names from here on
    for block, rotates in zip(model.blocks, architectures.layers_with_positions(hf_config), strict=True):
        block.attn.rotates = rotates
    if source is not None:  # nobody else holds what was loaded
        for parameter in hf_model.parameters():
            parameter.data = parameter.data.new_empty(0)
    weights = conversion.to_lens(state, hf_config, dtype, device=device, keep=source is None)
    conversion.set_weights(model, weights | {key: value.to(device, dtype) for key, value in head.state.items()})
    model.to(device, print_details=False)
    model.hf_config, model.readout = hf_config, readout
    model.outputs, model.end, model._published, model._layout = head.outputs, head.end, head.output, head.layout
    model.output = output
    model._weights = Weights(source or MadeFrom(), model.named_parameters())
    return model.eval().requires_grad_(False)
