"""What a run says of sets of neurons: which serve one objective at the other's cost, which models share, which tell answers apart."""

from collections import Counter
from typing import NamedTuple

from tl_reward.measures.intervals import FEW
from tl_reward.measures.json_types import PairOverlapJson
from tl_reward.results.findings.clear import by_p, chance_range
from tl_reward.results.findings.finding import Finding, LinkJson, link
from tl_reward.results.findings.words import MOST, clipped, counted, listed, others, percent, share_of_all, span, units
from tl_reward.results.sections import OverlapEntry, Sections, TensionEntry
from tl_reward.sites import UnitSite

# The reading of a neuron that is looked at first: the study's, which is also the page's.
_SITES: tuple[UnitSite, ...] = ("mlp_gate", "mlp_post", "attn_z")


def in_conflict(sections: Sections) -> Finding | None:
    """Neurons that raise one objective's margin and lower the other's, among those clear on both, beside shuffled signs."""
    entries = sections.get("tension", {})
    sides = {name: _side(entry, len(entries)) for name, entry in entries.items()}
    clear = {name: entries[name] for name, side in sides.items() if side}
    if not clear:
        return None
    said = [_conflict(entry, sides[name]) for name, entry in clear.items()]
    kinds = " or ".join(dict.fromkeys(units(entry["site"]) for entry in clear.values()))
    read = dict.fromkeys(_pairs_read(entry) for entry in clear.values())
    return Finding(
        f"Of the {kinds} that clearly move both objectives' margins, these raise one and lower the other: {listed(said)}. Estimated "
        f"{listed([*read], comma='; ')}.{others(len(entries), len(clear))}",
        "Said where, of the neurons whose effects on both margins are clear (false discovery rate 5 %), the share that raises one margin "
        "and lowers the other is outside the 95 % range of signs shuffled within each layer, and its p-value is below 0.05. "
        f"{counted(len(entries), len(clear), 'with p-values multiplied by {}')}",
        tuple(_to_tension(name, entry) for name, entry in [*clear.items()][:MOST]),
    )


def _side(entry: TensionEntry, among: int) -> int:
    found = entry["conflict_clear"]
    if found["neurons"] < FEW or not by_p(found["p_value"], among):
        return 0
    return 1 if found["share"] > found["high"] else -1 if found["share"] < found["low"] else 0


def _conflict(entry: TensionEntry, side: int) -> str:
    found = entry["conflict_clear"]
    return (
        f"{percent(found['share'])} in the {clipped(entry['model'])} model ({found['share'] * found['neurons']:,.0f} of "
        f"{found['neurons']:,}; {'more' if side > 0 else 'fewer'} than by chance, {span(found['low'], found['high'])})"
    )


def _pairs_read(entry: TensionEntry) -> str:
    counts = " and ".join(f"{entry['pairs'][name]:,} {clipped(name)}" for name in entry["objectives"])
    return f"by {entry['method']} on {counts} pairs"


def _to_tension(name: str, entry: TensionEntry) -> LinkJson:
    return {**link(f"{clipped(entry['model'])}: both margins", "tension", name), "model": entry["model"]}


class _Shared(NamedTuple):
    """Two sets of top neurons: how many they share, and how many by chance if they are independent within each layer."""

    pair: PairOverlapJson
    smaller: int
    mean: float

    def side(self, among: int) -> int:
        low, high = chance_range(self.mean, among)
        return 1 if self.pair["shared"] > high else -1 if self.pair["shared"] < low else 0

    def said(self) -> str:
        low, high = chance_range(self.mean)
        return (
            f"{clipped(self.pair['a'])} and {clipped(self.pair['b'])} {self.pair['shared']:,} "
            f"({percent(self.pair['shared'] / self.smaller)}; by chance {low:,} to {high:,})"
        )


def shared_neurons(sections: Sections) -> Finding | None:
    """Pairs of sets of top neurons that share more, or fewer, than sets with as many neurons in each layer would."""
    entries = sections.get("overlap", {})
    tried = [(name, each) for name, entry in entries.items() for each in _pairs(entry)]
    clear = [(name, each, side) for name, each in tried if (side := each.side(len(tried)))]
    if not clear:
        return None
    said: dict[str, list[str]] = {}
    for of, each, side in clear:
        than = "more" if side > 0 else "fewer"
        said.setdefault(f"{_what(entries[of])}, sets share {than} than by chance within layers", []).append(each.said())
    name = clear[0][0]
    return Finding(
        " ".join(f"{what}: {listed(parts)}." for what, parts in said.items()) + others(len(tried), len(clear)),
        "Said where the number of shared neurons is outside the range that independent sets with as many neurons in each layer would have "
        "(Poisson, 95 %). Sets of one model by two scores are not compared. Models trained from one base share much for that alone. "
        f"{counted(len(tried), len(clear), 'with ranges made wider for {}')}",
        (link("overlaps", "overlap", name), *_to_shared(name, entries[name])),
    )


def _pairs(entry: OverlapEntry) -> list[_Shared]:
    layers = {label: Counter(layer for layer, _ in neurons) for label, neurons in entry["top"].items()}
    found = []
    for pair in entry["pairs"]:
        a, b = layers[pair["a"]], layers[pair["b"]]
        smaller = min(a.total(), b.total())
        if smaller >= FEW and _model(entry, pair["a"]) != _model(entry, pair["b"]):
            found.append(_Shared(pair, smaller, sum(count * b[layer] for layer, count in a.items()) / entry["d_mlp"]))
    return found


def _model(entry: OverlapEntry, label: str) -> str:
    """Whose neurons a set is of: with several scores or sites its label ends in `, SCORE at SITE`, or is that alone for a single model."""
    ways = [f"{score} at {site}" for score in entry["score"].split(", ") for site in entry["site"].split(", ")]
    if len(ways) == 1:
        return label
    way = next((each for each in ways if label == each or label.endswith(f", {each}")), "")
    return label.removesuffix(way) if way else label


def _what(entry: OverlapEntry) -> str:
    sizes = {len(neurons) for neurons in entry["top"].values()}
    each = f"{sizes.pop():,} each, " if len(sizes) == 1 else ""
    by = f"{each}ranked by {clipped(entry['score'])} at {clipped(entry['site'])}"
    return f"Of the top {share_of_all(entry['fraction'])} of {units(entry['site'])} ({by})"


def _to_shared(name: str, entry: OverlapEntry) -> list[LinkJson]:
    """The neurons that are in every set."""
    every = set.intersection(*({(layer, neuron) for layer, neuron in neurons} for neurons in entry["top"].values()))
    if not every or "attn_z" in entry["site"] or len(entry["top"]) < 2:
        return []
    return [{**link(f"{len(every):,} that all {len(entry['top'])} share", "overlap", name), "sets": [*entry["top"]]}]


def answers_told_apart(sections: Sections) -> Finding | None:
    """Neurons whose activation differs between chosen and rejected answers."""
    found = {}
    for name, entry in sections.get("discovery", {}).items():
        site = min(entry["contrast"], key=_SITES.index, default=None)
        if site is not None:
            found[name] = (site, entry["contrast"][site])
    clear = {
        name: (site, each)
        for name, (site, each) in found.items()
        if each["discoveries"] > 0 and min(each["chosen"], each["rejected"]) >= FEW
    }
    if not clear:
        return None
    said = [
        f"{each['discoveries']:,} of {each['neurons']:,} {units(site)} of the {clipped(name)} model "
        f"({each['chosen']:,} and {each['rejected']:,} transcripts)"
        for name, (site, each) in clear.items()
    ]
    return Finding(
        f"Mean activations differ between chosen and rejected answers (false discovery rate 5 %) in {listed(said)}."
        f"{others(len(found), len(clear))}",
        "Said where Welch's test finds neurons at a false discovery rate of 5 % among all of a model's, with "
        f"transcripts taken as independent; means at "
        f"{' and '.join(dict.fromkeys(site for site, _ in clear.values()))}, over {FEW} transcripts a side or more. "
        f"{counted(len(found), len(clear), '')}",
        tuple({**link(f"{clipped(name)}: map", "discovery", name), "model": name} for name in [*clear][:MOST]),
    )
