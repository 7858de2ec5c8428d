"""What a run knows of single neurons and of sets of them, as plain data for the page."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, Int8, Int64

from tl_reward.measures.json_types import ConflictJson, NeuronsJson
from tl_reward.neurons import NeuronSet
from tl_reward.results.findings.words import share_of_all, units
from tl_reward.results.sections import OverlapEntry, TensionEntry, TranscriptJson, WordsJson
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import exact_effects, overlap_of, tension_key
from tl_reward.show.page.blocks import array_block, json_block
from tl_reward.sites import Where


class Details(NamedTuple):
    """What is known of some neurons of one model in detail, for the page: plain data, and blocks by name."""

    entry: dict[str, Any]
    blocks: dict[str, str]


def tensions(results: Results) -> list[dict[str, Any]]:
    """The two margins of each mixed model, and the sets that its neurons were sorted into. `keys` are those of its columns."""
    found = []
    for name, entry in results.sections.get("tension", {}).items():
        if entry["site"] == "attn_z":
            continue
        width = results.tensor("tension", name, f"{entry['objectives'][0]}/effect").shape[1]
        found.append(
            {
                "model": entry["model"],
                "conflict": in_conflict(entry),
                "objectives": entry["objectives"],
                "keys": [tension_key(results, entry, objective) for objective in entry["objectives"]],
                "about": f"{entry['dataset']}, by {entry['method']} at {entry['site']}",
                "fraction": entry["fraction"],
                "sets": {label: flat(coords, width) for label, coords in entry["top"].items() if coords},
                "quadrants": {label: flat(coords, width) for label, coords in entry["quadrants"].items() if coords},
            }
        )
    return found


def in_conflict(entry: TensionEntry) -> str:
    """How many neurons of a tension serve one objective at the other's cost, beside chance."""
    return (
        f"In conflict (effects of opposite signs on the two margins): {_conflict(entry['conflict'])}; of those clear on both margins "
        f"{_conflict(entry['conflict_clear'])}. Chance: signs shuffled among the neurons of each layer."
    )


def _conflict(value: ConflictJson) -> str:
    if not value["neurons"]:
        return "none"
    chance = f"chance {value['chance']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"
    return f"{value['share']:.1%} of {value['neurons']:,} ({chance}, p {_p(value['p_value'])})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def top_in_words(entry: OverlapEntry) -> str:
    """Which neurons, or heads, are compared."""
    return f"the {share_of_all(entry['fraction'])} of {units(entry['site'])} with the highest {entry['score']} at {entry['site']}"


def overlaps(results: Results) -> list[dict[str, Any]]:
    """The top neurons of several models, or by several rankings, of one shape."""
    return [
        {
            "name": name,
            "about": top_in_words(entry),
            "layers": entry["n_layers"],
            "width": entry["d_mlp"],
            "sets": {label: flat(coords, entry["d_mlp"]) for label, coords in entry["top"].items()},
        }
        for name in results.sections.get("overlap", {})
        if "attn_z" not in (entry := overlap_of(results, name))["site"]
    ]


def repairs(results: Results) -> list[dict[str, Any]]:
    """The neurons that each repair edits, and what it multiplies them by."""
    return [
        {"model": entry["model"], "width": entry["shape"][1], "neurons": flat(entry["neurons"], entry["shape"][1]), "gates": entry["gates"]}
        for entry in results.sections.get("repair", {}).values()
    ]


def shapes_of_edited(results: Results) -> dict[str, tuple[int, int]]:
    """Layers and neurons of each model with neurons that were edited alone: as the run recorded the model, or else as far as its neurons
    reach."""
    found: dict[str, tuple[int, int]] = {}
    recorded = results.provenance.get("models", {})
    for effect in exact_effects(results):
        layer, neuron = effect["neuron"]
        layers, width = found.get(effect["model"], (0, 0))
        found[effect["model"]] = (max(layers, layer + 1), max(width, neuron + 1))
    for model, reached in found.items():
        told = recorded.get(model)
        layers, width = (told.get("layers"), told.get("d_mlp")) if isinstance(told, Mapping) else (None, None)
        if isinstance(layers, int) and isinstance(width, int) and layers >= reached[0] and width >= reached[1]:
            found[model] = layers, width
    return found


def details(results: Results) -> Iterator[Details]:
    """Examples, histograms, words and neighbours; of every model that has them."""
    for i, (name, entry) in enumerate(results.sections.get("examples", {}).items()):

        def tensor(key: str, name: str = name) -> np.ndarray:
            return results.tensor("examples", name, key).numpy()

        peak = tensor("shown/peak")
        lengths = np.array([len(transcript["tokens"]) for transcript in entry["transcripts"]] or [0])
        shown, top = tensor("shown/transcript"), tensor("top/transcript")
        document = {
            **{key: entry[key] for key in ("splits", "neurons", "kinds", "transcripts", "words_in_of", "where")},
            "words_in": [_short(words) for words in entry["words_in"]],
            "words_out": entry["words_out"]
            and [{"raised": _short(each["raised"]), "lowered": _short(each["lowered"])} for each in entry["words_out"]],
            "shown": shown.tolist(),
            "peaks": _rounded(peak),
            "edges": _rounded(tensor("histogram/edge")[:, [0, -1]]),
            "counts": tensor("histogram/count").tolist(),
            "correlated": [tensor("correlated/neuron").tolist(), _rounded(tensor("correlated/value"))],
            "cosine": [tensor("cosine/neuron").tolist(), _rounded(tensor("cosine/value"))],
        }
        first = np.array([_first_meant(entry["where"], transcript) for transcript in entry["transcripts"]] or [0])
        found = _levels(tensor("shown/activation").astype(np.float32), tensor("shown/start"), shown, lengths, first)
        document |= {"starts": found.start.tolist(), "largest": _rounded(found.largest), "peak_at": found.peak_at.tolist()}
        small = len(lengths) < 2**15
        blocks = {
            f"examples-{i}": json_block(document),
            f"activations-{i}": array_block(found.level),
            f"top-{i}": array_block(top.astype(np.int16 if small else np.int32)),
        }
        about = {key: entry[key] for key in ("model", "dataset", "site", "where", "pairs")}
        yield Details(about | {"number": i, "most": len(top), "bytes": 2 if small else 4, "shape": list(top.shape[1:])}, blocks)


class _Levels(NamedTuple):
    """Token activations as 63rds of the largest size in each example: enough for a colour. All of one example after the other.

    Attributes:
        start: where an example begins, -1 for none.
        largest: the size that 63 stands for.
        peak_at: the token of the largest size among those that the peak is of.
    """

    level: Int8[np.ndarray, " token"]
    start: Int64[np.ndarray, "shown example"]
    largest: Float64[np.ndarray, "shown example"]
    peak_at: Int64[np.ndarray, "shown example"]


def _levels(flat: np.ndarray, starts: np.ndarray, shown: np.ndarray, lengths: np.ndarray, first: np.ndarray) -> _Levels:
    pieces, at = [np.zeros(0, dtype=np.int8)], 0
    result = _Levels(pieces[0], *(np.full(shown.shape, -1, dtype=dtype) for dtype in (np.int64, np.float64, np.int64)))
    for place in np.ndindex(*shown.shape):
        which = shown[place]
        if which >= 0:
            values = np.nan_to_num(flat[starts[place] : starts[place] + lengths[which]])
            largest = np.abs(values).max()
            result.start[place], result.largest[place] = at, largest
            result.peak_at[place] = first[which] + np.abs(values[first[which] :]).argmax()
            pieces.append(np.round(values / largest * 63 if largest else values).astype(np.int8))
            at += len(values)
    return result._replace(level=np.concatenate(pieces))


def _first_meant(where: Where, transcript: TranscriptJson) -> int:
    """The first token that a peak may be at."""
    starts: dict[Where, int] = {"all": 0, "readout": len(transcript["tokens"]) - 1, "response": transcript["response_start"]}
    return starts[where]


def _short(words: WordsJson) -> WordsJson:
    """Tokens with three digits of their numbers."""
    return [[token, float(f"{value:.3g}")] for token, value in words]


def _rounded(values: np.ndarray) -> Any:
    """Five digits of each number."""
    return [[float(f"{value:.5g}") if math.isfinite(value) else None for value in row] for row in values.tolist()]


def flat(coords: NeuronsJson, width: int) -> list[int]:
    """Neurons as one number each, layer by layer."""
    return [layer * width + neuron for layer, neuron in NeuronSet.from_json(coords)]
