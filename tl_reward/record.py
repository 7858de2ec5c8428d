"""How each analysis enters a run: the one place that says what a section of `Results` holds."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from tl_reward.ablation import AblationCurve
from tl_reward.attribution import Attribution
from tl_reward.discovery import Discovery
from tl_reward.effects import Comparison
from tl_reward.errors import InputError
from tl_reward.overlap import compare
from tl_reward.pairs import PreferencePair
from tl_reward.results import Results, pair_hash
from tl_reward.scores import Scores
from tl_reward.sites import NeuronSet, SiteKind, tied_at_cut
from tl_reward.statistics import StatisticName


def record_scores(results: Results, model: str, dataset: str, scores: Scores) -> None:
    """Rewards as tensors `chosen` and `rejected` [pair], float64; ids in the JSON."""
    entry = {"model": model, "dataset": dataset, "ids": list(scores.ids)} | scores.to_json()
    tensors = {"chosen": torch.from_numpy(scores.chosen), "rejected": torch.from_numpy(scores.rejected)}
    results.add("scores", f"{model} · {dataset}", entry, tensors)


def record_discovery(results: Results, model: str, dataset: str, discovery: Discovery) -> None:
    """Statistics as tensors `site/statistic` [side, layer, neuron], float32; side 0 is chosen, 1 rejected."""
    tensors = {f"{site}/{name}": value for (site, name), value in discovery.by_side.items()}
    entry = {
        "dataset": dataset,
        "pairs": len(discovery.pairs),
        "pair_hashes": list(discovery.pairs),
        "tokens": discovery.tokens,
        "computed": sorted(tensors),
        "shape": list(next(iter(tensors.values())).shape[1:]),
    }
    results.add("discovery", model, entry, tensors)


def ranking_of(results: Results, model: str, score: StatisticName, site: SiteKind) -> torch.Tensor:
    """A recorded ranking [layer, neuron]: the mean of both sides."""
    return results.tensor("discovery", model, f"{site}/{score}").mean(0)


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
        found: the discovery entry that the ranking came from.
        pairs: the tested pairs.
    """
    seen = set(found["pair_hashes"])
    entry = {
        "model": model,
        "dataset": dataset,
        "score": score,
        "site": site,
        "found_on": found["dataset"],
        "tested_pairs_that_found": sum(pair_hash(pair) in seen for pair in pairs),
    }
    results.add("ablation", f"{model} · {dataset}", entry | curve.to_json())


def record_attribution(
    results: Results, model: str, dataset: str, attribution: Attribution, comparison: Comparison, *, site: str, steps: int | None
) -> None:
    """Estimated effects as tensors `effect` and `gradient` [layer, neuron], float32; exact ones, and their agreement, in the JSON."""
    estimated = {place: float(value) for place, value in zip(comparison.effects.neurons, comparison.estimated, strict=True)}
    drawn = {place: bool(value) for place, value in zip(comparison.effects.neurons, comparison.drawn, strict=True)}
    exact = [
        entry | {"estimated": estimated[entry["layer"], entry["neuron"]], "drawn": drawn[entry["layer"], entry["neuron"]]}
        for entry in comparison.effects.to_json()
    ]
    entry = {
        "model": model,
        "dataset": dataset,
        "site": site,
        "method": "activation x gradient" if steps is None else f"integrated gradients, {steps} steps",
        "pairs": len(attribution.pairs),
        "pair_hashes": list(attribution.pairs),
        "exact": exact,
        "agreement": comparison.agreement.to_json(),
        "agreement_drawn": comparison.agreement_drawn.to_json(),
    }
    tensors = {"effect": attribution.effect, "gradient": attribution.gradient}
    results.add("attribution", f"{model} · {dataset}", entry, tensors)


def record_overlap(
    results: Results,
    source: Results,
    *,
    score: StatisticName,
    site: SiteKind,
    fraction: float,
    models: Sequence[str] | None = None,
) -> None:
    """Compares the top share of neurons of every model that `source` has a discovery of.

    Args:
        models: which of them; None is all.
    """
    rankings = {model: ranking_of(source, model, score, site) for model in models or source.section("discovery")}
    shapes = {model: list(ranking.shape) for model, ranking in rankings.items()}
    if len(shapes) < 2 or len({tuple(shape) for shape in shapes.values()}) > 1:
        raise InputError(f"overlap needs two or more models of one shape, got {shapes}")
    sets = {model: NeuronSet.top(ranking, fraction=fraction) for model, ranking in rankings.items()}
    n_layers, d_mlp = next(iter(rankings.values())).shape
    entry = {
        "score": score,
        "site": site,
        "fraction": fraction,
        "n_layers": n_layers,
        "d_mlp": d_mlp,
        "ties_at_cut": {model: tied_at_cut(rankings[model], len(sets[model])) for model in sets},
        "top": {model: neurons.to_json() for model, neurons in sets.items()},
    }
    results.add("overlap", f"{score} at {site}, top {fraction:.0%}", entry | compare(sets, n_layers=n_layers, d_mlp=d_mlp))
