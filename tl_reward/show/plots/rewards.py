"""Figures of rewards before and after an edit: `Results` in, plotly `Figure` out."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from plotly.subplots import make_subplots

from tl_reward.errors import InputError
from tl_reward.results.store import Results
from tl_reward.show.plots.escape import EscapedFigure, escaped
from tl_reward.show.plots.style import DOTTED, LAYOUT, color_of

BINS = 20
_DASHES = ("dot", "dash", "dashdot", "longdash", "longdashdot")


def ablated_rewards(results: Results, name: str | None = None) -> EscapedFigure:
    """Rewards of the chosen and of the rejected responses, and margins (chosen minus rejected), as shares of the pairs: without an edit,
    and with the top neurons zeroed, a line a share. All in raw reward units.

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
    edits = ["no edit", *(f"top {point['fraction']:.3g} of neurons zeroed" for point in entry["points"])]
    titles = ["chosen responses", "rejected responses", "margin"]
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.04)
    rewards = _edges(np.concatenate([chosen.ravel(), rejected.ravel()]))
    color = color_of(entry["model"], 0)
    for j, (values, edges) in enumerate(((chosen, rewards), (rejected, rewards), (chosen - rejected, _edges(chosen - rejected)))):
        for i, edit in enumerate(edits):
            share = np.histogram(values[i], edges)[0] / max(1, values.shape[1])
            line = {"color": color, "dash": _DASHES[(i - 1) % len(_DASHES)], "width": 2} if i else {"color": "#000000", "width": 3}
            figure.add_scatter(
                x=(edges[1:] + edges[:-1]) / 2, y=share, name=edit, legendgroup=edit, showlegend=j == 0, mode="lines",
                line=line | {"shape": "hvh"}, opacity=_faint(i, edits), row=1, col=j + 1,
            )  # fmt: skip
    figure.add_shape(type="line", x0=0, x1=0, xref="x3", y0=0, y1=1, yref="y3 domain", line=DOTTED["line"])
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 70}, "legend": LAYOUT["legend"] | {"y": 1.12}})
    figure.update_xaxes(title="reward")
    figure.update_xaxes(title="margin (reward units)", col=3)
    figure.update_yaxes(title="share of pairs", col=1)
    return escaped(figure)


def _edges(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " edge"]:
    """Of bins that hold all values."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    return np.linspace(low, high, BINS + 1) if high > low else np.linspace(low - 1, high + 1, BINS + 1)


def _faint(edit: int, edits: Sequence[str]) -> float:
    """The larger the share, the stronger its line."""
    return 1.0 if edit == 0 else 0.45 + 0.55 * edit / (len(edits) - 1)
