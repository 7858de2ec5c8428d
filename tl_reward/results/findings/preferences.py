"""What a run's scores say: which models prefer the chosen answers, and which the rejected ones."""

from collections.abc import Mapping

from tl_reward.measures.json_types import EstimateJson
from tl_reward.results.findings.clear import side_of
from tl_reward.results.findings.finding import Finding, link
from tl_reward.results.findings.words import MOST, clipped, counted, listed, pairs_of, with_interval
from tl_reward.results.sections import ScoresEntry, Sections


def prefer_rejected(sections: Sections) -> Finding | None:
    return _preferring(sections.get("scores", {}), -1)


def prefer_chosen(sections: Sections) -> Finding | None:
    return _preferring(sections.get("scores", {}), 1)


def _preferring(entries: Mapping[str, ScoresEntry], side: int) -> Finding | None:
    clear = {name: entry for name, entry in entries.items() if side_of(entry["accuracy"], 0.5, len(entries)) == side}
    if not clear:
        return None
    answer = "chosen" if side > 0 else "rejected"
    on: dict[str, list[str]] = {}
    for entry in clear.values():
        accuracy = entry["accuracy"]
        share = with_interval(accuracy if side > 0 else _turned(accuracy)) + (" (a tie for half)" if entry["ties"] else "")
        models = on.setdefault(pairs_of(entry["pairs"], entry["dataset"], accuracy["n"]), [])
        prefers = "" if models else f" prefers the {answer} answer"
        models.append(f"the {clipped(entry['model'])} model{prefers} in {share}")
    said = [f"{pairs}, {listed(models)}{''.join(_not_clear(entries, pairs, side)[:MOST])}" for pairs, models in on.items()]
    left = f"; and so on {len(said) - MOST:,} more sets of pairs" if len(said) > MOST else ""
    return Finding(
        f"Of {'; of '.join(said[:MOST])}{left}.",
        f"Said where the interval of the share of pairs in which the chosen answer gets more reward is {'above' if side > 0 else 'below'} "
        f"50 %. {counted(len(entries), len(clear))}",
        (link("accuracies", "scores", next(iter(clear))),),
    )


def _not_clear(entries: Mapping[str, ScoresEntry], pairs: str, side: int) -> list[str]:
    """The other models on these pairs, so that nobody takes them for clear on the other side."""
    found = []
    for entry in entries.values():
        accuracy = entry["accuracy"]
        if pairs_of(entry["pairs"], entry["dataset"], accuracy["n"]) == pairs and not side_of(accuracy, 0.5, len(entries)):
            share = with_interval(accuracy if side > 0 else _turned(accuracy))
            found.append(f"; the {clipped(entry['model'])} model's {share} is not clear")
    return found


def _turned(accuracy: EstimateJson) -> EstimateJson:
    """The share of pairs in which the rejected answer is preferred."""
    low, high = accuracy["low"], accuracy["high"]
    ends = (None, None) if low is None or high is None else (1 - high, 1 - low)
    return {"value": 1 - accuracy["value"], "low": ends[0], "high": ends[1], "n": accuracy["n"]}
