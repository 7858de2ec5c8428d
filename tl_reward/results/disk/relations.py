"""What the parts of an entry owe each other beside their types: names that refer to one another, lists of one length, neurons that are
there. What shows a run relies on it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from tl_reward.measures.json_types import AblationPointJson, NeuronsJson, ScoresJson
from tl_reward.results.disk.plain import short
from tl_reward.results.disk.tensors import tensor_fault
from tl_reward.results.sections import (
    AblationEntry,
    AttributionEntry,
    DiscoveryEntry,
    EffectsEntry,
    ExamplesEntry,
    LensEntry,
    ModelPatchingEntry,
    OverlapEntry,
    PatchingEntry,
    RepairEntry,
    SetsEntry,
    StudyEntry,
    TensionEntry,
)

MOST_LAYERS, MOST_UNITS = 10_000, 10_000_000  # of a model


def entry_fault(section: str, entry: Any, tensors: Callable[[str], Tensor | None]) -> str | None:
    """The first thing in an entry that does not fit the rest of it, or its tensors; None where all does.

    Args:
        entry: of the type that its section has.
        tensors: gives a tensor of the entry by its key, such as "chosen"; None where there is none.
    """
    sizes: dict[str, int] = {}
    fault = tensor_fault(section, entry, tensors, sizes)
    if fault is not None:
        return fault
    faults = chain(_RULES[section](entry) if section in _RULES else (), _interval_faults(entry), _neuron_faults(section, entry, sizes))
    return next(faults, None)


def _interval_faults(value: Any) -> Iterator[str]:
    """An interval has two ends or none, and none where there is no number that it is of."""
    if isinstance(value, dict):
        if {"value", "low", "high", "n"} <= value.keys():
            none = [value[key] is None for key in ("value", "low", "high")]
            if none[1] != none[2] or none[0] > none[1]:
                yield "an interval has one end, or is of no number"
        for each in value.values():
            yield from _interval_faults(each)
    elif isinstance(value, list):
        for each in value:
            if isinstance(each, (dict, list)):
                yield from _interval_faults(each)


def _neuron_faults(section: str, entry: Any, sizes: Mapping[str, int]) -> Iterator[str]:
    layers, units = sizes.get("layer", MOST_LAYERS), sizes.get("neuron", MOST_UNITS)
    if section == "overlap":
        layers, units = entry["n_layers"], entry["d_mlp"]
    for coords in _neurons(section, entry):
        for place in coords:
            if len(place) != 2 or not (0 <= place[0] < layers and 0 <= place[1] < units):
                yield f"it names a neuron {short(place)}, which a model of {layers} layers with {units} has not"


def _neurons(section: str, entry: Any) -> Iterable[NeuronsJson]:
    if section == "tension":
        return [*entry["top"].values(), *entry["quadrants"].values()]
    if section == "overlap":
        return entry["top"].values()
    if section == "examples":
        return [entry["neurons"]]
    return [row["neurons"] for row in entry.get({"attribution": "exact", "effects": "effects"}.get(section, ""), ())]


def _discovery(entry: DiscoveryEntry) -> Iterator[str]:
    if not entry["computed"] or any(len(key.split("/")) != 2 for key in entry["computed"]):
        yield "computed does not name a statistic as site/statistic"
    if len(entry["shape"]) != 2:
        yield "shape is not that of layers and units"


def _examples(entry: ExamplesEntry) -> Iterator[str]:
    shown = len(entry["neurons"])
    if len(entry["words_in"]) != shown or len(entry["words_out"] or entry["words_in"]) != shown:
        yield f"words are not those of {shown} neurons"
    outs = (each[side] for each in entry["words_out"] or () for side in ("raised", "lowered"))
    if not all(_is_word(word) for words in chain(entry["words_in"], outs) for word in words):
        yield "words are not each a token and a number"
    for transcript in entry["transcripts"]:
        tokens, start = len(transcript["tokens"]), transcript["response_start"]
        if not tokens or not 0 <= start <= tokens or (start == tokens and entry["where"] == "response"):
            yield "a transcript has no response"
        if len({len(transcript[key]) for key in ("pairs", "sides", "objectives")}) > 1:
            yield "a transcript has pairs without a side or an objective"


def _is_word(word: Sequence[Any]) -> bool:
    return len(word) == 2 and isinstance(word[0], str) and type(word[1]) in (int, float)


def _attribution(entry: AttributionEntry) -> Iterator[str]:
    methods = entry["methods"].keys()
    if entry["best"] not in methods:
        yield f"best is {short(entry['best'])!r}, which is none of its methods"
    if not entry["exact"] or any(row["estimated"].keys() != methods for row in entry["exact"]):
        yield "exact effects are estimated by other methods than its own"
    for key in ("agreement", "agreement_drawn"):
        sizes = [[*each[key]["precision"]] for each in entry["methods"].values()]
        if any(size != sizes[0] for size in sizes) or not all(k.isdecimal() for size in sizes for k in size):
            yield f"{key} has its precision at different k"


def _effects(entry: EffectsEntry) -> Iterator[str]:
    rows = entry["effects"]
    if not rows or sorted(row["name"] for row in rows) != sorted(entry["sets"]):
        yield "effects are not those of its sets"
    yield from _same((row["by_objective"] for row in rows), "by_objective of its effects")


def _tension(entry: TensionEntry) -> Iterator[str]:
    if len(set(entry["objectives"])) != 2 or len(entry["objectives"]) != 2:
        yield f"objectives are {len(entry['objectives'])}, not two"
    if not set(entry["objectives"]) <= entry["pairs"].keys() & entry["prompts"].keys():
        yield "pairs or prompts are not told of each objective"


def _ablation(entry: AblationEntry | ModelPatchingEntry) -> Iterator[str]:
    yield from _points(entry["clean"], entry["points"])


def _sets(entry: SetsEntry) -> Iterator[str]:
    yield from _points(entry["clean"], [*entry["sets"].values()])


def _points(clean: ScoresJson, points: Sequence[AblationPointJson]) -> Iterator[str]:
    for point in points:
        if not clean["objectives"].keys() <= point["ranked"]["objectives"].keys() & point["random_by_objective"].keys():
            yield "a point lacks an objective that the clean scores have"


def _overlap(entry: OverlapEntry) -> Iterator[str]:
    if not (0 < entry["n_layers"] <= MOST_LAYERS and 0 < entry["d_mlp"] <= MOST_UNITS):
        yield f"it is of {entry['n_layers']} layers of {entry['d_mlp']} neurons"
    if not entry["top"]:
        yield "it compares no sets"
    if any({pair["a"], pair["b"]} - entry["top"].keys() for pair in entry["pairs"]):
        yield "it compares sets that it does not have"


def _patching(entry: PatchingEntry) -> Iterator[str]:
    if not {"aligned", "chosen_alone", "rejected_alone"} <= entry["aligned"].keys():
        yield "aligned lacks what has a counterpart and what has none"
    if not entry["cells"]:
        yield "it has no patch"
    if any(not 0 <= (cell[place] or 0) < MOST_LAYERS for cell in entry["cells"] for place in ("layer", "unit")):
        yield f"a patch is at no layer or head: they are numbered from 0, and there are at most {MOST_LAYERS:,}"
    whole = {cell["where"] for cell in entry["cells"] if isinstance(cell["where"], int) and cell["unit"] is None}
    if "tokens" in entry and whole != set(range(-len(entry["tokens"]), 0)):
        yield "its tokens are not those that are patched"


def _lens(entry: LensEntry) -> Iterator[str]:
    depths, pairs = len(entry["accuracy"]), entry["pairs"]
    if depths < 1 or pairs < 1 or {len(entry[key]) for key in ("mean_margin", "agreement")} != {depths}:
        yield "it does not have one estimate a depth"
    if {len(entry[key]) for key in ("ids", "decided_at_depth", "decided_at_token", "tokens_after_prefix")} != {pairs}:
        yield "it does not have one number a pair"
    if any(len(each[side]["tokens"]) != len(each[side]["reward"]) for each in entry["shown"] for side in ("chosen", "rejected")):
        yield "it does not have one reward a token"


def _repair(entry: RepairEntry) -> Iterator[str]:
    objectives, protected = set(entry["objectives"]), {each["name"] for each in entry["splits"] if each["split"] == "protect"}
    if len(objectives) < 2 or len(objectives) < len(entry["objectives"]) or objectives & protected:
        yield "objectives are not two or more different ones, none of which is a protected set"
    for row in entry["evidence"]:
        if row["tested"] not in (protected if row["protected"] else objectives):
            yield f"it tests {short(row['tested'])!r}, which is no {'protected set' if row['protected'] else 'objective'}"
    tested = [row["tested"] for row in entry["evidence"] if row["kind"] == "repaired"]
    if sorted(tested) != sorted(objectives | protected):
        yield "evidence does not have the repair once on each objective and each protected set"
    if not entry["shifts"].keys() <= objectives | protected:
        yield "shifts are of what was not tested"
    if any({*each["accuracy"]} != objectives or {*each["margin"]} != objectives for each in entry["tried"]):
        yield "a candidate was not tried on each objective"
    found = [(each["name"], each["neurons"]) for each in entry["tried"] if each["chosen"]]
    if found != ([] if entry["chosen"] is None else [(entry["chosen"], len(entry["neurons"]))]):
        yield "what is chosen is not one of those tried, with as many neurons as are edited"
    if (entry["chosen"] is None) != (not entry["neurons"]):
        yield "neurons are edited where nothing is chosen, or none where an edit is"


def _study(entry: StudyEntry) -> Iterator[str]:
    if "ids" in entry and len({len(entry[key]) for key in ("ids", "groups", "subsets", "prompts", "objectives", "tasks")}) > 1:
        yield "lists are not one a pair"


def _same(parts: Iterable[Mapping[str, Any]], what: str) -> Iterator[str]:
    if len({tuple(sorted(part)) for part in parts}) > 1:
        yield f"{what} differ in their objectives"


_RULES: Mapping[str, Callable[[Any], Iterator[str]]] = {
    "discovery": _discovery,
    "examples": _examples,
    "attribution": _attribution,
    "effects": _effects,
    "tension": _tension,
    "ablation": _ablation,
    "sets": _sets,
    "model_patching": _ablation,
    "overlap": _overlap,
    "patching": _patching,
    "lens": _lens,
    "repair": _repair,
    "study": _study,
}
