"""What all figures share: colours, dashes and markers by objective, the layout, and intervals."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson
from tl_reward.show.intervals import ends

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


def error_bars(values: Sequence[EstimateJson | MaybeEstimateJson | None]) -> dict[str, Any]:
    """plotly's, from estimates; none where there is no estimate, or no interval."""
    sizes = [_sizes(value) if value else None for value in values]
    return {"type": "data", "array": [size and size[1] for size in sizes], "arrayminus": [size and size[0] for size in sizes]}


def _sizes(value: EstimateJson | MaybeEstimateJson) -> tuple[float, float] | None:
    """How far the interval reaches below the value and above it."""
    found, middle = ends(value), value["value"]
    return None if found is None or middle is None else (middle - found[0], found[1] - middle)


def scale_of(values: np.ndarray, *, share: float = 0.999) -> float:
    """The size that a scale ends at: a quantile of the finite ones; 1 where all are 0, or there is none."""
    sizes = np.abs(values[np.isfinite(values)])
    return (float(np.quantile(sizes, share)) if sizes.size else 0.0) or 1.0


def layer_ticks(n_layers: int) -> int:
    return max(1, n_layers // 10)


def color_of(name: str, index: int) -> str:
    return COLORS.get(name, _SPARE[index % len(_SPARE)])


def dash_of(name: str) -> str:
    return DASHES.get(name, "dashdot")
