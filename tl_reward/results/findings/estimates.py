"""What a run says of single neurons: whether estimated effects are as exact ones, and which neurons matter when edited alone."""

from tl_reward.measures.json_types import AgreementJson, EffectJson, EstimateJson
from tl_reward.results.findings.clear import side_of
from tl_reward.results.findings.finding import Finding, LinkJson, link
from tl_reward.results.findings.words import clipped, counted, listed, others, pairs_of, to_digits
from tl_reward.results.sections import AttributionEntry, Sections


def estimates_hold(sections: Sections) -> Finding | None:
    """Estimated effects whose ranks go with those of exact effects."""
    entries = sections.get("attribution", {})
    among = sum(len(entry["methods"]) for entry in entries.values())  # the best method is the best of these
    clear = {name: entry for name, entry in entries.items() if side_of(_best(entry)["spearman"], 0, among) > 0}
    if not clear:
        return None
    said = [
        f"{to_digits(_best(entry)['spearman'])} in the {clipped(entry['model'])} model on "
        f"{pairs_of(entry['pairs'], entry['dataset'])} ({clipped(entry['best'])}; {_best(entry)['neurons']:,} neurons, "
        f"{entry['methods'][entry['best']]['agreement_drawn']['neurons']:,} of them drawn at random)"
        for entry in clear.values()
    ]
    return Finding(
        f"Estimated effects of single neurons rank as exact ones do: Spearman {listed(said, comma='; ')}."
        f"{others(len(entries), len(clear))}",
        "Said where the interval of Spearman's correlation over neurons is above 0. Of several methods the best one is taken, and all "
        f"count as looked at. Neurons with large estimates are among those compared. {counted(among, len(clear))}",
        tuple(each for name, entry in [*clear.items()][:2] for each in _to_attribution(name, entry)),
    )


def _best(entry: AttributionEntry) -> AgreementJson:
    return entry["methods"][entry["best"]]["agreement"]


def _to_attribution(name: str, entry: AttributionEntry) -> list[LinkJson]:
    shown = [link("estimated beside exact effects", "attribution", name)]
    largest = max(entry["exact"], key=lambda row: abs(row["margin"]["value"]))
    return shown + _to_neuron(f"neuron {clipped(largest['name'])}", "attribution", name, entry["model"], largest)


def _to_neuron(label: str, section: str, name: str, model: str, row: EffectJson) -> list[LinkJson]:
    if len(row["neurons"]) != 1:
        return []
    return [{**link(label, section, name), "model": model, "neuron": [*row["neurons"][0]]}]


def edited_alone(sections: Sections) -> Finding | None:
    """Neurons, or sets of them, that change the margin when each is edited by itself."""
    entries = sections.get("effects", {})
    tried = [(name, row) for name, entry in entries.items() for row in entry["effects"]]
    clear = [(name, row, side) for name, row in tried if (side := side_of(row["margin"], 0, len(tried)))]
    if not clear:
        return None
    falls = sum(side > 0 for _, _, side in clear)
    name, row, side = max(clear, key=lambda one: abs(one[1]["margin"]["value"]))
    entry, label = entries[name], clipped(row["name"])
    return Finding(
        f"Of {len(tried):,} neurons or sets edited alone (kind: {clipped(entry['kind'])}), {len(clear):,} clearly change the margin: it "
        f"falls for {falls:,} and rises for {len(clear) - falls:,}. The largest change is that of {label} in the {clipped(entry['model'])} "
        f"model: the margin {'falls' if side > 0 else 'rises'} by {to_digits(_size(row, side), '.3g')} reward units on "
        f"{pairs_of(entry['pairs'], entry['dataset'], row['margin']['n'])}.",
        "Said where the paired change of the mean margin is clear of 0. The largest of many is likely a little overestimated. "
        f"{counted(len(tried), len(clear))}",
        (link("effects", "effects", name), *_to_neuron(f"neuron {label}", "effects", name, entry["model"], row)),
    )


def _size(row: EffectJson, side: int) -> EstimateJson:
    """By how much the margin moves, whichever way; positive effects lower it."""
    margin = row["margin"]
    low, high = margin["low"], margin["high"]
    if side > 0 or low is None or high is None:
        return margin
    return {"value": -margin["value"], "low": -high, "high": -low, "n": margin["n"]}
