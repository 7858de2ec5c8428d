"""Checkpoints whose head nobody has published, or that no reader of such checkpoints can compute."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.published.families import REWARDS
from helpers.published.family import Family

Weights = dict[str, Tensor]
_INTERNLM2 = {
    "model_type": "internlm2",
    "reward_token_id": 92527,
    "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "modeling_internlm2.InternLM2ForRewardModel"},
}
_PLAIN = next(family for family in REWARDS if family.name == "offsetbias")  # of d_model 36
_ARMORM = next(family for family in REWARDS if family.name == "armorm")
_QRM = next(family for family in REWARDS if family.name == "qrm")


@dataclass(frozen=True)
class Unknown:
    """`change` makes its weights from those of a known family; `found`: words of which the message has one."""

    name: str
    architecture: str
    change: Callable[[Weights], Weights]
    found: tuple[str, ...]
    of: Family = _PLAIN
    config: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        self.of.write(folder)
        config = json.loads((folder / "config.json").read_text()) | {"architectures": [self.architecture]} | self.config
        (folder / "config.json").write_text(json.dumps(config))
        weights: Weights = {}
        for file in sorted(folder.glob("*.safetensors")):
            weights |= load_file(file)
            file.unlink()
        (folder / "model.safetensors.index.json").unlink(missing_ok=True)
        save_file({key: value.contiguous() for key, value in self.change(weights).items()}, folder / "model.safetensors", {"format": "pt"})


def _instead(**heads: tuple[int, ...]) -> Callable[[Weights], Weights]:
    """Other heads in the place of `score`; dots are written as two underscores."""

    def change(weights: Weights) -> Weights:
        rest = {key: value for key, value in weights.items() if not key.startswith("score")}
        return rest | {name.replace("__", "."): torch.full(shape, 0.1) for name, shape in heads.items()}

    return change


def _and(**heads: tuple[int, ...]) -> Callable[[Weights], Weights]:
    return lambda weights: weights | _instead(**heads)({})


def _internlm2(weights: Weights) -> Weights:
    """Queries, keys and values in one matrix, interleaved by groups, under names of its own."""
    trunk = {"model.tok_embeddings.weight": (262, 36), "model.norm.weight": (36,), "v_head.weight": (1, 36)}
    for layer in range(2):
        inside = {"attention.wqkv": (60, 36), "attention.wo": (36, 36), "feed_forward.w1": (52, 36), "feed_forward.w2": (36, 52)}
        inside |= {"feed_forward.w3": (52, 36), "attention_norm": (36,), "ffn_norm": (36,)}
        trunk |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in inside.items()}
    return {key: torch.full(shape, 0.1) for key, shape in trunk.items()}


def _layers(stem: str, first: int, last: int) -> dict[str, tuple[int, ...]]:
    stem = stem.replace(".", "__")
    sizes = {f"{first}__weight": (36, 36), f"{first}__bias": (36,), f"{last}__weight": (1, 36), f"{last}__bias": (1,)}
    return {f"{stem}__{name}": shape for name, shape in sizes.items()}


def _without_norms(weights: Weights) -> Weights:
    return {key: value for key, value in weights.items() if not any(f"gating.layers.{i}." in key for i in (2, 5, 8))}


def _other_gate(weights: Weights) -> Weights:
    """QRM's, whose norms in the gate have no statistics: another norm, which would give other numbers."""
    return {key: value for key, value in weights.items() if "running_" not in key and "num_batches" not in key}


UNKNOWN = (
    Unknown("made-up-name", "LlamaForCausalLM", _instead(reward_proj__weight=(1, 36)), ("reward_proj.weight",)),
    Unknown(
        "made-up-name-of-a-classifier", "LlamaForSequenceClassification", _instead(reward_proj__weight=(1, 36)), ("reward_proj.weight",)
    ),
    Unknown("made-up-class", "MyRewardModel", _instead(reward_proj__weight=(1, 36), reward_proj__bias=(1,)), ("reward_proj.",)),
    Unknown("misspelt", "LlamaForCausalLM", _instead(vhead__weight=(1, 36)), ("vhead.weight",)),
    Unknown("no-head-at-all", "LlamaForSequenceClassification", _instead(), ("score", "head")),
    Unknown("language-model-alone", "LlamaForCausalLM", _instead(lm_head__weight=(262, 36)), ("lm_head", "LlamaForCausalLM")),
    Unknown("too-wide", "LlamaForCausalLM", _instead(v_head__weight=(1, 40)), ("v_head.weight", "40")),
    Unknown("transposed", "LlamaForCausalLM", _instead(v_head__weight=(36, 1)), ("v_head.weight",)),
    Unknown("two-heads", "LlamaForSequenceClassification", _and(v_head__weight=(1, 36)), ("v_head.weight",)),
    # Published nets have a ReLU between two layers, so that these are numbered 0, 2, 4.
    Unknown("layer-upon-layer", "LlamaForCausalLM", _instead(**_layers("score", 0, 1)), ("score.1",)),
    Unknown("something-between-layers", "LlamaForCausalLM", _instead(**_layers("v_head.summary", 0, 3)), ("v_head.summary.3",)),
    Unknown("qrm-without-norms", _QRM.architecture, _without_norms, ("gating.layers",), _QRM),
    Unknown(
        "norm-in-the-head",
        "LlamaForCausalLM",
        _instead(score__0__weight=(36,), score__0__bias=(36,), score__1__weight=(1, 36), score__1__bias=(1,)),
        ("score.0",),
    ),
    Unknown(
        "ldl",
        "LDLRewardModel27B",
        _instead(
            regression_layer__network__0__weight=(24, 36),
            regression_layer__network__0__bias=(24,),
            regression_layer__network__2__weight=(220, 24),
            regression_layer__network__2__bias=(220,),
            gating_layer__network__0__weight=(22, 36),
            gating_layer__network__0__bias=(22,),
        ),
        ("regression_layer.network", "gating_layer.network"),
    ),
    Unknown(
        "armorm-without-its-gate",
        _ARMORM.architecture,
        lambda w: {k: v for k, v in w.items() if "gating" not in k},
        ("regression_layer", "gating"),
        _ARMORM,
    ),
    Unknown("qrm-of-another-norm", _QRM.architecture, _other_gate, ("gating.layers", "gating"), _QRM),
    Unknown("internlm2", "InternLM2ForRewardModel", _internlm2, ("internlm2",), config=_INTERNLM2),
)
