"""Reward heads as they are published: how each is told from the names and shapes of a checkpoint's weights, and what it computes.

A new family of a known kind is a row of `LAYOUTS`. Code that a checkpoint brings is never run; its config only says what files cannot.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tl_reward.errors import InputError

Shapes = Mapping[str, tuple[int, ...]]

HELPSTEER = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_ULTRAFEEDBACK = ("overall_score", "instruction_following", "truthfulness", "honesty", "helpfulness")
_CODE = ("complexity", "style", "explanation", "instruction-following", "readability")
DPA = (*(f"helpsteer-{name}" for name in HELPSTEER), *(f"ultrafeedback-{name}" for name in _ULTRAFEEDBACK))
ARMORM = (
    *DPA,
    *("beavertails-is_safe", "prometheus-score", "argilla-overall_quality", "argilla-judge_lm"),
    *(f"code-{name}" for name in _CODE),
)
# What ends the prompt in a Llama-3 transcript, as its tokens: <|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n
LLAMA3_PROMPT_END = (128009, 128006, 78191, 128007, 271)
_OF_A_LAYER = "weight|bias|running_mean|running_var|num_batches_tracked"


class Gate(NamedTuple):
    """An MLP that weighs the outputs of a head for each transcript.

    stem: of the names of its layers, `stem.0`, `stem.{step}`, …
    step: 2 where what is between two of them has a number too, 1 where it has none.
    activation: between two of them.
    softmax: over its outputs, divided by the config's `gating_temperature`, times `gating.logit_scale`.
    at_prompt_end: it reads the residual stream where the prompt ends; else where the reward is read.
    """

    stem: str
    step: Literal[1, 2]
    activation: Literal["relu", "selu"]
    softmax: bool = False
    at_prompt_end: bool = False


@dataclass(frozen=True)
class Layout:
    """A kind of head.

    Attributes:
        stem: of the names of its layers: `stem.weight` [outputs, d_model] and perhaps `stem.bias`; where it is `deep`, `stem.0.weight`,
            `stem.2.weight`, … with a ReLU between two of them.
        families: published reward models that have it.
        beside: weights that come with it. `may_have`: those that may.
    """

    stem: str
    families: str
    deep: bool = False
    gate: Gate | None = None
    beside: tuple[str, ...] = ()
    may_have: tuple[str, ...] = ()

    def needs(self) -> list[str]:
        first = [f"{self.stem}.0.weight"] if self.deep else [f"{self.stem}.weight"]
        return [*first, *([f"{self.gate.stem}.0.weight"] if self.gate else []), *self.beside]

    def takes(self, key: str) -> bool:
        own = rf"{re.escape(self.stem)}\.\d+\.({_OF_A_LAYER})" if self.deep else rf"{re.escape(self.stem)}\.(weight|bias)"
        of_gate = rf"{re.escape(self.gate.stem)}\.\d+\.({_OF_A_LAYER})" if self.gate else "(?!)"
        return bool(re.fullmatch(f"{own}|{of_gate}", key)) or key in (*self.beside, *self.may_have)

    def fits(self, keys: Collection[str]) -> bool:
        return all(key in keys for key in self.needs()) and all(map(self.takes, keys))


_NORMALISER = ("normalizer.mean", "normalizer.var", "normalizer.count", "normalizer.momentum")
SCORE = Layout(
    "score", "every *ForSequenceClassification and *ForTokenClassification: Skywork-Reward, Tulu-3, OLMo-2, GRM-ft, DPA, OpenRLHF"
)
LAYOUTS = (
    SCORE,
    Layout("score", "INF-ORM, Qwen2.5-Math-RM, Qwen2.5-Math-PRM", deep=True),
    Layout("score", "URM-LLaMa-3.1", gate=Gate("weights.fc", 2, "selu")),
    Layout("v_head", "Starling-RM, Athene-RM"),
    Layout("regression_head", "UltraRM, Eurus-RM"),
    Layout("value_head", "OpenRLHF"),
    Layout("score_head", "beaver reward and cost (safe-rlhf)", may_have=_NORMALISER),
    Layout("v_head.summary", "TRL's AutoModelForCausalLMWithValueHead, LLaMA-Factory, GRM-sftreg with a linear head"),
    Layout("v_head.summary", "GRM-sftreg", deep=True),
    Layout(
        "regression_layer",
        "ArmoRM, QRM-Llama3.1",
        gate=Gate("gating.layers", 1, "relu", softmax=True, at_prompt_end=True),
        beside=("gating.logit_scale", "reward_transform_matrix"),
    ),
)
# A column of a language model's output embedding, or the difference of two, which no file can tell: the caller asks for it.
VOCABULARY = Layout("lm_head", "Llama-3.1-Nemotron-70B-Reward-HF, judges that answer yes or no")
_ASK = 'a reward that is the logit of a token has to be asked for: head="token:0", or head="token:Yes-No" for a difference'


def recognise(shapes: Shapes, config: Any, name: str) -> Layout | None:
    """The layout of a head; None where there are no weights of one and the class that the config names brings its own, which are missing.

    Args:
        shapes: of all weights that are no part of the trunk.

    Raises:
        InputError: no head, or one that is not known, or whose sizes do not fit each other.
    """
    if not shapes:
        kind = (config.architectures or ["a checkpoint that names no architecture"])[0]
        if kind.endswith("ForSequenceClassification"):
            return None
        asked = f"; {_ASK}" if kind.endswith("ForCausalLM") else ""
        raise InputError(
            f"{name}: found {kind}, and no reward head in its files; a reward model is a *ForSequenceClassification, or has one of the "
            f"heads {', '.join(dict.fromkeys(layout.stem for layout in LAYOUTS))} (from_base adds a fresh head){asked}"
        )
    found = next((layout for layout in LAYOUTS if layout.fits(shapes)), None)
    if found is None:
        raise InputError(f"{name}: {_unknown(shapes)}")
    for stem, deep in [(found.stem, found.deep), *([(found.gate.stem, True)] if found.gate else [])]:
        _check_sizes(shapes, stem, deep, config.hidden_size, name)
    if found.deep:
        _check_numbers(shapes, found.stem, 2, name)
    if found.gate is not None:
        _check_numbers(shapes, found.gate.stem, found.gate.step, name, norms=found.gate.softmax)
    return found


def _unknown(shapes: Shapes) -> str:
    """What was found, and the layout that has most of it."""
    nearest = max(LAYOUTS, key=lambda layout: (sum(map(layout.takes, shapes)), sum(key in shapes for key in layout.needs())))
    first = [f"{key} {list(shape)}" for key, shape in sorted(shapes.items())[:4]]
    more = f", … {len(shapes)} in all" if len(shapes) > len(first) else ""
    if any(".lora_" in key or ".base_layer." in key for key in shapes):
        return f"weights of an adapter that is not merged ({', '.join(first)}{more}): call merge_and_unload() first, and save the result"
    return (
        f"weights that are neither its trunk's nor those of a reward head that is known ({', '.join(first)}{more}); the nearest head known "
        f"is that of {nearest.families}: {', '.join(nearest.needs())}"
    )


def layers_of(keys: Collection[str], stem: str, deep: bool) -> list[str]:
    """The names of a head's layers, in their order, norms of batches among them."""
    if not deep:
        return [stem]
    found = {int(match[1]) for key in keys if (match := re.fullmatch(rf"{re.escape(stem)}\.(\d+)\.weight", key))}
    return [f"{stem}.{i}" for i in sorted(found)]


def _check_numbers(shapes: Shapes, stem: str, step: int, name: str, *, norms: bool = False) -> None:
    """Raises InputError for layers that are numbered in another way than the published ones: what is between two of them, such as an
    activation, is told by nothing else in the files.

    Args:
        norms: a layer, a ReLU and a norm of the batch may come by turns (QRM).
    """
    every = {int(layer.rpartition(".")[2]): f"{layer}.running_mean" in shapes for layer in layers_of(shapes, stem, True)}
    count = len(every) - sum(every.values())
    known = {step * i: False for i in range(count)}
    by_turns = {3 * i: False for i in range(count)} | {3 * i + 2: True for i in range(count - 1)}
    if every != known and not (norms and every == by_turns and count > 1):
        raise InputError(
            f"{name}: the layers {', '.join(f'{stem}.{i}' for i in sorted(every))} are not numbered as in any head that is known "
            f"({stem}.0, {stem}.{step}, {stem}.{2 * step}, …), and what is between two of them is not in the files"
        )


def _check_sizes(shapes: Shapes, stem: str, deep: bool, d_model: int, name: str) -> None:
    width = d_model
    for layer in layers_of(shapes, stem, deep):
        shape = shapes[f"{layer}.weight"]
        wanted = (width,) if f"{layer}.running_mean" in shapes else (*shape[:1], width)
        if shape != wanted or not all(shape):
            asks = f"config.json asks for a head that reads {width} numbers"
            raise InputError(f"{name}: {layer}.weight is {list(shape)} in the file, and {asks}")
        width = shape[0]
        moments = ("running_mean", "running_var") if f"{layer}.running_mean" in shapes else ()
        for part in ("bias", *moments):
            found = shapes.get(f"{layer}.{part}", () if part == "running_var" else (width,))
            if found != (width,):
                raise InputError(f"{name}: {layer}.{part} is {list(found)} in the file, beside {width} outputs of {layer}.weight")
