"""Neurons that a model is trained without: they do nothing in any forward pass, and get no gradient."""

import re
from typing import Any

import torch

from tl_reward.model import architectures
from tl_reward.neurons import NeuronSet

# What reads and what writes the neurons of an MLP, in Hugging Face's names for the supported architectures.
_BOTH_INTO = "gate_up_proj"  # of Phi-3: the gates' rows, and below them those of the linear part
_INTO = (_BOTH_INTO, "gate_proj", "up_proj", "c_fc", "dense_h_to_4h")
_OUT_OF = ("down_proj", "c_proj", "dense_4h_to_h")


def check_neurons(model: Any, neurons: NeuronSet) -> None:
    """Raises InputError, naming it, where the model has no such neuron."""
    neurons.check_fits(model.config.num_hidden_layers, architectures.lens_config(model.config)["d_mlp"])


def _parts(model: Any, neurons: NeuronSet) -> list[tuple[str, Any, torch.Tensor]]:
    """The linear layers, wrapped by PEFT or not, that read and write a set's neurons: name of the layer, layer, neurons."""
    by_layer = neurons.by_layer()
    found = []
    for name, module in model.named_modules():
        match = re.search(r"\.(\d+)\.mlp\.(\w+)$", name)
        if match and match[2] in _INTO + _OUT_OF and int(match[1]) in by_layer:
            index = by_layer[int(match[1])]
            both = torch.cat([index, index + model.config.intermediate_size]) if match[2] == _BOTH_INTO else index
            found.append((match[2], module, both))
    assert len(found) >= 2 * len(by_layer), [name for name, *_ in found]
    return found


def leave_out(model: Any, neurons: NeuronSet, *, zero: bool) -> None:
    """From here on the neurons do nothing, and no gradient reaches them: what they write is set to 0 where it is read, by an adapter too.

    Args:
        zero: their weights are set to 0 as well. They stay so, since their gradients are 0 and nothing decays.
    """
    for name, module, index in _parts(model, neurons):
        if name in _OUT_OF:

            def drop(_: Any, args: Any, index: torch.Tensor = index) -> Any:
                return (args[0].index_fill(-1, index.to(args[0].device), 0), *args[1:])

            module.register_forward_pre_hook(drop)
        if zero:
            _zero(name, module, index)


@torch.no_grad()
def _zero(name: str, module: Any, index: torch.Tensor) -> None:
    layer = getattr(module, "base_layer", module)
    # GPT-2's Conv1D keeps [in, out], a linear layer [out, in].
    neurons_first = (name in _INTO) == isinstance(layer, torch.nn.Linear)
    layer.weight.index_fill_(0 if neurons_first else 1, index.to(layer.weight.device), 0)
    if name in _INTO and layer.bias is not None:
        layer.bias.index_fill_(0, index.to(layer.bias.device), 0)


def merged(model: Any, neurons: NeuronSet) -> Any:
    """The model without its adapters' frames; what they add to the weights of the neurons, which no pass ever read, is set to 0."""
    whole = model.float().merge_and_unload() if hasattr(model, "merge_and_unload") else model
    for name, module, index in _parts(whole, neurons):
        _zero(name, module, index)
    return whole
