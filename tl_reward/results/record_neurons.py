"""How scores, and what was found of neurons without an edit, enter a run."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal, NamedTuple, cast

import torch
from jaxtyping import Float

from tl_reward.analyses.attribution import Attribution
from tl_reward.analyses.discovery import Discovery
from tl_reward.analyses.exact_effects import Comparison
from tl_reward.analyses.tension import Tension
from tl_reward.data.reading import Reading
from tl_reward.errors import InputError
from tl_reward.measures.contrast import FALSE_DISCOVERY_RATE, Contrast
from tl_reward.measures.names import METHODS, Method, RankingName
from tl_reward.measures.neuron_statistics import StatisticName
from tl_reward.measures.overlap import compare, shape_in_common
from tl_reward.measures.scores import Scores
from tl_reward.neurons import NeuronSet, tied_at_cut
from tl_reward.results.disk.plain import listed
from tl_reward.results.sections import (
    AttributionEntry,
    CheckedEffectJson,
    DiscoveryEntry,
    OverlapEntry,
    ScoresEntry,
    TensionEntry,
    entry_about,
    made,
    read,
)
from tl_reward.results.store import Results
from tl_reward.sites import UnitSite


def record_scores(results: Results, model: str, dataset: str, scores: Scores) -> None:
    """Rewards as tensors `chosen` and `rejected` [pair], float64; ids in the JSON."""
    about = entry_about(results.provenance, model, dataset, scores.output)
    entry: ScoresEntry = {**about, "ids": list(scores.ids), **read(scores.reading), **scores.to_json()}
    tensors = {"chosen": torch.from_numpy(scores.chosen), "rejected": torch.from_numpy(scores.rejected)}
    results.add("scores", f"{entry['model']} · {dataset}", entry, tensors)


def record_discovery(results: Results, model: str, dataset: str, discovery: Discovery) -> None:
    """Statistics as tensors `site/statistic` [side, layer, neuron], float32; side 0 is chosen, 1 rejected. `site/firing/objective` and
    `site/contrast/field` are [layer, neuron]."""
    tensors = {f"{site}/{name}": value for (site, name), value in discovery.by_side.items()}
    entry: DiscoveryEntry = {
        "dataset": dataset,
        "pairs": len(discovery.pairs),
        "pair_hashes": list(discovery.pairs),
        "tokens": discovery.tokens,
        "computed": sorted(tensors),
        "shape": list(next(iter(tensors.values())).shape[1:]),
        "firing": sorted({objective for _, objective in discovery.firing}),
        "where": discovery.where,
        **read(discovery.reading),
        "contrast": {
            site: {
                "chosen": found.chosen,
                "rejected": found.rejected,
                "discoveries": int((found.q_value <= FALSE_DISCOVERY_RATE).sum()),
                "neurons": found.q_value.numel(),
                "largest_auroc_error": float(found.auroc_error.max()),
            }
            for site, found in discovery.contrast.items()
        },
    }
    tensors |= {f"{site}/firing/{objective}": value for (site, objective), value in discovery.firing.items()}
    tensors |= {
        f"{site}/contrast/{name}": value
        for site, found in discovery.contrast.items()
        for name, value in found._asdict().items()
        if isinstance(value, torch.Tensor)
    }
    results.add("discovery", model, entry, tensors)


def discovery_of(results: Results, model: str) -> Discovery:
    """A recorded discovery. Raises InputError where the run has none of that model."""
    entry = results.entry("discovery", model)

    def tensor(name: str) -> torch.Tensor:
        return results.tensor("discovery", model, name)

    computed = [cast(tuple[UnitSite, StatisticName], tuple(key.split("/"))) for key in entry["computed"]]
    neuron_sites: list[UnitSite] = list(dict.fromkeys(site for site, _ in computed if site != "attn_z"))
    names = [name for name in Contrast._fields if name not in ("chosen", "rejected")]
    return Discovery(
        by_side={(site, name): tensor(f"{site}/{name}") for site, name in computed},
        pairs=tuple(entry["pair_hashes"]),
        tokens=entry["tokens"],
        firing={(site, objective): tensor(f"{site}/firing/{objective}") for site in neuron_sites for objective in entry["firing"]},
        contrast={
            site: Contrast(
                **{name: tensor(f"{site}/contrast/{name}") for name in names}, chosen=found["chosen"], rejected=found["rejected"]
            )
            for site, found in entry["contrast"].items()
        },
        where=entry["where"],
        reading=Reading(**entry["reading"]) if "reading" in entry else None,
    )


class Recorded(NamedTuple):
    """A ranking [layer, neuron], higher first, and the entry of the run that it comes from."""

    ranking: torch.Tensor
    entry: DiscoveryEntry | AttributionEntry


def ranking_of(results: Results, model: str, score: RankingName | Literal["attribution"], site: UnitSite) -> Recorded:
    """A recorded ranking. "attribution" is by the estimated effect on the margin, of the method that agrees best with exact ablation."""
    if score != "attribution":
        return Recorded(discovery_of(results, model).ranking(score, site), results.entry("discovery", model))
    found = {name: entry for name, entry in results.section("attribution").items() if (entry["model"], entry["site"]) == (model, site)}
    if len(found) != 1:
        have = listed(f"{entry['model']} at {entry['site']}" for entry in results.section("attribution").values())
        raise InputError(f"one attribution of {model} at {site} is needed, got {len(found)}; the run has {have} (site= says which)")
    ((name, entry),) = found.items()
    return Recorded(results.tensor("attribution", name, f"{entry['best']}/effect"), entry)


def record_attribution(
    results: Results,
    model: str,
    dataset: str,
    estimates: Mapping[Method, Attribution],
    comparison: Comparison,
    *,
    about: Mapping[Method, str] = METHODS,
) -> None:
    """Estimated effects as tensors `method/effect` and `method/error` [layer, neuron], float32; exact ones, and their agreement, in the
    JSON.

    Args:
        about: what each method does, in a few words.

    Raises:
        InputError: estimates of another output than the exact effects.
    """
    output = comparison.effects.clean.output
    other = [f"{method} of {found.output or 'none'}" for method, found in estimates.items() if found.output != output]
    if other:
        raise InputError(f"estimates and exact effects must be of one output, got {', '.join(other)}, and effects of {output or 'none'}")
    place = {name: i for i, name in enumerate(comparison.effects.sets)}
    exact: list[CheckedEffectJson] = [
        {
            **effect,
            "estimated": {method: float(values[place[effect["name"]]]) for method, values in comparison.estimated.items()},
            "drawn": bool(comparison.drawn[place[effect["name"]]]),
        }
        for effect in comparison.effects.to_json()
    ]
    pairs = next(iter(estimates.values())).pairs
    entry: AttributionEntry = {
        **entry_about(results.provenance, model, dataset, output),
        "site": comparison.effects.site,
        "kind": comparison.effects.kind,
        "methods": {
            method: {
                "about": about[method],
                "agreement": comparison.agreement[method].to_json(),
                "agreement_drawn": comparison.agreement_drawn[method].to_json(),
            }
            for method in estimates
        },
        "best": comparison.best(),
        "pairs": len(pairs),
        "pair_hashes": list(pairs),
        "exact": exact,
        **read(comparison.reading),
        **made(comparison.effects.precision),
    }
    tensors = {f"{method}/{part}": getattr(found, part) for method, found in estimates.items() for part in ("effect", "error")}
    results.add("attribution", f"{entry['model']} · {dataset}", entry, tensors)


def record_tension(results: Results, model: str, dataset: str, found: Tension, *, fraction: float) -> None:
    """The sets of `Tension.top` at that fraction beside the quadrants; effects and errors as tensors `objective/effect` and
    `objective/error` [layer, neuron], float32."""
    top = {name: neurons.to_json() for name, neurons in found.top(fraction).items()}
    hashes = [each for effect in found.effects.values() for each in effect.pairs]
    output = next(iter(found.effects.values())).output
    entry: TensionEntry = {
        **entry_about(results.provenance, model, dataset, output),
        "fraction": fraction,
        "top": top,
        "pair_hashes": hashes,
        **read(found.reading),
        **found.to_json(),
    }
    tensors = {f"{name}/{part}": getattr(effect, part) for name, effect in found.effects.items() for part in ("effect", "error")}
    results.add("tension", f"{entry['model']} · {dataset}", entry, tensors)


def record_overlap(
    results: Results,
    source: Results,
    *,
    scores: Sequence[RankingName | Literal["attribution"]],
    sites: Sequence[UnitSite],
    fraction: float,
    models: Sequence[str] | None = None,
) -> None:
    """Compares the top share of neurons of every model that `source` has a discovery or an attribution of, by every score at every site.

    Args:
        models: which of them; None is all.
    """
    ways = list(product(dict.fromkeys(sites), dict.fromkeys(scores)))
    attributed = [entry["model"] for entry in source.sections.get("attribution", {}).values()]
    recorded = [*source.sections.get("discovery", {}), *attributed]
    chosen = list(models or dict.fromkeys(recorded))
    if not chosen:
        source.section("discovery")  # says what the run has instead
    rankings = {
        model if len(ways) == 1 else f"{model}, {score} at {site}" if len(chosen) > 1 else f"{score} at {site}": ranking_of(
            source, model, score, site
        ).ranking
        for model in chosen
        for site, score in ways
    }
    tops = {name: NeuronSet.top(ranking, fraction=fraction) for name, ranking in rankings.items()}
    record_tops(results, rankings, tops, score=", ".join(dict.fromkeys(scores)), site=", ".join(dict.fromkeys(sites)), fraction=fraction)


def record_tops(
    results: Results,
    rankings: Mapping[str, Float[torch.Tensor, "layer neuron"]],
    sets: Mapping[str, NeuronSet],
    *,
    score: str,
    site: str,
    fraction: float,
) -> None:
    """Compares sets, by name, that were cut from rankings of the same names."""
    n_layers, d_mlp = shape_in_common(rankings)
    entry: OverlapEntry = {
        "score": score,
        "site": site,
        "fraction": fraction,
        "n_layers": n_layers,
        "d_mlp": d_mlp,
        "ties_at_cut": {name: tied_at_cut(rankings[name], len(sets[name])) for name in sets},
        "top": {name: neurons.to_json() for name, neurons in sets.items()},
        **compare(sets, n_layers=n_layers, d_mlp=d_mlp),
    }
    results.add("overlap", f"{score} at {site}, top {100 * fraction:g}%", entry)
