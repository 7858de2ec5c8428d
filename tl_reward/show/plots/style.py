"""What all figures share: colours, dashes and markers by objective, the layout, and names as plain text."""

import html
from collections.abc import Sequence
from typing import Any

from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson

# Okabe and Ito's colours, told apart by colour-blind readers; each objective has a dash and a marker of its own beside its colour.
COLORS = {"helpful": "#0072B2", "harmless": "#D55E00", "mixed": "#009E73"}

DASHES = {"helpful": "solid", "harmless": "dash", "mixed": "dot"}

SYMBOLS = {"helpful": "circle", "harmless": "square", "mixed": "diamond"}

_SPARE = ["#56B4E9", "#E69F00", "#000000", "#F0E442"]

LAYOUT: dict[str, Any] = {
    "template": "plotly_white",
    "margin": {"l": 70, "r": 20, "t": 30, "b": 60},
    "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    "font": {"family": "system-ui, sans-serif", "size": 13},
}
# Of a line that says what is neutral: no effect, chance.
DOTTED: dict[str, Any] = {"line": {"dash": "dot", "color": "#555"}}


def plain(text: str) -> str:
    """A name from a run, for a figure: plotly reads some tags in its labels, links among them, and looks for MathJax where $ are."""
    return html.escape(text, quote=False).replace("$", "&#36;")


def defined(value: EstimateJson | MaybeEstimateJson) -> EstimateJson | None:
    """An estimate, or None where there was nothing to estimate from. Over one prompt it has no interval."""
    middle, one = value["value"], value["n"] == 1
    return (
        None
        if middle is None
        else {"value": middle, "low": None if one else value["low"], "high": None if one else value["high"], "n": value["n"]}
    )


def error_bars(values: Sequence[EstimateJson | None]) -> dict[str, Any]:
    """plotly's, from estimates; none where there is no estimate."""
    return {
        "type": "data",
        "array": [value and _above(value["high"], value["value"], value["n"]) for value in values],
        "arrayminus": [value and _above(value["value"], value["low"], value["n"]) for value in values],
    }


def _above(higher: float | None, lower: float | None, prompts: int) -> float | None:
    """How far one is above the other; None where there is no interval, as over one prompt."""
    return None if higher is None or lower is None or prompts == 1 else higher - lower


def layer_ticks(n_layers: int) -> int:
    return max(1, n_layers // 10)


def color_of(name: str, index: int) -> str:
    return COLORS.get(name, _SPARE[index % len(_SPARE)])


def dash_of(name: str) -> str:
    return DASHES.get(name, "dashdot")
