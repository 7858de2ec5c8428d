"""Figures of rewards before and after an edit: `Results` in, plotly `Figure` out."""

import numpy as np
from jaxtyping import Float
from plotly.subplots import make_subplots

from tl_reward.errors import InputError
from tl_reward.results.findings.words import share_of_all
from tl_reward.results.store import Results
from tl_reward.show.plots.escape import EscapedFigure, escaped
from tl_reward.show.plots.style import DOTTED, LAYOUT, color_of

_MOST_STEPS = 400  # of a line
_DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot")


def ablated_rewards(results: Results, name: str | None = None) -> EscapedFigure:
    """How rewards of the chosen and of the rejected responses, and margins (chosen minus rejected), are distributed: without an edit, and
    with the top neurons zeroed, a line a share. The share of pairs (up) with at most so much (along), in raw reward units; of margins, its
    height at 0 is the share of pairs that the model has wrong or tied.

    Args:
        name: the ablation; None is the first that keeps rewards.

    Raises:
        InputError: the ablation is of an earlier version, and keeps no rewards.
    """
    entries = results.section("ablation")
    name = name or next((each for each, entry in entries.items() if "pairs" in entry), next(iter(entries)))
    entry = results.entry("ablation", name)
    if "pairs" not in entry:
        raise InputError(f"the ablation {name!r} keeps no rewards of single pairs: it was made by an earlier version")
    chosen, rejected = (results.tensor("ablation", name, side).double().numpy() for side in ("chosen", "rejected"))
    shares = [point["fraction"] for point in entry["points"]]
    edits = ["no edit", *(f"top {share_of_all(share)} zeroed" for share in shares)]
    titles = ["chosen responses", "rejected responses", "margin"]
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.04)
    color = color_of(entry["model"], 0)
    for j, values in enumerate((chosen, rejected, chosen - rejected)):
        for i, edit in enumerate(edits):
            along, up = _steps(values[i])
            line = {"color": color, "dash": _DASHES[(i - 1) % len(_DASHES)], "width": 2} if i else {"color": "#000000", "width": 3}
            figure.add_scatter(
                x=along, y=up, name=edit, legendgroup=edit, showlegend=j == 0, mode="lines", line=line | {"shape": "hv"}, row=1, col=j + 1
            )
    figure.add_shape(type="line", x0=0, x1=0, xref="x3", y0=0, y1=1, yref="y3 domain", line=DOTTED["line"])
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 70}, "legend": LAYOUT["legend"] | {"y": 1.12}})
    figure.update_xaxes(title="reward")
    figure.update_xaxes(title="margin (reward units)", col=3)
    figure.update_yaxes(title="share of pairs with at most that", range=[0, 1.02], col=1)
    return escaped(figure)


def _steps(values: Float[np.ndarray, " pair"]) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """Numbers in their order, and the share that is at most so large; of many pairs, some of them."""
    at = np.unique(np.linspace(0, len(values) - 1, min(len(values), _MOST_STEPS)).astype(int)) if len(values) else np.zeros(0, dtype=int)
    return np.sort(values)[at], (at + 1) / max(1, len(values))
