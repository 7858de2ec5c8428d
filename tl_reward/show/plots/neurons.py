"""Figures of single neurons, and of a quantity over all of them: what the page shows, for a notebook."""

import numpy as np
import plotly.graph_objects as go

from tl_reward.errors import InputError
from tl_reward.measures.intervals import star
from tl_reward.measures.overlap import independent_regions
from tl_reward.neurons import NeuronSet
from tl_reward.results.store import Results
from tl_reward.show.intervals import ends
from tl_reward.show.neuron_columns import Column, columns_of, exact_effects, overlap_of
from tl_reward.show.plots.escape import EscapedFigure, escaped, markup
from tl_reward.show.plots.style import DOTTED, LAYOUT, SYMBOLS, color_of, dash_of, layer_ticks, scale_of


def quantity_map(results: Results, model: str, quantity: str | None = None) -> EscapedFigure:
    """A quantity of every neuron as a heatmap, layers up; blue is above the neutral value, and the scale ends at the 99.9th percentile.

    Args:
        quantity: the key of one of `columns_of(results)`; by default the model's first.
    """
    column = _column(results, model, quantity)
    reach = scale_of(column.values - column.neutral)
    figure = go.Figure(
        go.Heatmap(
            z=column.values,
            hovertemplate=markup("neuron %{y}.%{x}<br>%{z:.4g}<extra></extra>"),
            colorscale=[[0, "#B2182B"], [0.5, "#FFFFFF"], [1, "#2166AC"]],
            zmin=column.neutral - reach,
            zmax=column.neutral + reach,
            colorbar={"title": {"text": column.unit, "side": "top"}},
        )
    )
    figure.update_layout(**LAYOUT | {"title": f"{model}: {column.key}", "margin": LAYOUT["margin"] | {"t": 60}})
    figure.update_xaxes(title="neuron")
    figure.update_yaxes(title="layer", dtick=layer_ticks(len(column.values)))
    return escaped(figure)


def layer_sums(results: Results, quantity: str | None = None) -> EscapedFigure:
    """The sum of a quantity over each layer's neurons, as it exceeds its neutral value; a line a reward model."""
    key = quantity or _first(columns_of(results)).key
    found = [column for column in columns_of(results) if column.key == key]
    figure = go.Figure()
    for i, column in enumerate(found or [_column(results, None, key)]):
        figure.add_scatter(
            y=(column.values.astype(np.float64) - column.neutral).sum(1), name=column.model, mode="lines+markers",
            line={"color": color_of(column.model, i), "dash": dash_of(column.model)},
            marker={"symbol": SYMBOLS.get(column.model, "cross")},
        )  # fmt: skip
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="layer")
    figure.update_yaxes(title=f"sum of {key}")
    return escaped(figure)


def region_bars(results: Results, name: str | None = None) -> EscapedFigure:
    """How many neurons are top neurons of just some of the reward models, beside what sets that are independent within each layer give.

    Args:
        name: an entry of the section "overlap"; the first by default.
    """
    entry = overlap_of(results, name)
    sets = {label: NeuronSet.from_json(coords) for label, coords in entry["top"].items()}
    found = independent_regions(sets, n_layers=entry["n_layers"], d_mlp=entry["d_mlp"])
    figure = go.Figure()
    for key, label, color, shape in (("observed", "observed", "#0072B2", ""), ("expected", "chance, layers matched", "#999999", "/")):
        values = [getattr(region, key) for region in found.values()]
        figure.add_bar(
            x=[*found], y=values, name=label, text=[f"{value:,.0f}" for value in values], textposition="outside",
            marker={"color": color, "pattern": {"shape": shape, "solidity": 0.15, "fillmode": "overlay"}},
        )  # fmt: skip
    figure.update_layout(**LAYOUT, barmode="group")
    figure.update_xaxes(title="top neurons of")
    figure.update_yaxes(title="neurons")
    return escaped(figure)


def activation_histogram(results: Results, model: str, neuron: tuple[int, int]) -> EscapedFigure:
    """The activations of a neuron, a line a split (objective and side), as shares of that split's tokens.

    Raises:
        InputError: the run has no examples of that model and neuron.
    """
    found = [name for name, entry in results.section("examples").items() if entry["model"] == model and list(neuron) in entry["neurons"]]
    if not found:
        raise InputError(f"this run has no examples of neuron {neuron[0]}.{neuron[1]} of {model!r}; see tl-reward examples")
    name, entry = found[0], results.entry("examples", found[0])
    at = entry["neurons"].index(list(neuron))
    edges = results.tensor("examples", name, "histogram/edge")[at].numpy()
    counts = results.tensor("examples", name, "histogram/count")[at].numpy()
    figure = go.Figure()
    for i, (split, count) in enumerate(zip(entry["splits"], counts, strict=True)):
        figure.add_scatter(
            x=(edges[1:] + edges[:-1]) / 2, y=count / max(1, count.sum()), mode="lines",
            name=" · ".join(part for part in (split["side"], split["objective"]) if part),
            line={"shape": "hvh", "color": color_of(split["objective"], i), "dash": "solid" if split["side"] == "chosen" else "dot"},
        )  # fmt: skip
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title=f"activation of neuron {neuron[0]}.{neuron[1]} at {entry['site']}")
    figure.update_yaxes(title="share of tokens")
    return escaped(figure)


def neuron_effects(results: Results, neuron: tuple[int, int]) -> EscapedFigure:
    """What a neuron adds to the mean margin, in every reward model that the run has effects of: estimated (open, with 1.96 standard errors)
    and exact (filled, with bootstrap intervals)."""
    rows: list[tuple[str, str, str, float | None, float | None, float | None]] = []  # model, kind of evidence, label, value, low, high
    for c in columns_of(results):
        if c.unit == "reward units" and neuron[0] < c.values.shape[0] and neuron[1] < c.values.shape[1]:
            value, spread = float(c.values[neuron]), 1.96 * float(c.error[neuron]) if c.error is not None else None
            low, high = (None, None) if spread is None else (value - spread, value + spread)
            rows.append((c.model, "estimated", c.key if spread is not None else f"{c.key} (no interval)", value, low, high))
    for each in exact_effects(results):
        if each["neuron"] == list(neuron):
            what = "added by patching" if each["kind"] == "patch" else f"{each['kind']} ablation"
            for where, margin in each["margins"].items():
                label = f"{what}, {where} pairs of {each['dataset']}{star(margin['n'])}"
                low, high = ends(margin) or (None, None)
                rows.append((each["model"], "exact", label, margin["value"], low, high))
    if not rows:
        raise InputError(f"this run has no effects of neuron {neuron[0]}.{neuron[1]}; see tl-reward tension and tl-reward attribute")
    figure = go.Figure()
    models = list(dict.fromkeys(row[0] for row in rows))
    for model, evidence in dict.fromkeys(row[:2] for row in rows):
        own = [row for row in rows if row[:2] == (model, evidence)]
        symbol = SYMBOLS.get(model, "cross") + ("-open" if evidence == "estimated" else "")
        figure.add_scatter(
            x=[value for *_, value, _, _ in own], y=[f"{model}: {label}, {evidence}" for _, _, label, *_ in own], mode="markers",
            name=f"{model}, {evidence}",
            error_x={
                "type": "data", "array": [None if high is None or value is None else high - value for *_, value, _, high in own],
                "arrayminus": [None if low is None or value is None else value - low for *_, value, low, _ in own],
            },
            marker={"color": color_of(model, models.index(model)), "symbol": symbol, "size": 9},
        )  # fmt: skip
    figure.add_vline(x=0, **DOTTED)
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="effect on the margin (reward units)")
    figure.update_yaxes(autorange="reversed", automargin=True)
    return escaped(figure)


def _first(columns: list[Column]) -> Column:
    if not columns:
        raise InputError("this run says nothing of single neurons; see tl-reward discover and tl-reward tension")
    return columns[0]


def _column(results: Results, model: str | None, quantity: str | None) -> Column:
    columns = columns_of(results)
    _first(columns)
    own = [column for column in columns if model in (None, column.model)]
    found = [column for column in own if quantity in (None, column.key)]
    if not found:
        have = ", ".join(dict.fromkeys(column.key for column in own)) or f"nothing; models: {', '.join({c.model: 0 for c in columns})}"
        raise InputError(f"this run has no {quantity!r} of {model!r}; it has {have}")
    return found[0]
