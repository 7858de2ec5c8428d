"""A head's weights from a checkpoint's files: as one layer or several that give its outputs, and what of these is the reward."""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tl_reward.data.encoding import EndAt
from tl_reward.errors import InputError, shown
from tl_reward.model.conversion import is_finite
from tl_reward.model.heads.layouts import ARMORM, DPA, HELPSTEER, LLAMA3_PROMPT_END, SCORE, VOCABULARY, Layout, Shapes, layers_of
from tl_reward.model.heads.modules import GateSetting
from tl_reward.model.heads.outputs import Output

GATED = "score"  # what a gate makes of the other outputs
_BATCH_NORM_EPS = 1e-5  # torch's own, which no config changes
# Names of two labels of which the second is surely the better one. TRL's trainer of process rewards writes none: 0 is wrong, 1 right.
_WRONG, _RIGHT = ("wrong", "incorrect", "false", "bad"), ("right", "correct", "true", "good")
Read = Callable[[str], Tensor]


@dataclass(frozen=True)
class Head:
    """A head as it is read.

    Attributes:
        weight: [outputs, d_model], or of the first layer of several.
        state: what it has besides, by the names of `modules`: a bias, later layers, a gate's.
        output: what the published model takes for its reward.
        end: the token at which the reward is read, where that is no matter of the mask.
    """

    layout: Layout
    weight: Tensor
    state: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("reward",)
    output: Output = None
    end: EndAt | None = None
    gate: GateSetting | None = None


class _Linear(NamedTuple):
    weight: Tensor
    bias: Tensor | None


def read_head(layout: Layout, keys: Sequence[str], read: Read, config: Any, tokenizer: Any, name: str) -> Head:
    """Reads a head of a layout that `recognise` gave.

    Args:
        read: gives the stored weight of a name, where it is to stay.

    Raises:
        InputError: weights that are quantised or not finite; a config that lacks what the layout needs.
    """

    def checked(key: str) -> Tensor:
        value = read(key)
        if not is_finite(value):
            raise InputError(
                f"{name}: {key} holds numbers that are not finite, or no numbers but codes of them: every reward would be wrong"
            )
        return value

    layers = _chain(checked, keys, layout.stem, layout.deep)
    state: dict[str, Tensor] = {}
    gate = None
    if layout.gate is not None:
        of_gate = _chain(checked, keys, layout.gate.stem, True)
        gate, layers[-1], mix = _gate(layout, checked, layers[-1], of_gate, config, name)
        state |= {f"unembed.gate.layers.{i}.{part}": value for i, each in enumerate(of_gate) for part, value in _both(each)}
        state["unembed.gate.mix"] = mix
    layers[-1] = _normalised(layout, layers[-1], checked, keys, config, name)
    count = len(layers[-1].weight)
    state |= {f"unembed.layers.{i}.{part}": value for i, each in enumerate(layers[1:]) for part, value in _both(each)}
    if len(layers) > 1 or layers[0].bias is not None:
        state["unembed.b_U"] = dict(_both(layers[0]))["bias"]
    end, published = _end(layout, count, tokenizer), _published(layout, config, count)
    output: Output = GATED if gate is not None else published
    return Head(layout, layers[0].weight, state, output_names(layout, config, count), output, end, gate)


def plain_head(weight: Tensor, bias: Tensor | None, config: Any) -> Head:
    """The head of a Hugging Face model in memory: `score`."""
    if bias is not None and not is_finite(bias):
        raise InputError("score.bias holds numbers that are not finite, or no numbers but codes of them: every reward would be wrong")
    state = {} if bias is None else {"unembed.b_U": bias}
    return Head(SCORE, weight, state, output_names(SCORE, config, len(weight)), _published(SCORE, config, len(weight)))


def output_names(layout: Layout, config: Any, count: int) -> tuple[str, ...]:
    """What the outputs of a head are called: as its family or the config does. A gate's sum of them comes last."""
    names = tuple(_published(layout, config, count) or _named(config, count))
    if layout.gate is None:
        return names
    if not layout.gate.softmax:
        of_means = HELPSTEER if count == 2 * len(HELPSTEER) else _numbered(count // 2)
        return (*of_means, *(f"{name} (log variance)" for name in of_means), GATED)
    if GATED in names:  # two of one name could not be told apart
        names = _numbered(count)
    return (*(ARMORM if count == len(ARMORM) else names), GATED)


def stored_output_names(layout: Layout, config: Any, shapes: Shapes) -> tuple[str, ...]:
    """`output_names` of a head that is not read yet, from the shapes of its weights."""
    count = shapes[f"{layers_of(shapes, layout.stem, layout.deep)[-1]}.weight"][0]
    if layout.gate is not None and layout.gate.softmax:  # each output may be there as its quantiles
        count = shapes[f"{layers_of(shapes, layout.gate.stem, True)[-1]}.weight"][0]
    return output_names(layout, config, count)


def _named(config: Any, count: int) -> tuple[str, ...]:
    if count == 1:
        return ("reward",)
    if count == len(DPA) and (config.architectures or [""])[0] == "MistralForAttributePrediction":
        return DPA
    names = _labels(config, count)
    good = len(set(names)) == count and all(name.strip() == name and name.isprintable() and name for name in names)
    return tuple(names) if good and _has_names(names) else _numbered(count)


def _labels(config: Any, count: int) -> list[str]:
    return [str((getattr(config, "id2label", None) or {}).get(i, "")) for i in range(count)]


def _has_names(labels: Sequence[str]) -> bool:
    """Whether anybody has named them: the config has others in their place."""
    return any(label not in ("", f"LABEL_{i}") for i, label in enumerate(labels))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"output {i}" for i in range(count))


def _published(layout: Layout, config: Any, count: int) -> dict[str, float] | None:
    """What the published model takes for its reward, where that is neither its only output nor a gate's sum."""
    if layout.stem == "score_head" and getattr(config, "score_type", "reward") == "cost" and count == 1:
        return {"cost": -1.0}  # higher is worse
    if count == 2 and layout.stem == "score" and (layout.deep or (config.architectures or [""])[0].endswith("ForTokenClassification")):
        labels = _labels(config, 2)
        wrong, right = labels if _has_names(labels) else ("wrong", "right")
        if wrong.lower() in _WRONG and right.lower() in _RIGHT:
            return {wrong: -1.0, right: 1.0}  # log-odds: its sigmoid is the probability that a step is right
    return None


def _end(layout: Layout, count: int, tokenizer: Any) -> EndAt | None:
    """The token at which the published model reads its reward, by its name in the vocabulary."""
    if layout.stem == "v_head" and getattr(tokenizer, "cls_token_id", None) is not None:
        return EndAt(tokenizer.cls_token_id, appended=True)  # Athene's
    if layout.stem == "score" and layout.deep and count == 2 and "<extra_0>" in tokenizer.get_vocab():
        return EndAt(tokenizer.get_vocab()["<extra_0>"], appended=False)  # Qwen2.5-Math-PRM's, after each step
    return None


def _chain(read: Read, keys: Sequence[str], stem: str, deep: bool) -> list[_Linear]:
    """The layers, with norms of batches (which are fixed outside of training) made part of the layer after them."""
    found: list[_Linear] = []
    scale = shift = None
    for layer in layers_of(keys, stem, deep):
        weight, bias = read(f"{layer}.weight"), read(f"{layer}.bias") if f"{layer}.bias" in keys else None
        if f"{layer}.running_mean" in keys:
            scale = weight.double() / (read(f"{layer}.running_var").double() + _BATCH_NORM_EPS).sqrt()
            shift = (0 if bias is None else bias.double()) - read(f"{layer}.running_mean").double() * scale
            continue
        if scale is not None and shift is not None:
            bias = weight.double() @ shift + (0 if bias is None else bias.double())
            weight, scale, shift = (weight.double() * scale).float(), None, None
            bias = bias.float()
        found.append(_Linear(weight, bias))
    return found


def _both(layer: _Linear) -> list[tuple[str, Tensor]]:
    weight, bias = layer
    return [("weight", weight), ("bias", weight.new_zeros(len(weight)) if bias is None else bias)]


def _through(layer: _Linear, matrix: Tensor, shift: Tensor | float = 0.0) -> _Linear:
    """A layer whose outputs are an affine map of this one's."""
    matrix = matrix.double()
    bias = matrix.new_zeros(len(matrix)) if layer.bias is None else matrix @ layer.bias.double()
    bias = bias + shift
    return _Linear((matrix @ layer.weight.double()).float(), bias.float() if bias.any() or layer.bias is not None else None)


def _normalised(layout: Layout, layer: _Linear, read: Read, keys: Sequence[str], config: Any, name: str) -> _Linear:
    """With the normalisation of rewards that the config asks for."""
    wide = layer.weight.new_ones(1).double()
    if layout.stem == "score_head" and getattr(config, "do_normalize", False):
        said = {
            part: read(f"normalizer.{part}") if f"normalizer.{part}" in keys else getattr(config, part, None) for part in ("mean", "var")
        }
        kind = getattr(config, "score_type", "reward")
        mean = _numbers(said["mean"], wide, 0.0) if kind == "reward" else wide * 0
        std = _numbers(said["var"], wide, 1.0).sqrt() + 1e-8 if kind in ("reward", "cost") else wide
    elif layout.stem in ("score", "value_head") and getattr(config, "normalize_reward", False):
        mean, std = (_numbers(getattr(config, part, None), wide, default) for part, default in (("mean", 0.0), ("std", 1.0)))
    else:
        return layer
    if not (mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise InputError(f"{name}: rewards are normalised by a mean of {mean.tolist()} and a deviation of {std.tolist()}, which cannot be")
    count = len(layer.weight)
    return _through(layer, torch.diag((1 / std).expand(count)), -(mean / std).expand(count))


def _numbers(said: Any, like: Tensor, default: float) -> Tensor:
    try:
        return like * (default if said is None else torch.as_tensor(said).to(like).flatten())
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"a mean or deviation of rewards in config.json must be numbers, got {shown(said)}") from None


def _gate(
    layout: Layout, read: Read, layer: _Linear, of_gate: Sequence[_Linear], config: Any, name: str
) -> tuple[GateSetting, _Linear, Tensor]:
    """How the gate weighs the outputs, the outputs, and which of them each of its weights is for."""
    assert layout.gate is not None
    outputs, weights = len(layer.weight), len(of_gate[-1].weight)
    if outputs % weights:
        raise InputError(f"{name}: {outputs} outputs of {layout.stem} do not go with {weights} weights of {layout.gate.stem}")
    eye = torch.eye(weights, device=layer.weight.device)
    if not layout.gate.softmax:  # URM: a mean and a logarithm of a variance, in turn; only means are weighed
        if outputs != 2 * weights:
            sizes = f"{layout.stem} has {outputs} outputs, and its gate {weights} weights"
            raise InputError(f"{name}: {sizes}; known are two outputs for each weight, a mean and a variance")
        means_first = _Linear(layer.weight.unflatten(0, (-1, 2)).transpose(0, 1).flatten(0, 1), layer.bias)
        return GateSetting(layout.gate.activation), means_first, torch.cat([eye, eye * 0], 1)
    if config.vocab_size <= max(LLAMA3_PROMPT_END):
        size = f"this {config.model_type} has another vocabulary, of {config.vocab_size}"
        raise InputError(f"{name}: its gate reads where a Llama-3 prompt ends, at tokens that it does not have: {size}")
    matrix = read("reward_transform_matrix")
    if matrix.shape != (weights, weights):
        raise InputError(f"{name}: reward_transform_matrix is {list(matrix.shape)} in the file, beside a gate of {weights} weights")
    temperature = getattr(config, "gating_temperature", 10)
    if not isinstance(temperature, (int, float)) or not 0 < temperature < math.inf:
        raise InputError(f"{name}: gating_temperature in config.json must be a number above 0, got {shown(temperature)}")
    scale = read("gating.logit_scale")
    if scale.numel() != 1:
        raise InputError(f"{name}: gating.logit_scale is {list(scale.shape)} in the file; known is one number for all weights of the gate")
    setting = GateSetting(layout.gate.activation, float(temperature), float(scale), LLAMA3_PROMPT_END)
    if outputs == weights:  # ArmoRM: its gate weighs transformed outputs
        return setting, layer, matrix.float().T.contiguous()
    quantiles = outputs // weights  # QRM: an output is the mean of its quantiles, transformed
    mean = torch.repeat_interleave(matrix.double().T, quantiles, dim=1) / quantiles
    return setting, _through(layer, mean), eye


def read_columns(asked: str, rows: Callable[[Sequence[int]], Tensor], config: Any, tokenizer: Any, name: str) -> Head:
    """The head that `head="token:A"` or `head="token:A-B"` asks for: the logit of a token, or the difference of two, by id or as text.
    Digits are an id; `id=5` and `text=5` say which of the two is meant, and digits alone warn where they could be either.

    Args:
        rows: gives some of the output embedding, [token, d_model].

    Raises:
        InputError: it names no token, or logits are capped.
    """
    if getattr(config, "final_logit_softcapping", None):
        raise InputError(
            f"{name}: its logits are capped (final_logit_softcapping), so that a token's is no direction of the residual stream"
        )
    kind, _, said = asked.partition(":")
    if kind != "token" or not said:
        raise InputError(f'head is "token:A" for the logit of a token, or "token:A-B" for a difference, by id or as text, got {asked!r}')
    ids = next((ids for parts in _splits(said) if None not in (ids := [_token(part, tokenizer) for part in parts])), None)
    if ids is None or any(i is None or i >= config.vocab_size for i in ids):
        size = config.vocab_size
        raise InputError(
            f"{name}: head={asked!r} names no token of its vocabulary of {size}; a token is an id, or a text that is one token"
        )
    _warn_of_digits(asked, [int(i) for i in ids if i is not None], tokenizer, name)
    if len(ids) == 2 and ids[0] == ids[1]:
        raise InputError(f"{name}: head={asked!r} is the difference of a token and itself: every reward would be 0")
    found = rows([int(i) for i in ids if i is not None]).float()
    return Head(VOCABULARY, found[:1] - found[1:] if len(found) > 1 else found)


def _splits(said: str) -> list[list[str]]:
    """A name as it is, then as two with a hyphen between them."""
    return [[said], *([said[:i], said[i + 1 :]] for i, letter in enumerate(said) if letter == "-" and said[:i] and said[i + 1 :])]


def _token(said: str, tokenizer: Any) -> int | None:
    """The token of an id or a text. Digits are an id, unless `text=` is in front of them."""
    digits = said.removeprefix("id=")
    if digits.isascii() and digits.isdigit():
        return int(digits)
    text = said.removeprefix("text=")
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1 and text.isascii() and text.isdigit():
        return tokenizer.get_vocab().get(text)  # SentencePiece writes a space in front as a token of its own
    return ids[0] if len(ids) == 1 else None


def _warn_of_digits(asked: str, ids: Sequence[int], tokenizer: Any, name: str) -> None:
    """Warns where digits, which were taken for an id, are the text of another token: a judge's mark from 1 to 5 may be meant."""
    for i in ids:
        other = _token(f"text={i}", tokenizer)
        if other not in (i, None) and re.search(rf"[:-]{i}(-|$)", asked):
            read = f"is read as the token with the id {i}, {tokenizer.decode([i])!r}, and the text {str(i)!r} is another token, {other}"
            warnings.warn(f"{name}: head={asked!r} {read}; say which one: id={i} or text={i} in its place", stacklevel=2)
