"""What a run says of every neuron of a reward model: a column a quantity."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypedDict, TypeVar

import numpy as np
from jaxtyping import Float
from torch import Tensor

from tl_reward.errors import InputError
from tl_reward.measures.json_types import EffectJson, EstimateJson, MaybeEstimateJson
from tl_reward.results.sections import AttributionEntry, EffectsEntry, OverlapEntry, TensionEntry
from tl_reward.results.store import Results
from tl_reward.show.intervals import ends

# Of a discovery, at one site: statistics, and how the sides differ. A page that held all of them would not be small.
_STATISTICS = {
    "mean": "mean activation over all tokens",
    "change": "root mean square, over all tokens, of the activation minus the base model's",
}
_MLP_SITES = ("mlp_gate", "mlp_post")


class Column(NamedTuple):
    """One number a neuron.

    Attributes:
        key: the quantity; the same in every reward model that has it.
        unit: of the values.
        neutral: the value that says nothing: the middle of the colour scale.
        error: standard errors, or None.
        prompts: how many different ones the standard errors are over.
        basis: a digest of the pairs, the site and the way that the numbers were made; two models' numbers are compared where it is the
            same. Empty where the run does not tell.
        dataset: of an effect on rewards, the data set that it is of.
    """

    model: str
    key: str
    about: str
    unit: str
    values: Float[np.ndarray, "layer neuron"]
    neutral: float = 0.0
    error: Float[np.ndarray, "layer neuron"] | None = None
    prompts: int | None = None
    basis: str = ""
    dataset: str = ""


def _basis(pair_hashes: Sequence[str], *made: str) -> str:
    """See `Column.basis`."""
    return hashlib.sha256(json.dumps([sorted(pair_hashes), *made]).encode()).hexdigest()[:12] if pair_hashes else ""


def columns_of(results: Results) -> list[Column]:
    """Effects first, then what was found without an edit. Attention heads have none: a map of heads is a figure of its own. An attribution
    that checked the very effects of a tension is no second column."""
    pulls = [*_tension_columns(results)]
    known = [column for column in _attribution_columns(results) if not any(_same(column, pull) for pull in pulls)]
    return [*pulls, *known, *_statistics_columns(results), *_gate_columns(results)]


def shape_of(results: Results, model: str) -> tuple[int, int] | None:
    """Layers and neurons of a model in the run; None where the run does not tell."""
    shapes = [column.values.shape for column in columns_of(results) if column.model == model]
    return (int(shapes[0][0]), int(shapes[0][1])) if shapes else None


def mean_of(results: Results, model: str) -> Float[Tensor, "layer neuron"] | None:
    """Each neuron's mean at "mlp_post", over both sides; None where the run does not have it."""
    entry = results.sections.get("discovery", {}).get(model)
    if entry is None or "mlp_post/mean" not in entry["computed"]:
        return None
    return results.tensor("discovery", model, "mlp_post/mean").mean(0)


class ExactEffect(TypedDict):
    """What an edit of one neuron alone takes off the margin, of all pairs ("all") and of those of each objective."""

    model: str
    neuron: list[int]
    kind: str
    dataset: str
    pairs: int
    margins: dict[str, MaybeEstimateJson]


def exact_effects(results: Results) -> list[ExactEffect]:
    """Every edit of one neuron alone, with intervals over prompts: what an ablation took off the margin, so that a neuron which raises
    it has a positive effect; and what a patch (kind "patch") added to it."""
    attributed = (each for entry in results.sections.get("attribution", {}).values() for each in _exact(entry, entry["exact"]))
    edited = (each for entry in results.sections.get("effects", {}).values() for each in _exact(entry, entry["effects"]))
    return [*attributed, *edited]


def _exact(entry: AttributionEntry | EffectsEntry, rows: Sequence[EffectJson]) -> Iterator[ExactEffect]:
    for row in rows:
        if entry["site"] == "attn_z" or len(row["neurons"]) != 1:
            continue
        sign = -1 if entry["kind"] == "patch" else 1
        margins = {where: _signed(margin, sign) for where, margin in ({"all": row["margin"]} | row["by_objective"]).items()}
        yield {
            "model": entry["model"],
            "neuron": row["neurons"][0],
            "kind": entry["kind"],
            "dataset": entry["dataset"],
            "pairs": entry["pairs"],
            "margins": margins,
        }


def _signed(estimate: EstimateJson, sign: int) -> MaybeEstimateJson:
    """The estimate, or its negative, whose ends change places."""
    low, high = sorted(sign * end for end in ends(estimate) or ()) or (None, None)
    return {"value": sign * estimate["value"], "low": low, "high": high, "n": estimate["n"]}


def _tension_columns(results: Results) -> Iterator[Column]:
    for name, entry in _of_neurons(results.sections.get("tension", {})).items():
        for objective in entry["objectives"]:
            yield Column(
                entry["model"],
                tension_key(results, entry, objective),
                f"Estimated effect on the mean margin of {entry['pairs'][objective]} {objective} pairs of {entry['dataset']}, by "
                f"{entry['method']} at {entry['site']}. Positive: the neuron raises the margin.",
                "reward units",
                results.tensor("tension", name, f"{objective}/effect").numpy(),
                error=_finite(results.tensor("tension", name, f"{objective}/error").numpy()),
                prompts=entry["prompts"][objective],
                basis=_basis(entry["pair_hashes"], entry["site"], entry["method"]),
                dataset=entry["dataset"],
            )


def tension_key(results: Results, entry: TensionEntry, objective: str) -> str:
    """The column of an entry of the section "tension"."""
    return f"effect on {objective} margin{_beside_others(results.sections.get('tension', {}), entry)}"


def _attribution_columns(results: Results) -> Iterator[Column]:
    for name, entry in _of_neurons(results.sections.get("attribution", {})).items():
        patched = entry["kind"] == "patch"
        beside = _beside_others(results.sections.get("attribution", {}), entry)
        for method, found in entry["methods"].items():
            effect = results.tensor("attribution", name, f"{method}/effect").numpy()
            yield Column(
                entry["model"],
                f"{'margin added by patching' if patched else 'effect on margin'}, {method}{beside}",
                f"Estimated on {entry['pairs']} pairs of {entry['dataset']}, as {found['about']}, at {entry['site']}. Positive: "
                f"{'patching the neuron' if patched else 'the neuron'} raises the margin.",
                "reward units",
                -effect if patched else effect,
                error=_finite(results.tensor("attribution", name, f"{method}/error").numpy()),
                prompts=next((row["margin"]["n"] for row in entry["exact"]), None),
                basis=_basis(entry["pair_hashes"], entry["site"], entry["kind"], found["about"]),
                dataset=entry["dataset"],
            )


def _same(one: Column, other: Column) -> bool:
    return one.model == other.model and np.array_equal(one.values, other.values)


def _statistics_columns(results: Results) -> Iterator[Column]:
    for model, entry in results.sections.get("discovery", {}).items():
        for site in (site for site in _MLP_SITES if any(key.startswith(f"{site}/") for key in entry["computed"])):
            found = f"of {site}, {entry['pairs']} pairs of {entry['dataset']}"
            for statistic, about in _STATISTICS.items():
                if f"{site}/{statistic}" in entry["computed"]:
                    values = results.tensor("discovery", model, f"{site}/{statistic}").mean(0).numpy()
                    yield Column(
                        model,
                        f"{statistic} of {site}",
                        f"The {about}, averaged over the chosen and the rejected side: {found}.",
                        "activation",
                        values,
                        basis=_basis(entry["pair_hashes"], site),
                    )
            if site in entry["contrast"]:
                yield Column(
                    model,
                    f"AUROC of {site}",
                    f"Probability that a chosen transcript's activation exceeds a rejected one's ({entry['where']} tokens): {found}.",
                    "probability",
                    results.tensor("discovery", model, f"{site}/contrast/auroc").numpy(),
                    neutral=0.5,
                    basis=_basis(entry["pair_hashes"], site, entry["where"]),
                )
            break  # one reading of a neuron: the study's where it was computed


def _gate_columns(results: Results) -> Iterator[Column]:
    """Of each repair that edits a neuron."""
    for name, entry in results.sections.get("repair", {}).items():
        if entry["neurons"]:
            yield Column(
                entry["model"],
                "gate of the repair",
                f"What the repair multiplies each neuron by; 1 leaves it as it is. It edits {len(entry['neurons']):,} neurons.",
                "times its activation",
                results.tensor("repair", name, "gates").numpy(),
                neutral=1.0,
            )


Entry = TypeVar("Entry", TensionEntry, AttributionEntry)


# What a page draws of neurons; the largest model known has 6.7 million.
MOST_NEURONS = 50_000_000


def overlap_of(results: Results, name: str | None = None) -> OverlapEntry:
    """The overlap of that name, or the first one.

    Raises:
        InputError: it is of models that no figure can show, or names neurons that they do not have.
    """
    name = name or next(iter(results.section("overlap")))
    entry = results.entry("overlap", name)
    layers, width = entry["n_layers"], entry["d_mlp"]
    if not (layers > 0 and width > 0 and layers * width <= MOST_NEURONS):
        raise InputError(f"overlap of {name!r}: {layers:,} layers of {width:,} neurons; at most {MOST_NEURONS:,} neurons are drawn")
    for label, coords in entry["top"].items():
        for layer, neuron in coords:
            if not (0 <= layer < layers and 0 <= neuron < width):
                raise InputError(f"overlap of {name!r}: {label} has neuron {layer}.{neuron}; there are {layers} layers of {width} neurons")
    return entry


def _of_neurons(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Without those of attention heads."""
    return {name: entry for name, entry in entries.items() if entry["site"] in _MLP_SITES}


def _beside_others(entries: Mapping[str, Entry], entry: Entry) -> str:
    """What tells an entry from the others of its model: the data set, the site, how it was found; and at last its name."""
    same = {name: other for name, other in _of_neurons(entries).items() if other["model"] == entry["model"]}
    told = [_told(other) for other in same.values()]
    differ = [i for i, values in enumerate(zip(*told, strict=True)) if len(set(values)) > 1]
    parts = [_told(entry)[i] for i in differ]
    if sum([each[i] for i in differ] == parts for each in told) > 1:
        parts = [next(name for name, other in same.items() if other is entry)]
    return f" ({', '.join(parts)})" if len(same) > 1 else ""


def _told(entry: TensionEntry | AttributionEntry) -> tuple[str, str, str]:
    return entry["dataset"], entry["site"], entry["method"] if "method" in entry else entry["kind"]


def _finite(error: Float[np.ndarray, "layer neuron"]) -> Float[np.ndarray, "layer neuron"] | None:
    return error if np.isfinite(error).all() else None
