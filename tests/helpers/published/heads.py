"""The heads: for each layout the weights under their published names, and what the published code computes from them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from helpers.published.tokenizers import CLS_OF_LLAMA3, GATING_TOKENS

Module = TypeVar("Module", bound=nn.Module)


class Read(NamedTuple):
    """What a published head sees: all weights of the file, the config, the trunk's last hidden state [pos, d_model], the tokens [pos]."""

    weights: dict[str, Tensor]
    config: dict[str, Any]
    hidden: Tensor
    tokens: list[int]

    def into(self, module: Module, prefix: str) -> Module:
        """The module with the weights whose names begin with `prefix`: all of these, and no other."""
        state = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
        module.load_state_dict(state, strict=True)
        return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class Head:
    """`shapes`: of each weight, for a d_model. `reward`: the default reward, where the family has one. `outputs` [output]: what it names.
    `per_token` [pos]: a process reward's logit, whose sigmoid is the published probability."""

    shapes: Callable[[int], dict[str, tuple[int, ...]]]
    reward: Callable[[Read], Tensor] | None = None
    outputs: Callable[[Read], Tensor] | None = None
    per_token: Callable[[Read], Tensor] | None = None
    is_linear: bool = True

    def drawn(self, d_model: int, random: torch.Generator) -> dict[str, Tensor]:
        """Random weights. Variances are above 0, and what counts is a whole number."""
        weights = {}
        for key, shape in self.shapes(d_model).items():
            value = torch.randn(shape, generator=random) * (0.3 if len(shape) > 1 else 0.8)
            if key.endswith((".var", ".running_var", ".logit_scale")):
                value = value.abs() + 0.5
            weights[key] = torch.tensor(7).expand(shape).clone() if key.endswith(("count", "num_batches_tracked")) else value
        return weights


def linear(name: str, *, bias: bool = False, outputs: int = 1) -> Head:
    """`score` of Hugging Face and DPA, `v_head` of Starling, `regression_head` of UltraRM and Eurus, `value_head` of OpenRLHF, and TRL's
    `v_head.summary`: read at the last token of the text."""

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, d_model)} | ({f"{name}.bias": (outputs,)} if bias else {})

    def values(read: Read) -> Tensor:
        layer = nn.Linear(read.hidden.shape[1], outputs, bias=bias)
        return read.into(layer, f"{name}.")(read.hidden[-1])

    return Head(shapes, reward=(lambda read: values(read)[0]) if outputs == 1 else None, outputs=values if outputs > 1 else None)


def normalised_by_config(name: str) -> Head:
    """OpenRLHF's: mean and std are in the config, and used where `normalize_reward` is on."""

    def reward(read: Read) -> Tensor:
        raw = (read.hidden[-1] @ read.weights[f"{name}.weight"].T)[0]
        return (raw - read.config["mean"]) / read.config["std"] if read.config["normalize_reward"] else raw

    return Head(linear(name).shapes, reward)


def beaver(*, bias: bool, buffers: bool = True) -> Head:
    """safe-rlhf's LlamaForScore. Its normaliser's buffers are in the file whether they are used or not (`do_normalize`); where they are
    not, the config has `mean` and `var`. What a cost model gives is a cost: as a reward it is negated, as reward-bench does."""

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        normaliser = {"normalizer.mean": (1,), "normalizer.var": (1,), "normalizer.count": (1,)}
        return linear("score_head", bias=bias).shapes(d_model) | (normaliser if buffers else {})

    def reward(read: Read) -> Tensor:
        score = read.into(nn.Linear(read.hidden.shape[1], 1, bias=bias), "score_head.")(read.hidden[-1])
        is_cost = read.config["score_type"] == "cost"
        if read.config["do_normalize"]:
            mean, var = (read.weights.get(f"normalizer.{name}", torch.tensor(read.config[name])) for name in ("mean", "var"))
            std = var.sqrt()
            score = score / (std + 1e-8) if is_cost else (score - mean) / (std + 1e-8)  # "scale" and "affine"
        return -score[0] if is_cost else score[0]

    return Head(shapes, reward)


def athene() -> Head:
    """Read at the last `<|reserved_special_token_1|>`, which is appended to the text."""

    def reward(read: Read) -> Tensor:
        at = max(i for i, token in enumerate(read.tokens) if token == CLS_OF_LLAMA3)
        return (read.hidden @ read.weights["v_head.weight"].T)[at, 0]

    return Head(linear("v_head").shapes, reward)


def mlp(prefix: str, *, neurons: int | None = None, outputs: int = 1) -> Head:
    """Linear, ReLU, Linear: INF-ORM's and Qwen2.5-Math-RM's `score`, GRM's `v_head.summary`. Two outputs are Qwen2.5-Math-PRM's, of which
    the second's softmax is the probability that a step is right."""

    def module(d_model: int) -> nn.Module:
        width = neurons or d_model
        return nn.Sequential(nn.Linear(d_model, width), nn.ReLU(), nn.Linear(width, outputs))

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        return {f"{prefix}{key}": tuple(value.shape) for key, value in module(d_model).state_dict().items()}

    def values(read: Read) -> Tensor:
        return read.into(module(read.hidden.shape[1]), prefix)(read.hidden)

    if outputs == 2:
        return Head(shapes, per_token=lambda read: torch.logit(values(read).double().softmax(-1)[:, 1]), is_linear=False)
    return Head(shapes, lambda read: values(read)[-1, 0], is_linear=False)


def token_classes() -> Head:
    """TRL's PRMTrainer: Hugging Face's token classification, of two classes, with a bias; the second is a right step."""

    def per_token(read: Read) -> Tensor:
        logits = read.into(nn.Linear(read.hidden.shape[1], 2), "score.")(read.hidden)
        return torch.logit(logits.double().softmax(-1)[:, 1])

    return Head(linear("score", bias=True, outputs=2).shapes, per_token=per_token)


def vocabulary(plus: int, minus: int | None = None, *, key: str = "lm_head.weight") -> Head:
    """A causal language model's own head: the logit of one token, or the difference of two. Gemma-2 caps its logits."""

    def reward(read: Read) -> Tensor:
        logits = read.hidden[-1] @ read.weights[key].T
        cap = read.config.get("final_logit_softcapping")
        logits = cap * torch.tanh(logits / cap) if cap else logits
        return logits[plus] - (logits[minus] if minus is not None else 0.0)

    return Head(lambda d_model: {}, reward)


def _gate_position(tokens: list[int]) -> int:
    found = [i for i in range(len(tokens)) if tuple(tokens[i : i + len(GATING_TOKENS)]) == GATING_TOKENS]
    return found[-1]


def armorm(objectives: int, neurons: int, hidden: int) -> Head:
    """`rewards` of each objective; the score is their sum by a gate, which sees the end of the prompt."""

    def layers(d_model: int) -> nn.ModuleList:
        sizes = [d_model, *[neurons] * hidden, objectives]
        return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        gate = {f"gating.layers.{key}": tuple(value.shape) for key, value in layers(d_model).state_dict().items()}
        regression = {"regression_layer.weight": (objectives, d_model), "reward_transform_matrix": (objectives, objectives)}
        return regression | {"gating.logit_scale": (1,)} | gate

    def outputs(read: Read) -> Tensor:
        return read.hidden[-1] @ read.weights["regression_layer.weight"].T

    def reward(read: Read) -> Tensor:
        x = read.hidden[_gate_position(read.tokens)]
        *inner, last = read.into(layers(read.hidden.shape[1]), "gating.layers.")
        for layer in inner:
            x = layer(x).relu()
        gate = (last(x) / read.config["gating_temperature"]).softmax(-1) * read.weights["gating.logit_scale"][0]
        return (gate * (outputs(read) @ read.weights["reward_transform_matrix"])).sum()

    return Head(shapes, reward, outputs, is_linear=False)


def qrm(objectives: int, quantiles: int, neurons: int, hidden: int) -> Head:
    """ArmoRM's, with quantiles of each objective, of which the mean counts, and a gate with batch norms after its ReLUs."""

    def layers(d_model: int) -> nn.ModuleList:
        result: list[nn.Module] = []
        for width in [d_model, *[neurons] * (hidden - 1)]:
            result += [nn.Linear(width, neurons, bias=False), nn.ReLU(), nn.BatchNorm1d(neurons)]
        return nn.ModuleList([*result, nn.Linear(neurons, objectives)])

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        gate = {f"gating.layers.{key}": tuple(value.shape) for key, value in layers(d_model).state_dict().items()}
        regression = {"regression_layer.weight": (objectives * quantiles, d_model), "reward_transform_matrix": (objectives, objectives)}
        return regression | {"gating.logit_scale": (1,)} | gate

    def outputs(read: Read) -> Tensor:
        rewards = (read.hidden[-1] @ read.weights["regression_layer.weight"].T).reshape(objectives, quantiles)
        return rewards.mean(1) @ read.weights["reward_transform_matrix"]

    def reward(read: Read) -> Tensor:
        x = read.hidden[_gate_position(read.tokens)][None]
        for layer in read.into(layers(read.hidden.shape[1]), "gating.layers."):
            x = layer(x)
        gate = (x[0] / read.config["gating_temperature"]).softmax(-1) * read.weights["gating.logit_scale"][0]
        return (gate * outputs(read)).sum()

    return Head(shapes, reward, outputs, is_linear=False)


def urm(attributes: int) -> Head:
    """A mean and a spread of each attribute, in turn; the means are weighted by a net at the same token."""

    def net(d_model: int) -> nn.Module:
        return nn.Sequential(nn.Linear(d_model, d_model), nn.SELU(), nn.Linear(d_model, d_model), nn.SELU(), nn.Linear(d_model, attributes))

    def shapes(d_model: int) -> dict[str, tuple[int, ...]]:
        weights = {f"weights.fc.{key}": tuple(value.shape) for key, value in net(d_model).state_dict().items()}
        return {"score.weight": (2 * attributes, d_model)} | weights

    def outputs(read: Read) -> Tensor:
        return (read.hidden[-1] @ read.weights["score.weight"].T).view(attributes, 2)[:, 0]

    def reward(read: Read) -> Tensor:
        weights = read.into(net(read.hidden.shape[1]), "weights.fc.")(read.hidden[-1])
        return (outputs(read) * weights).sum()

    return Head(shapes, reward, outputs, is_linear=False)
