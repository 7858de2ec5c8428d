"""What a run's edits say: neurons zeroed by rank or by set, and a repair."""

from collections.abc import Iterator
from typing import NamedTuple

from tl_reward.measures.json_types import AblationPointJson, ComparedJson, EstimateJson, ScoresJson
from tl_reward.results.findings.clear import beyond, by_p, side_of
from tl_reward.results.findings.finding import Finding, link
from tl_reward.results.findings.words import (
    clipped,
    counted,
    each_named,
    found_by_tested,
    listed,
    number_of,
    others,
    pairs_of,
    percent,
    share_of_all,
    span,
    units,
    with_interval,
)
from tl_reward.results.sections import AblationEntry, RepairEntry, Sections

SHARE = 0.1  # of a curve, the share nearest to this one is looked at, whatever the others gave

_ZEROED = (
    "Said where the paired change of accuracy is clear of 0, and every layer-matched random set is outside the 95 % interval of the "
    "accuracy, on the side that it came from. "
)


class _Accuracy(NamedTuple):
    """Of one model on some pairs, before and after an edit; `drop` is the paired loss, as a share of what was there before."""

    pairs: str
    before: EstimateJson
    after: EstimateJson
    drop: EstimateJson
    random: list[float]

    def moved(self, among: int) -> bool:
        """Whether it changed clearly, and not as under random sets."""
        side = -side_of(self.drop, 0, among)
        return side != 0 and beyond(self.after, self.random, side)

    def said(self) -> str:
        drawn = f"{number_of(len(self.random), 'random set')} of the same layers"
        verb = "raises" if self.drop["value"] < 0 else "lowers"
        return (
            f"{verb} accuracy from {percent(self.before['value'])} to {with_interval(self.after)} on {self.pairs} "
            f"({drawn}: {span(min(self.random), max(self.random))})"
        )


def _accuracies(dataset: str, clean: ScoresJson, point: AblationPointJson) -> Iterator[_Accuracy]:
    """Of each objective, where all pairs name theirs; else of all pairs."""
    objectives = each_named(clean)
    if not objectives:
        before, after = clean["accuracy"], point["ranked"]["accuracy"]
        pairs = pairs_of(clean["pairs"], dataset, before["n"])
        yield _Accuracy(pairs, before, after, point["relative_drop"], point["random_accuracy"])
    for name, part in objectives.items():
        if name in point["relative_drop_by_objective"]:
            before, after = part["accuracy"], point["ranked"]["objectives"][name]["accuracy"]
            pairs = pairs_of(part["pairs"], dataset, before["n"], name)
            yield _Accuracy(pairs, before, after, point["relative_drop_by_objective"][name], point["random_by_objective"][name])


def top_zeroed(sections: Sections) -> Finding | None:
    """The top neurons of a ranking, zeroed: at one share of each curve."""
    found = [(name, entry, point) for name, entry in sections.get("ablation", {}).items() if (point := _at_share(entry)) is not None]
    tried = [(name, entry, point, each) for name, entry, point in found for each in _accuracies(entry["dataset"], entry["clean"], point)]
    clear = [one for one in tried if one[3].moved(len(tried))]
    if not clear:
        return None
    of: dict[str, list[str]] = {}
    for _, entry, point, each in clear:
        by = f"{point['neurons']:,}, ranked by {clipped(entry['score'])} at {clipped(entry['site'])}"
        what = f"Zeroing the {clipped(entry['model'])} model's top {share_of_all(point['fraction'])} of {units(entry['site'])} ({by})"
        of.setdefault(what, []).append(each.said())
    return Finding(
        " ".join(f"{what} {listed(parts)}." for what, parts in of.items())
        + found_by_tested(entry for _, entry, *_ in clear)
        + others(len(tried), len(clear)),
        f"{_ZEROED}Of each curve the share nearest to {share_of_all(SHARE)} that has random sets. {counted(len(tried), len(clear))}",
        (link("curves", "ablation", clear[0][0]),),
    )


def _at_share(entry: AblationEntry) -> AblationPointJson | None:
    points = [point for point in entry["points"] if point["random_accuracy"]]
    return min(points, key=lambda point: abs(point["fraction"] - SHARE), default=None)


def sets_zeroed(sections: Sections) -> Finding | None:
    """Sets of neurons, each zeroed alone."""
    tried = [
        (name, entry, label, point, each)
        for name, entry in sections.get("sets", {}).items()
        for label, point in entry["sets"].items()
        for each in _accuracies(entry["dataset"], entry["clean"], point)
    ]
    clear = [one for one in tried if one[4].moved(len(tried))]
    if not clear:
        return None
    said = [
        f'the {clipped(entry["model"])} model\'s set "{clipped(label)}" ({point["neurons"]:,} {units(entry["site"])}) {each.said()}'
        for _, entry, label, point, each in clear
    ]
    return Finding(
        f"Zeroing sets: {listed(said, comma='; ')}.{found_by_tested(entry for _, entry, *_ in clear)}{others(len(tried), len(clear))}",
        f"{_ZEROED}{counted(len(tried), len(clear))}",
        (link("sets", "sets", clear[0][0]),),
    )


def repaired(sections: Sections) -> Finding | None:
    """A repair, on the pairs that tested it: what it does to accuracy, and which biases moved with it."""
    entries = {name: entry for name, entry in sections.get("repair", {}).items() if entry["chosen"] is not None}
    tried = [(name, row) for name, entry in entries.items() for row in entry["evidence"] if row["kind"] == "repaired"]
    clear: dict[str, list[str]] = {}
    for name, row in tried:
        if _moved(entries[name], row, len(tried)):
            clear.setdefault(name, []).append(_change(entries[name], row))
    if not clear:
        return None
    said = [f"{_edit(entries[name])} changes {listed(parts)}.{_biases(entries[name])}" for name, parts in clear.items()]
    count = sum(map(len, clear.values()))
    return Finding(
        f"{' '.join(said)}{others(len(tried), count)}",
        "Said where the paired difference of accuracy on test pairs, or on protected ones, is clear of 0, flipping the signs of "
        "prompts' changes agrees, and every control of random neurons changes less that way. "
        "Biases are counted by their own intervals of 95 %, of which about 1 in 20 would move by chance. "
        f"{counted(len(tried), count)}",
        (link("evidence", "repair", next(iter(clear))),),
    )


def _edit(entry: RepairEntry) -> str:
    every = entry["shape"][0] * entry["shape"][1]
    scaled = f"{len(entry['neurons']):,} of {number_of(every, 'neuron')} scaled"
    return f"The repair of the {clipped(entry['model'])} model ({scaled}, chosen on other pairs)"


def _moved(entry: RepairEntry, row: ComparedJson, among: int) -> bool:
    """Whether accuracy changed clearly, and beyond random neurons, where there are such."""
    change = row["accuracy"]["difference"]
    side, drawn = side_of(change, 0, among), _drawn(entry, row)
    if not side or not by_p(row["p_value"], among):
        return False
    return all(((change["value"] or 0) - each) * side > 0 for each in drawn)


def _drawn(entry: RepairEntry, row: ComparedJson) -> list[float]:
    """What random neurons do to accuracy on the same test pairs."""
    rows = [each for each in entry["evidence"] if each["kind"] == "random" and each["tested"] == row["tested"]]
    return [each["accuracy"]["difference"]["value"] or 0.0 for each in rows]


def _change(entry: RepairEntry, row: ComparedJson) -> str:
    found = row["accuracy"]["difference"]
    value, low, high = (100 * (found[key] or 0) for key in ("value", "low", "high"))
    drawn = _drawn(entry, row)
    random = f"; random neurons: {100 * min(drawn):+.1f} to {100 * max(drawn):+.1f}" if drawn else ""
    return (
        f"accuracy on {clipped(row['tested'])} by {value:+.1f} points [{low:+.1f}, {high:+.1f}] ({number_of(found['n'], 'prompt')}{random})"
    )


def _biases(entry: RepairEntry) -> str:
    counts = biases_counted(entry)
    return f" {counts}" if counts else ""


def biases_counted(entry: RepairEntry) -> str:
    """How many figures of bias, each of one bias on one set of pairs, are reversed or worse; "" where none is."""
    found = [shift["verdict"] for shifts in entry["shifts"].values() for shift in shifts if shift["good"] == "near 0"]
    counts = [f"{count:,} {'is' if count == 1 else 'are'} {what}" for what in ("reversed", "worse") if (count := found.count(what))]
    return f"Of {number_of(len(found), 'figure')} of bias, {' and '.join(counts)}." if counts else ""
