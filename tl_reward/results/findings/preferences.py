"""What a run's scores say: which models prefer the chosen answers, and which the rejected ones."""

from collections.abc import Iterator
from typing import NamedTuple

from tl_reward.measures.json_types import EstimateJson
from tl_reward.results.findings.clear import side_of
from tl_reward.results.findings.finding import Finding, link
from tl_reward.results.findings.words import MOST, clipped, counted, each_named, listed, pairs_of, with_interval
from tl_reward.results.sections import ScoresEntry, Sections


class _Accuracy(NamedTuple):
    """Of one model on some pairs; `name` is its entry's."""

    name: str
    model: str
    pairs: str
    accuracy: EstimateJson
    ties: int

    def share(self, side: int) -> str:
        return with_interval(self.accuracy if side > 0 else _turned(self.accuracy))


def prefer_rejected(sections: Sections) -> Finding | None:
    return _preferring(_every(sections), -1)


def prefer_chosen(sections: Sections) -> Finding | None:
    return _preferring(_every(sections), 1)


def _every(sections: Sections) -> list[_Accuracy]:
    return [each for name, entry in sections.get("scores", {}).items() for each in _accuracies(name, entry)]


def _accuracies(name: str, entry: ScoresEntry) -> Iterator[_Accuracy]:
    """Of each objective, where all pairs name theirs, as a model may be right on one and wrong on another; else of all pairs."""
    for objective, part in (each_named(entry) or {"": entry}).items():
        pairs = pairs_of(part["pairs"], entry["dataset"], part["accuracy"]["n"], objective)
        yield _Accuracy(name, clipped(entry["model"]), pairs, part["accuracy"], part["ties"])


def _preferring(every: list[_Accuracy], side: int) -> Finding | None:
    clear = [each for each in every if side_of(each.accuracy, 0.5, len(every)) == side]
    if not clear:
        return None
    answer = "chosen" if side > 0 else "rejected"
    on: dict[str, list[str]] = {}
    for each in clear:
        models = on.setdefault(each.pairs, [])
        prefers = "" if models else f" prefers the {answer} answer"
        models.append(f"the {each.model} model{prefers} in {each.share(side)}{' (a tie for half)' if each.ties else ''}")
    said = [f"{pairs}, {listed(models)}{_not_clear(every, pairs, side)}" for pairs, models in on.items()]
    left = f"; and so on {len(said) - MOST:,} more sets of pairs" if len(said) > MOST else ""
    return Finding(
        f"Of {'; of '.join(said[:MOST])}{left}.",
        f"Said where the interval of the share of pairs in which the chosen answer gets more reward is {'above' if side > 0 else 'below'} "
        f"50 %. Each objective is looked at alone, where all pairs name theirs. {counted(len(every), len(clear))}",
        (link("accuracies", "scores", clear[0].name),),
    )


def _not_clear(every: list[_Accuracy], pairs: str, side: int) -> str:
    """The other models on these pairs, so that nobody takes them for clear on the other side."""
    others = [each for each in every if each.pairs == pairs and not side_of(each.accuracy, 0.5, len(every))]
    said = "".join(f"; the {each.model} model's {each.share(side)} is not clear" for each in others[:MOST])
    left = len(others) - MOST
    return said if left <= 0 else f"{said}; {left:,} more {'is' if left == 1 else 'are'} not clear"


def _turned(accuracy: EstimateJson) -> EstimateJson:
    """The share of pairs in which the rejected answer is preferred."""
    low, high = accuracy.get("low"), accuracy.get("high")
    ends = (None, None) if low is None or high is None else (1 - high, 1 - low)
    return {"value": 1 - accuracy["value"], "low": ends[0], "high": ends[1], "n": accuracy["n"]}
