"""What a run says of single neurons: whether estimated effects are as exact ones, and which neurons matter when edited alone."""

from collections.abc import Mapping, Sequence

from tl_reward.measures.json_types import AgreementJson, EffectJson, EstimateJson
from tl_reward.results.findings.clear import side_of
from tl_reward.results.findings.finding import Finding, LinkJson, link
from tl_reward.results.findings.words import clipped, counted, listed, others, pairs_of, starred, to_digits, units
from tl_reward.results.sections import AttributionEntry, EffectsEntry, Sections


def estimates_hold(sections: Sections) -> Finding | None:
    """Estimated effects whose ranks go with those of exact effects, or against them."""
    entries = sections.get("attribution", {})
    among = sum(len(entry["methods"]) for entry in entries.values())  # the best method is the best of these
    clear = {name: entry for name, entry in entries.items() if side_of(_best(entry)["spearman"], 0, among)}
    if not clear:
        return None
    said = [_agreement(entry) for entry in clear.values()]
    kinds = " or ".join(dict.fromkeys(units(entry["site"]) for entry in clear.values()))
    return Finding(
        f"The rank correlation (Spearman) of estimated with exact effects of single {kinds} is {listed(said, comma='; ')}."
        f"{others(len(entries), len(clear))}",
        "Said where the interval of Spearman's correlation over neurons is clear of 0, above or below. Of several methods the best one is "
        f"taken, and all count as looked at. Those with the largest estimates are among those compared; how it is at large, those drawn at "
        f"random say. {counted(len(entries), len(clear), among=among)}{starred(' '.join(said))}",
        tuple(each for name, entry in [*clear.items()][:2] for each in _to_attribution(name, entry)),
    )


def _agreement(entry: AttributionEntry) -> str:
    best, at_large, where = _best(entry), _at_large(entry), pairs_of(entry["pairs"], entry["dataset"])
    drawn = f"{to_digits(at_large['spearman'])} over the {at_large['neurons']:,} of them that were drawn at random"
    compared = f"{clipped(entry['best'])}; {best['neurons']:,} {units(entry['site'], best['neurons'])}; {drawn}"
    return f"{to_digits(best['spearman'])} in the {clipped(entry['model'])} model on {where} ({compared})"


def _best(entry: AttributionEntry) -> AgreementJson:
    return entry["methods"][entry["best"]]["agreement"]


def _at_large(entry: AttributionEntry) -> AgreementJson:
    return entry["methods"][entry["best"]]["agreement_drawn"]


def _to_attribution(name: str, entry: AttributionEntry) -> list[LinkJson]:
    shown = [link("estimated beside exact effects", "attribution", name)]
    largest = max(entry["exact"], key=lambda row: abs(row["margin"]["value"]))
    return shown + _to_neuron("attribution", name, entry, largest)


def _to_neuron(section: str, name: str, entry: AttributionEntry | EffectsEntry, row: EffectJson) -> list[LinkJson]:
    """None to a head, or a set: these have no page of their own."""
    if entry["site"] == "attn_z" or len(row["neurons"]) != 1:
        return []
    return [{**link(f"neuron {clipped(row['name'])}", section, name), "model": entry["model"], "neuron": [*row["neurons"][0]]}]


def edited_alone(sections: Sections) -> Finding | None:
    """Neurons, or sets of them, that change the margin when each is edited by itself."""
    entries = sections.get("effects", {})
    tried = [(name, row) for name, entry in entries.items() for row in _alone(entry)]
    clear = [(name, row, side) for name, row in tried if (side := side_of(row["margin"], 0, len(tried)))]
    if not clear:
        return None
    falls = sum(side > 0 for _, _, side in clear)
    name, row, side = max(clear, key=lambda one: abs(one[1]["margin"]["value"]))
    entry, label = entries[name], clipped(row["name"])
    return Finding(
        f"Of {_counts(entries, tried)}, {len(clear):,} clearly change the margin: it falls for {falls:,} and rises for "
        f"{len(clear) - falls:,}. The largest change is that of {label} in the {clipped(entry['model'])} model (kind: "
        f"{clipped(entry['kind'])}): the margin {'falls' if side > 0 else 'rises'} by {to_digits(_size(row, side), '.3g')} reward units on "
        f"{pairs_of(entry['pairs'], entry['dataset'], row['margin']['n'])}.",
        "Said where the paired change of the mean margin is clear of 0. All of an entry together are left out where each is edited "
        f"alone. The largest of many is likely a little overestimated. {counted(len(tried), len(clear))}",
        (link("effects", "effects", name), *_to_neuron("effects", name, entry, row)),
    )


def _alone(entry: EffectsEntry) -> list[EffectJson]:
    """Without the row of all neurons together, where each of them has a row of its own."""
    singles = {tuple(row["neurons"][0]) for row in entry["effects"] if len(row["neurons"]) == 1}
    return [row for row in entry["effects"] if len(row["neurons"]) == 1 or {tuple(each) for each in row["neurons"]} != singles]


def _counts(entries: Mapping[str, EffectsEntry], tried: Sequence[tuple[str, EffectJson]]) -> str:
    """How many neurons, or sets, of which kinds of edit; and how many tests these are, where one is tested more than once."""
    edited = {(entries[name]["model"], entries[name]["site"], *sorted(map(tuple, row["neurons"]))) for name, row in tried}
    kinds, datasets = ([*dict.fromkeys(entries[name][key] for name, _ in tried)] for key in ("kind", "dataset"))
    sites = dict.fromkeys(entries[name]["site"] for name, _ in tried)
    what = list(dict.fromkeys(units(site, len(edited)) for site in sites))
    if any(len(row["neurons"]) > 1 for _, row in tried):
        what.append("set" if len(edited) == 1 else "sets")
    how = f"{'kind' if len(kinds) == 1 else 'kinds'}: {listed([*map(clipped, kinds)])}"
    on = f"; {len(datasets):,} data sets" if len(datasets) > 1 else ""
    tests = f"{len(tried):,} tests of " if len(tried) > len(edited) else ""
    return f"{tests}{len(edited):,} {' or '.join(what)} edited alone ({how}{on})"


def _size(row: EffectJson, side: int) -> EstimateJson:
    """By how much the margin moves, whichever way; positive effects lower it."""
    margin = row["margin"]
    low, high = margin.get("low"), margin.get("high")
    if side > 0 or low is None or high is None:
        return margin
    return {"value": -margin["value"], "low": -high, "high": -low, "n": margin["n"]}
