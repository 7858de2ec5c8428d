"""Runs that strangers wrote: markup in every string, and names that JavaScript's objects have already."""

import copy
import inspect
import re
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from typing_extensions import is_typeddict

from helpers.page_runs import PAIRS, tiny_run
from tl_reward.analyses.pair_patching import aligned_tokens, patch_pairs
from tl_reward.analyses.reward_lens import reward_lens
from tl_reward.measures import json_types
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.results import sections
from tl_reward.results.record_patching import record_lens, record_patching
from tl_reward.results.sections import Sections
from tl_reward.results.store import Results

EVIL = "<a href=\"https://evil.example/\">&lt;b&gt;</a><span style='color:red'>%{x}$y$</span><img src=x onerror='window.hacked=1'>\n"
TAKEN = ("constructor", "toString", "__proto__", "hasOwnProperty", "valueOf")
# What the package itself writes, and reads as one of a few words.
_OWN_WORDS = {
    "mlp_post", "mlp_gate", "attn_z", "all", "readout", "response", "chosen", "rejected", "gate", "in", "top", "random", "zero", "mean",
    "patch", "resid_post", "mlp_out", "early", "middle", "late", "repaired", "uniform", "model", "better", "worse", "reversed", "moved",
    "no clear change", "near 0", "high", "neither", "find", "tune", "test", "protect",
}  # fmt: skip
_TYPES = [each for module in (json_types, sections) for _, each in inspect.getmembers(module, is_typeddict)]
_KEYS = {key for each in _TYPES for key in each.__annotations__}


@cache
def whole_run() -> Results:
    """A run with every section but the study's, and without patching between models."""
    results = Results.merge([tiny_run()])
    model, pairs = tiny_reward_model(), PAIRS[:3]
    record_patching(results, "mixed", "pairs", patch_pairs(model, pairs, kinds=("resid_post", "attn_z"), where=("all", "readout")))
    tokens = aligned_tokens(model, pairs[0])
    one = patch_pairs(model, pairs[:1], kinds=("mlp_out",), where=range(-len(tokens), 0))
    record_patching(results, "mixed", "one pair", one, tokens=tokens)
    record_lens(results, "mixed", "pairs", reward_lens(model, pairs), model.tokenizer, show=2)
    return results


def rewritten(results: Results, change: Callable[[str], str]) -> Results:
    """The run with every string changed that is not the package's own word: values, names of entries and parts, and of tensors."""
    seen: set[str] = set()

    def text(value: str) -> str:
        if value in _OWN_WORDS or re.fullmatch(r"[\d.-]+|\w+_alone|aligned|(mlp_gate|mlp_post|attn_z)/.*", value):
            return value
        parts = value.split(" · ")  # a name of an entry: a model and a data set
        seen.update(parts)
        return " · ".join(map(change, parts))

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {key if key in _KEYS else text(key): walk(each) for key, each in value.items()}
        return [walk(each) for each in value] if isinstance(value, list) else text(value) if isinstance(value, str) else value

    whole = cast("dict[str, Any]", results.sections)
    made = {section: {text(name): walk(entry) for name, entry in entries.items()} for section, entries in whole.items()}
    tensors = {}
    for key, value in results.tensors.items():
        section, rest = key.split("/", 1)
        name = next(name for name in whole[section] if rest.startswith(f"{name}/"))
        parts = [change(part) if part in seen else part for part in rest.removeprefix(f"{name}/").split("/")]
        tensors["/".join([section, text(name), *parts])] = value
    versions = {change("a"): change("1")}
    return Results(cast(Sections, made), tensors, {"command": change("command"), "created": change("now"), "versions": versions})


def changed_estimates(results: Results, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Results:
    """The run with every estimate changed."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            new = {key: walk(each) for key, each in value.items()}
            return change(new) if {"value", "low", "high", "n"} <= new.keys() else new
        return [walk(each) for each in value] if isinstance(value, list) else value

    return Results(cast(Sections, walk(copy.deepcopy(results.sections))), results.tensors, results.provenance)


def only(results: Results, section: str) -> Results:
    """A run of one section alone."""
    own = cast("dict[str, Any]", results.sections)[section]
    return Results(cast(Sections, {section: own}), {key: value for key, value in results.tensors.items() if key.startswith(f"{section}/")})
