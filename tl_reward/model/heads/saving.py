"""Writes a reward model to a folder: as Hugging Face's own class where that holds its head, else in the layout that it was read from."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from tl_reward.errors import InputError
from tl_reward.model import conversion
from tl_reward.model.heads.layouts import SCORE, Layout
from tl_reward.model.heads.outputs import weights_of


def save(model: Any, folder: Path) -> None:
    """Raises InputError: a bias is not zero that the architecture cannot hold."""
    layout: Layout = model._layout
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    config = deepcopy(model.hf_config)
    if hasattr(config, "auto_map"):
        del config.auto_map  # the code that it names is not there, and was never run
    head, count = state["unembed.W_U"], len(model.outputs)
    simple = not layout.deep and layout.gate is None and model.end is None
    norm_holds_it = "ln_final.b" in state and (count == 1 or not state["unembed.b_U"].any())
    if simple and (norm_holds_it or not state["unembed.b_U"].any()) and (count == 1 or (layout is SCORE and model._published is None)):
        if count == 1:
            (sign,) = weights_of(model._published, model.outputs)  # a cost is written as the reward that it is read as
            state["unembed.W_U"], state["unembed.b_U"] = head * sign, state["unembed.b_U"] * sign
        _without(config, "normalize_reward", "score_type", "do_normalize")  # all of it is in the weights
        _name_outputs(config, model.outputs)
        conversion.hf_model_of(state, config, model.cfg.dtype).save_pretrained(folder)
        return
    own = _tensors(layout, state, config, model)
    trunk = {key: value for key, value in conversion.to_hf(state, config).items() if key != "score.weight"}
    for key in trunk.keys() - _places(config):
        if trunk.pop(key).any():
            raise InputError(f"{key} is not zero, and this {config.model_type} config has no place for it")
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict({key: value.contiguous().clone() for key, value in (trunk | own).items()}, folder)
    config.dtype = model.cfg.dtype
    config.save_pretrained(folder)


def _places(config: Any) -> frozenset[str]:
    with torch.device("meta"):
        return frozenset(AutoModelForSequenceClassification.from_config(config, trust_remote_code=False).state_dict())


def _tensors(layout: Layout, state: dict[str, Tensor], config: Any, model: Any) -> dict[str, Tensor]:
    """The head's weights by the names of its layout. What was made part of them is set to nothing in the config."""
    _without(config, "normalize_reward", "do_normalize")
    weight, bias = state["unembed.W_U"].T, state.pop("unembed.b_U")
    head = weight
    layers = [(weight, bias), *_later(state, "unembed.layers")]
    result: dict[str, Tensor] = {}
    names = [f"{layout.stem}.{2 * i}" for i in range(len(layers))] if layout.deep else [layout.stem]  # a ReLU between two
    for name, (weight, bias) in zip(names, layers, strict=True):
        result[f"{name}.weight"] = weight
        if layout.deep or bias.any():
            result[f"{name}.bias"] = bias
    if layout.gate is not None:
        gate = model.unembed.gate
        step = layout.gate.step
        for i, (weight, bias) in enumerate(_later(state, "unembed.gate.layers")):
            result |= {f"{layout.gate.stem}.{step * i}.weight": weight, f"{layout.gate.stem}.{step * i}.bias": bias}
        if layout.gate.softmax:
            result["gating.logit_scale"] = torch.tensor([gate.setting.scale])
            result["reward_transform_matrix"] = state["unembed.gate.mix"].T
            config.num_objectives, config.num_quantiles = len(weight), 1
        else:  # a mean and a variance in turn
            result[f"{layout.stem}.weight"] = head.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
    else:
        _name_outputs(config, model.outputs)
    return result


def _later(state: dict[str, Tensor], stem: str) -> list[tuple[Tensor, Tensor]]:
    count = sum(key.startswith(f"{stem}.") and key.endswith(".weight") for key in state)
    return [(state[f"{stem}.{i}.weight"], state[f"{stem}.{i}.bias"]) for i in range(count)]


def _name_outputs(config: Any, names: tuple[str, ...]) -> None:
    if config.num_labels != len(names):
        config.num_labels = len(names)
    if len(names) > 1:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: i for i, name in enumerate(names)}


def _without(config: Any, *names: str) -> None:
    for name in names:
        if hasattr(config, name):
            delattr(config, name)
