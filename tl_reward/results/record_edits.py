"""How ablations enter a run: of single neurons, of sets, and share by share."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from tl_reward.analyses.ablation_curves import AblationCurve, SetAblations
from tl_reward.analyses.exact_effects import Effects
from tl_reward.data.pairs import PreferencePair, pair_hash
from tl_reward.errors import InputError
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results


def record_ablation(
    results: Results,
    model: str,
    dataset: str,
    curve: AblationCurve,
    *,
    score: str,
    site: str,
    found: Mapping[str, Any],
    pairs: Sequence[PreferencePair],
) -> None:
    """Keeps beside the curve where its neurons were found, and how many of the tested pairs helped to find them.

    Args:
        found: the entry that the ranking came from.
        pairs: the tested pairs.
    """
    entry = {
        "model": model,
        "dataset": dataset,
        "score": score,
        "site": site,
        "found_on": found["dataset"],
        "tested_pairs_that_found": tested_pairs_that_found(found, pairs),
    }
    results.add("ablation", f"{model} · {dataset}", entry | curve.to_json())


def record_effects(results: Results, model: str, dataset: str, effects: Effects) -> None:
    """Exact effects, one entry a set of neurons, and the effect on each pair as tensors `chosen` and `rejected` [set, pair], float64, in
    the order of `sets`."""
    entry = {
        "model": model,
        "dataset": dataset,
        "site": effects.site,
        "kind": effects.kind,
        "pairs": len(effects.clean),
        "clean": effects.clean.to_json(),
        "sets": list(effects.sets),
        "effects": effects.to_json(),
    }
    tensors = {"chosen": torch.from_numpy(effects.chosen), "rejected": torch.from_numpy(effects.rejected)}
    results.add("effects", f"{model} · {dataset}, {effects.kind}", entry, tensors)


def record_sets(
    results: Results,
    model: str,
    dataset: str,
    found: SetAblations,
    *,
    site: str,
    source: Mapping[str, Any],
    pairs: Sequence[PreferencePair],
) -> None:
    """Sets of neurons, zeroed.

    Args:
        source: the entry that the sets come from, with the pairs that found them.
        pairs: the tested pairs.
    """
    entry = {
        "model": model,
        "dataset": dataset,
        "site": site,
        "found_on": source["dataset"],
        "tested_pairs_that_found": tested_pairs_that_found(source, pairs),
    }
    results.add("sets", f"{model} · {dataset}", entry | found.to_json())


class RecordedSets(NamedTuple):
    """Sets of neurons by name, and the entry of the run that they come from."""

    sets: Mapping[str, NeuronSet]
    entry: Mapping[str, Any]


def sets_of(results: Results, model: str) -> RecordedSets:
    """The sets of a recorded tension that have a neuron: the top of each objective, and the quadrants."""
    found = [entry for entry in results.section("tension").values() if entry["model"] == model]
    if len(found) != 1:
        raise InputError(f"one tension of {model} is needed; the run has {', '.join(results.section('tension'))}")
    sets = {f"top {name}": coords for name, coords in found[0]["top"].items()} | found[0]["quadrants"]
    return RecordedSets({name: NeuronSet.from_json(coords) for name, coords in sets.items() if coords}, found[0])


def tested_pairs_that_found(source: Mapping[str, Any], pairs: Sequence[PreferencePair]) -> int:
    """How many of the tested pairs helped to find the neurons."""
    hashes = set(source["pair_hashes"])
    return sum(pair_hash(pair) in hashes for pair in pairs)
