"""Which tensors each entry of a run has, and their shapes: a line a tensor, as its entry tells it.

Shapes are written as in types: a number, or a name, which is one number wherever it stands in an entry. `…` is any number of dimensions.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from tl_reward.results.disk.plain import short
from tl_reward.results.sections import (
    AblationEntry,
    AttributionEntry,
    DiscoveryEntry,
    EffectsEntry,
    ExamplesEntry,
    LensEntry,
    PatchingEntry,
    RepairEntry,
    ScoresEntry,
    StudyEntry,
    TensionEntry,
)

FLOATS = (torch.float16, torch.float32, torch.float64)
INTS = (torch.int8, torch.int16, torch.int32, torch.int64)
CONTRAST = ("difference", "welch_t", "cohens_d", "auroc", "auroc_error", "p_value", "q_value")
_PART = 2**20  # numbers of a tensor, looked at at once


class Expected(NamedTuple):
    """Attributes:
    shape: such as "2 layer neuron".
    low, high: what its numbers lie within; None where they need not be finite.
    """

    key: str
    shape: str
    dtypes: tuple[torch.dtype, ...] = FLOATS
    low: float | None = None
    high: float | None = None


_FINITE = (float("-inf"), float("inf"))


def _scores(entry: ScoresEntry) -> Iterator[Expected]:
    for side in ("chosen", "rejected"):
        yield Expected(side, f"{len(entry['ids'])}", FLOATS, *_FINITE)


def _discovery(entry: DiscoveryEntry) -> Iterator[Expected]:
    for key in entry["computed"]:
        yield Expected(key, f"2 layer {_units(key)}", FLOATS, *_FINITE)
    for site in dict.fromkeys(key.split("/")[0] for key in entry["computed"]):
        for objective in entry["firing"] if site != "attn_z" else ():
            # Not [0, 1]: a share of bfloat16 sums, the study's convention, is above 1 by their rounding.
            yield Expected(f"{site}/firing/{objective}", f"layer {_units(site)}", FLOATS, *_FINITE)
    for site in entry["contrast"]:
        for name in CONTRAST:
            yield Expected(f"{site}/contrast/{name}", f"layer {_units(site)}")


def _units(site: str) -> str:
    return "head" if site.startswith("attn_z") else "neuron"


def _examples(entry: ExamplesEntry) -> Iterator[Expected]:
    shown, kinds, transcripts = len(entry["neurons"]), len(entry["kinds"]), len(entry["transcripts"])
    yield Expected("top/transcript", "most layer neuron", INTS, -1, transcripts - 1)
    yield Expected("top/peak", "most layer neuron")
    yield Expected("shown/transcript", f"{shown} {kinds}", INTS, -1, transcripts - 1)
    yield Expected("shown/peak", f"{shown} {kinds}", FLOATS, *_FINITE)
    yield Expected("shown/start", f"{shown} {kinds}", INTS)
    yield Expected("shown/activation", "token", FLOATS, *_FINITE)
    yield Expected("histogram/edge", f"{shown} edge", FLOATS, *_FINITE)
    yield Expected("histogram/count", f"{shown} {len(entry['splits'])} bin", INTS, 0, float("inf"))
    yield Expected("correlated/neuron", f"{shown} others", INTS, -1, float("inf"))
    yield Expected("correlated/value", f"{shown} others", FLOATS, *_FINITE)
    yield Expected("cosine/neuron", f"{shown} near 2", INTS, -1, float("inf"))
    yield Expected("cosine/value", f"{shown} near", FLOATS, *_FINITE)


def _attribution(entry: AttributionEntry) -> Iterator[Expected]:
    for method in entry["methods"]:
        yield from _effect(method)


def _tension(entry: TensionEntry) -> Iterator[Expected]:
    for objective in entry["objectives"]:
        yield from _effect(objective)


def _effect(name: str) -> Iterator[Expected]:
    yield Expected(f"{name}/effect", "layer neuron", FLOATS, *_FINITE)
    yield Expected(f"{name}/error", "layer neuron")  # of one prompt there is none


def _ablation(entry: AblationEntry) -> Iterator[Expected]:
    if "pairs" in entry:
        for side in ("chosen", "rejected"):
            yield Expected(side, f"{1 + len(entry['points'])} {entry['pairs']}", FLOATS, *_FINITE)


def _effects(entry: EffectsEntry) -> Iterator[Expected]:
    for side in ("chosen", "rejected"):
        yield Expected(side, f"{len(entry['sets'])} {entry['pairs']}", FLOATS, *_FINITE)


def _patching(entry: PatchingEntry) -> Iterator[Expected]:
    for key in ("noised", "denoised"):
        yield Expected(key, f"{len(entry['cells'])} {entry['pairs']}", FLOATS, *_FINITE)


def _lens(entry: LensEntry) -> Iterator[Expected]:
    yield Expected("margins", f"{len(entry['accuracy'])} {entry['pairs']}", FLOATS, *_FINITE)


def _repair(entry: RepairEntry) -> Iterator[Expected]:
    yield Expected("gates", "layer neuron", FLOATS, 0, float("inf"))


def _study(entry: StudyEntry) -> Iterator[Expected]:
    if "ids" in entry:
        for side in ("chosen", "rejected"):
            yield Expected(side, f"{len(entry['edits'])} {len(entry['ids'])}", FLOATS, *_FINITE)


_EXPECTED: Mapping[str, Callable[[Any], Iterator[Expected]]] = {
    "scores": _scores,
    "discovery": _discovery,
    "examples": _examples,
    "attribution": _attribution,
    "tension": _tension,
    "ablation": _ablation,
    "effects": _effects,
    "patching": _patching,
    "lens": _lens,
    "repair": _repair,
    "study": _study,
}


def tensor_fault(section: str, entry: Mapping[str, Any], tensors: Callable[[str], Tensor | None], sizes: dict[str, int]) -> str | None:
    """What is wrong with an entry's tensors: one is missing, or has another shape or type than the entry says; None where nothing is.

    Args:
        entry: of the type that its section has.
        tensors: gives a tensor by its key, such as "chosen"; None where there is none.
        sizes: what the names of dimensions stand for is put here.
    """
    for expected in _EXPECTED[section](entry) if section in _EXPECTED else ():
        tensor = tensors(expected.key)
        if tensor is None:
            return f"its tensor {short(expected.key)} is missing"
        said = _shape_fault(tensor, expected, sizes) or _value_fault(tensor, expected)
        if said:
            return f"its tensor {short(expected.key)} {said}"
    return _FURTHER[section](entry, tensors) if section in _FURTHER else None


def _start_fault(entry: ExamplesEntry, tensors: Callable[[str], Tensor | None]) -> str | None:
    """Whether the activations of each example lie within the tensor that holds all of them."""
    which, start, flat = (cast(Tensor, tensors(f"shown/{key}")) for key in ("transcript", "start", "activation"))
    lengths = torch.tensor([len(transcript["tokens"]) for transcript in entry["transcripts"]] or [0])
    there = which >= 0
    begin, tokens = start[there].long(), lengths[which[there].long()]
    if (begin < 0).any() or (begin > len(flat) - tokens).any():
        return "its tensor shown/start holds numbers outside shown/activation"
    return None


def _gates_fault(entry: RepairEntry, tensors: Callable[[str], Tensor | None]) -> str | None:
    """Whether the entry's neurons and their gates are those of its tensor that are not 1."""
    gates = cast(Tensor, tensors("gates"))
    if list(gates.shape) != entry["shape"]:
        return f"its tensor gates has the shape {list(gates.shape)}, not {entry['shape']}"
    edited = gates != 1
    neurons = edited.nonzero().tolist() if int(edited.sum()) == len(entry["neurons"]) else None
    if neurons != entry["neurons"] or gates[edited].tolist() != entry["gates"]:
        return "its neurons and gates are not those of its tensor gates that are not 1"
    return None


_FURTHER: Mapping[str, Callable[[Any, Callable[[str], Tensor | None]], str | None]] = {"examples": _start_fault, "repair": _gates_fault}


def _shape_fault(tensor: Tensor, expected: Expected, sizes: dict[str, int]) -> str | None:
    if tensor.dtype not in expected.dtypes:
        return f"is of {str(tensor.dtype).removeprefix('torch.')}, not of {_names(expected.dtypes)}"
    dimensions = expected.shape.split()
    want = [int(name) if name.isdecimal() else sizes.get(name) for name in dimensions]
    got = list(tensor.shape)
    if len(want) != len(got) or any(size not in (None, real) for size, real in zip(want, got, strict=True)):
        known = ", ".join(
            name if size is None or name.isdecimal() else f"{name} {size}" for name, size in zip(dimensions, want, strict=True)
        )
        return f"has the shape {got}, not [{known}]"
    sizes.update((name, real) for name, real in zip(dimensions, got, strict=True) if not name.isdecimal())
    return None


def _value_fault(tensor: Tensor, expected: Expected) -> str | None:
    if expected.low is None or expected.high is None:
        return None
    for part in tensor.flatten().split(_PART) if tensor.numel() else ():
        if part.is_floating_point() and not part.isfinite().all():
            return "holds a number that is not finite"
        if part.min() < expected.low or part.max() > expected.high:
            return f"holds numbers outside [{expected.low:g}, {expected.high:g}]"
    return None


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
