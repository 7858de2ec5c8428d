"""How edits enter a run: ablations of single neurons, of sets, and share by share; and a repair."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch

from tl_reward.analyses.ablation_curves import AblationCurve, SetAblations
from tl_reward.analyses.exact_effects import Effects
from tl_reward.data.readers import GivenPairs
from tl_reward.errors import InputError, Lacking
from tl_reward.neurons import NeuronSet
from tl_reward.repairing.result import Repair
from tl_reward.results.disk.plain import listed
from tl_reward.results.found_on import tested
from tl_reward.results.sections import (
    AblationEntry,
    EffectsEntry,
    FoundOn,
    RepairEntry,
    SetsEntry,
    TensionEntry,
    entry_about,
    made,
    read,
)
from tl_reward.results.store import Results
from tl_reward.sites import UnitSite


def record_ablation(
    results: Results,
    model: str,
    dataset: str,
    curve: AblationCurve,
    *,
    score: str,
    site: str,
    found: FoundOn,
    pairs: GivenPairs,
) -> None:
    """Keeps beside the curve where its neurons were found, and how many of the tested pairs helped to find them. Rewards as tensors
    `chosen` and `rejected` [edit, pair], float32: without an edit, and then with the top neurons ablated, share by share.

    Args:
        found: the entry that the ranking came from.
        pairs: the tested pairs.
    """
    about = entry_about(results.provenance, model, dataset, curve.clean.output)
    entry: AblationEntry = {
        **about,
        "score": score,
        "site": site,
        "pairs": len(curve.clean),
        **tested(found, pairs, about.get("output", "")),
        **read(curve.reading),
        **made(curve.precision),
        **curve.to_json(),
    }
    scored = [curve.clean, *(point.ranked for point in curve.points)]
    tensors = {
        "chosen": torch.from_numpy(np.stack([scores.chosen for scores in scored])).float(),
        "rejected": torch.from_numpy(np.stack([scores.rejected for scores in scored])).float(),
    }
    results.add("ablation", f"{entry['model']} · {dataset}", entry, tensors)


def record_effects(results: Results, model: str, dataset: str, effects: Effects) -> None:
    """Exact effects, one entry a set of neurons, and the effect on each pair as tensors `chosen` and `rejected` [set, pair], float64, in
    the order of `sets`."""
    entry: EffectsEntry = {
        **entry_about(results.provenance, model, dataset, effects.clean.output),
        "site": effects.site,
        "kind": effects.kind,
        "pairs": len(effects.clean),
        "clean": effects.clean.to_json(),
        "sets": list(effects.sets),
        "effects": effects.to_json(),
        **read(effects.reading),
        **made(effects.precision),
    }
    tensors = {"chosen": torch.from_numpy(effects.chosen), "rejected": torch.from_numpy(effects.rejected)}
    results.add("effects", f"{entry['model']} · {dataset}, {effects.kind}", entry, tensors)


def record_sets(
    results: Results,
    model: str,
    dataset: str,
    found: SetAblations,
    *,
    site: str,
    source: FoundOn | None,
    pairs: GivenPairs,
) -> None:
    """Sets of neurons, zeroed.

    Args:
        source: the entry that the sets come from, with the pairs that found them; None where somebody named them.
        pairs: the tested pairs.
    """
    about = entry_about(results.provenance, model, dataset, found.clean.output)
    entry: SetsEntry = {
        **about,
        "site": site,
        **tested(source, pairs, about.get("output", "")),
        **read(found.reading),
        **made(found.precision),
        **found.to_json(),
    }
    results.add("sets", f"{entry['model']} · {dataset}", entry)


def record_repair(results: Results, model: str, found: Repair) -> None:
    """An edit with its evidence, named by its model alone: one a model. Its gates are a tensor `gates` [layer, neuron], float32."""
    tested = ", ".join(dict.fromkeys(each.tested for each in found.evidence))
    entry: RepairEntry = {**entry_about(results.provenance, model, tested, found.output), **found.to_json()}
    results.add("repair", entry["model"], entry, {"gates": found.gates.float()})


class RecordedSets(NamedTuple):
    """Sets of neurons by name, and the entry of the run that they come from."""

    sets: Mapping[str, NeuronSet]
    entry: TensionEntry


def sets_of(results: Results, model: str, site: UnitSite | None = None) -> RecordedSets:
    """The sets of a recorded tension that have a neuron: the top of each objective, and the quadrants.

    Args:
        site: which one, where the run has several of the model.

    Raises:
        Lacking: the run has no tension of that model, at that site.
        InputError: it has several.
    """
    entries = results.section("tension")
    found = [entry for entry in entries.values() if entry["model"] == model and site in (None, entry["site"])]
    at = f"{model} at {site}" if site else model
    if not found:
        raise Lacking(f"one tension of {at} is needed; the run has {listed(entries)}", "tension")
    if len(found) > 1:
        sites = ", ".join(entry["site"] for entry in found)
        raise InputError(f"one tension of {at} is needed; the run has {len(found)}, at {sites}: say which site")
    sets = {f"top {name}": coords for name, coords in found[0]["top"].items()} | found[0]["quadrants"]
    return RecordedSets({name: NeuronSet.from_json(coords) for name, coords in sets.items() if coords}, found[0])
