"""Figures of what neurons do: attribution beside exact effects, single neurons, tension, sets. `Results` in, plotly `Figure` out."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tl_reward.measures.json_types import ScoresJson, ScoreSummaryJson
from tl_reward.results.store import Results
from tl_reward.show.plots.escape import BREAK, EscapedFigure, escaped, markup
from tl_reward.show.plots.style import COLORS, DOTTED, LAYOUT, SYMBOLS, color_of, error_bars

# A colour, a marker, and where the name says "{0} at {1}'s cost", the objective that gains.
_BOTH, _NEITHER = ("#009E73", "circle"), ("#999999", "x")


def attribution_scatter(results: Results, name: str, method: str | None = None) -> EscapedFigure:
    """Estimated against exact effects of zeroing one neuron, with exact 95 % intervals; on the dotted line the two are equal.

    Args:
        method: one of the entry's; the one that agrees best by default.
    """
    entry = results.entry("attribution", name)
    method = method or entry["best"]
    figure = go.Figure()
    for drawn, label, color, symbol in ((False, "largest estimates of a method", "#0072B2", "circle"), (True, "random", "#D55E00", "x")):
        rows = [row for row in entry["exact"] if row["drawn"] == drawn]
        exact = [row["margin"] for row in rows]
        figure.add_scatter(
            x=[row["estimated"][method] for row in rows], y=[value["value"] for value in exact], mode="markers", name=label,
            error_y=error_bars(exact) | {"thickness": 1}, marker={"color": color, "symbol": symbol, "size": 7},
            text=[f"neuron {row['name']}" for row in rows],
            hovertemplate=markup("%{text}<br>estimated %{x:.5f}, exact %{y:.5f}<extra></extra>"),
        )  # fmt: skip
    ends = [row["estimated"][method] for row in entry["exact"]]
    figure.add_scatter(
        x=[min(ends), max(ends)], y=[min(ends), max(ends)], mode="lines", name="equal", line={"dash": "dot", "color": "#555"}
    )
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="estimated effect on the margin (reward units)")
    figure.update_yaxes(title="exact effect on the margin (reward units)")
    return escaped(figure)


def agreement_bars(results: Results, name: str) -> EscapedFigure:
    """Each method's agreement with exact ablation, with 95 % intervals over neurons: over the whole sample, and over random neurons."""
    entry = results.entry("attribution", name)
    methods = list(entry["methods"])
    largest = max(next(iter(entry["methods"].values()))["agreement"]["precision"], key=int, default=None)
    panels = {"Spearman correlation": "spearman", "same sign": "sign"} | ({f"precision at {largest}": "precision"} if largest else {})
    figure = make_subplots(rows=1, cols=len(panels), subplot_titles=list(panels), shared_yaxes=True, horizontal_spacing=0.04)
    looks = (("agreement", "top and random", "#0072B2", ""), ("agreement_drawn", "random alone", "#D55E00", "/"))
    for column, figure_of in enumerate(panels.values(), start=1):
        for key, label, color, shape in looks:
            found = [entry["methods"][method][key] for method in methods]
            if figure_of == "precision":
                # Among random neurons alone, their own largest.
                values = [each["precision"][max(each["precision"], key=int)] if each["precision"] else None for each in found]
            else:
                values = [each[figure_of] for each in found]
            figure.add_bar(
                x=methods, y=[value and value["value"] for value in values], name=label, legendgroup=label, showlegend=column == 1,
                error_y=error_bars(values), row=1, col=column,
                marker={"color": color, "pattern": {"shape": shape, "solidity": 0.15, "fillmode": "overlay"}},
            )  # fmt: skip
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 70}, "legend": LAYOUT["legend"] | {"y": 1.12}}, barmode="group")
    figure.update_yaxes(title="agreement with exact effects", col=1)
    return escaped(figure)


def effect_intervals(results: Results, name: str, *, k: int = 30) -> EscapedFigure:
    """The exact effect of ablating each neuron (or set) on the margin, with 95 % intervals over prompts; by objective where pairs name
    theirs. The k largest."""
    entry = results.entry("effects", name)
    rows = entry["effects"][:k][::-1]
    names = [row["name"] for row in rows]
    series = {"all pairs": [row["margin"] for row in rows]}
    series |= {objective: [row["by_objective"][objective] for row in rows] for objective in rows[0]["by_objective"]}
    figure = go.Figure()
    for i, (label, values) in enumerate(series.items()):
        figure.add_scatter(
            x=[value["value"] for value in values], y=names, mode="markers", name=label,
            error_x=error_bars(values) | {"thickness": 1},
            marker={"color": COLORS.get(label, "#000000"), "symbol": SYMBOLS.get(label, "line-ns-open"), "size": 7 if i else 10},
            hovertemplate=markup("%{y}: %{x:.5f}<extra>") + label + markup("</extra>"),
        )  # fmt: skip
    figure.add_vline(x=0, **DOTTED)
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="margin lost by ablating it (reward units)")
    figure.update_yaxes(title="layer.neuron", type="category")
    return escaped(figure)


def tension_scatter(results: Results, name: str, *, most: int = 2000) -> EscapedFigure:
    """Each neuron's effect on one objective's margin against that on the other's: the clear ones by quadrant, and the rest in grey.

    Args:
        most: points drawn, those with the largest effects; the legend counts all.
    """
    entry = results.entry("tension", name)
    x_name, y_name = entry["objectives"]
    x, y = (results.tensor("tension", name, f"{objective}/effect").numpy() for objective in entry["objectives"])
    figure = go.Figure()
    clear = {tuple(place) for coords in entry["quadrants"].values() for place in coords}
    size = np.hypot(x / (x.std() or 1), y / (y.std() or 1))
    largest = [tuple(int(i) for i in np.unravel_index(flat, x.shape)) for flat in np.argsort(-size, axis=None, kind="stable")[:most]]
    groups = {"not clear on both": ([place for place in largest if place not in clear], ("#BBBBBB", "circle-open"))}
    for label, coords in entry["quadrants"].items():
        own = {tuple(place) for place in coords}
        groups[label] = ([place for place in largest if place in own], _marker_style(label, x_name, y_name))
    for label, (places, (color, symbol)) in groups.items():
        figure.add_scatter(
            x=np.array([x[place] for place in places]), y=np.array([y[place] for place in places]), mode="markers",
            name=f"{label} ({len(entry['quadrants'][label]):,})" if label in entry["quadrants"] else label,
            marker={"color": color, "symbol": symbol, "size": 6 if label in entry["quadrants"] else 4},
            text=[f"neuron {layer}.{neuron}" for layer, neuron in places],
            hovertemplate=markup("%{text}<br>%{x:.5f}, %{y:.5f}<extra></extra>"),
        )  # fmt: skip
    figure.add_vline(x=0, **DOTTED)
    figure.add_hline(y=0, **DOTTED)
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title=f"effect on the {x_name} margin (reward units)")
    figure.update_yaxes(title=f"effect on the {y_name} margin (reward units)")
    return escaped(figure)


def set_bars(results: Results, name: str) -> EscapedFigure:
    """Accuracy after each set is zeroed, by objective where pairs name theirs, and that of layer-matched random sets as crosses."""
    entry = results.entry("sets", name)
    sets = {f"{label}{BREAK}({point['neurons']})": point for label, point in entry["sets"].items()}
    objectives = list(entry["clean"]["objectives"]) or [""]
    figure = go.Figure()
    for i, objective in enumerate(objectives):
        label = objective or "all pairs"
        values = [_scores(entry["clean"], objective)["accuracy"], *(_scores(p["ranked"], objective)["accuracy"] for p in sets.values())]
        figure.add_bar(
            x=["none", *sets], y=[value["value"] for value in values], name=label, offsetgroup=label, error_y=error_bars(values),
            marker={"color": color_of(label, i), "pattern": {"shape": ["", "/", "."][i % 3], "solidity": 0.15, "fillmode": "overlay"}},
        )  # fmt: skip
        drawn = [
            (at, value) for at, p in sets.items() for value in (p["random_by_objective"][objective] if objective else p["random_accuracy"])
        ]
        # An invisible bar's marker would not move beside its group: a scatter is put there by its offset group.
        figure.add_scatter(
            x=[at for at, _ in drawn], y=[value for _, value in drawn], mode="markers", name=f"{label}, random sets", offsetgroup=label,
            marker={"symbol": "x-thin-open", "color": "#000000", "size": 8},
        )  # fmt: skip
    figure.add_hline(y=0.5, **DOTTED)
    figure.update_layout(**LAYOUT, barmode="group", scattermode="group")
    figure.update_yaxes(title="pair accuracy", range=[0, 1])
    figure.update_xaxes(title="set zeroed (neurons)")
    return escaped(figure)


def _marker_style(label: str, first: str, second: str) -> tuple[str, str]:
    if label in ("both", "neither"):
        return _BOTH if label == "both" else _NEITHER
    gains = first if label.startswith(f"{first} at ") else second
    return COLORS.get(gains, "#CC79A7"), SYMBOLS.get(gains, "diamond")


def _scores(entry: ScoresJson, objective: str) -> ScoreSummaryJson:
    return entry["objectives"][objective] if objective else entry
