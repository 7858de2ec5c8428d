"""How is an estimate's interval shown? In brackets; as a dash where one prompt or none is behind it; with a star where they are few."""

from collections.abc import Mapping
from typing import Any

from tl_reward.measures.intervals import FEW, bracket_text
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson

NOTE = f"*: fewer than {FEW} prompts (or neurons, where these count), so the interval is rough and likely too narrow. [–]: none, over one."


def ends(value: EstimateJson | MaybeEstimateJson) -> tuple[float, float] | None:
    """The two ends of an estimate's interval; None where it has none. That of one prompt has no width: older runs hold it."""
    low, high = value.get("low"), value.get("high")
    return None if low is None or high is None or value["n"] < 2 else (low, high)


def bracket(value: EstimateJson | MaybeEstimateJson, form: str = ".2f") -> str:
    """The interval in brackets, each end in that format.

    >>> bracket({"value": 0.5, "low": 0.25, "high": 0.75, "n": 40}), bracket({"value": 0.5, "low": None, "high": None, "n": 1})
    ('[0.25, 0.75]', '[–]')
    """
    return bracket_text(value.get("low"), value.get("high"), value["n"], form)


def any_few(value: Any) -> bool:
    """Whether what is shown of a run's entry holds an estimate over few prompts: its subsets are shown nowhere.

    >>> any_few({"points": [{"value": 1.0, "low": None, "high": None, "n": 3}]}), any_few({"n": 3})
    (True, False)
    """
    if isinstance(value, Mapping):
        return ("value" in value and 0 < value.get("n", 0) < FEW) or any(any_few(part) for key, part in value.items() if key != "subsets")
    return isinstance(value, list) and any(map(any_few, value))
