"""Estimates with their intervals, drawn in three forms: points, curves, and distributions; a panel a base model."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from tl_reward.measures.intervals import Estimate
from tl_reward.show.plots.escape import BREAK, EscapedFigure, escaped, markup
from tl_reward.show.plots.style import COLORS, DASHES, LAYOUT, SYMBOLS, error_bars

_SPARE = ("#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C564B", "#7F7F7F")
_SPARE_SYMBOLS = ("cross", "x", "triangle-up", "triangle-down", "star", "hexagon")
_SPARE_DASHES = ("dashdot", "longdash", "longdashdot", "solid", "dash")


def dots(panels: Mapping[str, Mapping[str, Mapping[str, Estimate]]], axis: str, *, guide: float | None = None) -> EscapedFigure | None:
    """Points with their intervals, a line a label. By panel, series and label; None where there are none."""
    panels = {panel: series for panel, series in panels.items() if any(series.values())}
    if not panels:
        return None
    labels = list(dict.fromkeys(label for series in panels.values() for points in series.values() for label in points))
    figure = _panels(panels)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    for column, series in enumerate(panels.values(), 1):
        for name, points in series.items():
            index = names.index(name)
            values = list(points.values())
            figure.add_scatter(
                x=[value.value for value in values],
                # Beside each other, so that intervals do not hide each other.
                y=[-labels.index(label) + 0.5 * (0.5 - (index + 0.5) / len(names)) for label in points],
                error_x=error_bars([value.to_json_or_none() for value in values]) | {"thickness": 1.2, "width": 2},
                mode="markers", name=name, legendgroup=name,
                showlegend=not any(name in other for other in list(panels.values())[: column - 1]), row=1, col=column,
                marker={"color": _color(name, index), "symbol": _symbol(name, index), "size": 7},
                text=[f"{label}{BREAK}{value}, n {value.n:,}" for label, value in points.items()],
                hovertemplate=markup("%{text}<extra>") + name + markup("</extra>"),
            )  # fmt: skip
    if guide is not None:
        figure.add_vline(x=guide, line={"dash": "dot", "color": "#555"})
    figure.update_xaxes(title=axis)
    for column in range(2, len(panels) + 1):
        figure.update_xaxes(matches="x", col=column)
    figure.update_yaxes(zeroline=False, tickvals=[-i for i in range(len(labels))], ticktext=[label for label in labels], automargin=True)
    figure.update_layout(height=180 + 26 * len(labels) + (0 if len(names) < 4 else 40))
    return escaped(figure)


def curves(
    panels: Mapping[str, Mapping[str, Mapping[float, Estimate]]], axes: tuple[str, str], *, guide: float | None = None
) -> EscapedFigure | None:
    """Lines with their intervals as bars, over a share of all neurons in %. By panel, series and share; None where there are none."""
    panels = {panel: series for panel, series in panels.items() if any(series.values())}
    if not panels:
        return None
    figure = _panels(panels)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    widest = 100 * max(share for series in panels.values() for points in series.values() for share in points)
    for column, series in enumerate(panels.values(), 1):
        for name, points in series.items():
            index, values = names.index(name), [points[share] for share in sorted(points)]
            beside = 0.012 * (index - (len(names) - 1) / 2)  # so that intervals do not hide each other
            figure.add_scatter(
                x=[100 * share + beside * widest for share in sorted(points)], y=[value.value for value in values], mode="lines+markers",
                name=name, legendgroup=name, row=1, col=column,
                showlegend=not any(name in other for other in list(panels.values())[: column - 1]),
                line={"color": _color(name, index), "dash": _dash(name, index)}, marker={"symbol": _symbol(name, index)},
                error_y=error_bars([value.to_json_or_none() for value in values]) | {"thickness": 1, "width": 2},
                text=[f"{100 * share:g} %{BREAK}{value}, n {value.n:,}" for share, value in zip(sorted(points), values, strict=True)],
                hovertemplate=markup("%{text}<extra>") + name + markup("</extra>"),
            )  # fmt: skip
    if guide is not None:
        figure.add_hline(y=guide, line={"dash": "dot", "color": "#555"})
    figure.update_xaxes(title=axes[0], zeroline=False)
    figure.update_yaxes(title=axes[1], col=1)
    return escaped(figure)


def distributions(panels: Mapping[str, Mapping[str, Float[np.ndarray, " value"]]], axis: str) -> EscapedFigure | None:
    """Shares of values in 40 equal bins, as lines. By panel and series; None where there are none."""
    panels = {panel: {name: v for name, v in series.items() if len(v)} for panel, series in panels.items()}
    panels = {panel: series for panel, series in panels.items() if series}
    if not panels:
        return None
    figure = _panels(panels)
    everything = np.concatenate([values for series in panels.values() for values in series.values()])
    edges = np.linspace(float(everything.min()) - 1e-9, float(everything.max()) + 1e-9, 41)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    for column, series in enumerate(panels.values(), 1):
        for name, values in series.items():
            index = names.index(name)
            figure.add_scatter(
                x=(edges[1:] + edges[:-1]) / 2, y=np.histogram(values, edges)[0] / len(values), mode="lines", name=name,
                legendgroup=name, showlegend=not any(name in other for other in list(panels.values())[: column - 1]),
                row=1, col=column, line={"color": _color(name, index), "dash": ("solid", "dot", "dashdot")[index % 3], "shape": "hvh"},
            )  # fmt: skip
    figure.update_xaxes(title=axis)
    figure.update_yaxes(title="share", col=1)
    return escaped(figure)


def _panels(panels: Mapping[str, object]) -> go.Figure:
    titles = [name.replace(", ", BREAK) for name in panels]  # in two lines, so that those of many panels do not meet
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    return figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 90}, "legend": LAYOUT["legend"] | {"y": 1.0, "yref": "container", "yanchor": "top"}})  # fmt: skip # noqa: E501


def _color(name: str, index: int) -> str:
    return COLORS.get(name, _SPARE[index % len(_SPARE)])


def _symbol(name: str, index: int) -> str:
    return SYMBOLS.get(name, _SPARE_SYMBOLS[index % len(_SPARE_SYMBOLS)])


def _dash(name: str, index: int) -> str:
    return DASHES.get(name, _SPARE_DASHES[index % len(_SPARE_DASHES)])
