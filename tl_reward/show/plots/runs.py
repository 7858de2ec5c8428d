"""Figures of a run: `Results` in, plotly `Figure` out. Nothing is shown or written here."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tl_reward.errors import InputError
from tl_reward.neurons import NeuronSet
from tl_reward.results.findings.words import share_of_all
from tl_reward.results.sections import ScoresEntry
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import overlap_of
from tl_reward.show.plots.escape import EscapedFigure, escaped, markup
from tl_reward.show.plots.style import DOTTED, LAYOUT, SYMBOLS, color_of, dash_of, error_bars, layer_ticks, scale_of


def accuracy_bars(results: Results) -> EscapedFigure:
    """Pair accuracy of each reward model on each data set, with 95 % bootstrap intervals; 0.5 is chance."""
    entries = _scored(results)
    datasets = list(dict.fromkeys(dataset for _, dataset in entries))
    figure = go.Figure()
    for i, model in enumerate(dict.fromkeys(model for model, _ in entries)):
        values = [entries[model, d]["accuracy"] if (model, d) in entries else None for d in datasets]
        figure.add_bar(
            name=model,
            x=[dataset for dataset in datasets],
            y=[v and v["value"] for v in values],
            error_y=error_bars(values),
            marker={"color": color_of(model, i), "pattern": {"shape": ["", "/", "."][i % 3], "solidity": 0.15, "fillmode": "overlay"}},
            text=[v and f"{v['value']:.2f}" for v in values],
            textposition="inside",
            insidetextanchor="start",
        )
    figure.add_hline(y=0.5, **DOTTED, annotation_text="chance")
    figure.update_layout(**LAYOUT, barmode="group")
    figure.update_yaxes(title="pair accuracy", range=[0, 1])
    figure.update_xaxes(title="data set")
    return escaped(figure)


def margin_histogram(results: Results) -> EscapedFigure:
    """Margins (reward of chosen minus reward of rejected), a panel a data set; right of 0 the model agrees with the preference."""
    entries = _scored(results)
    datasets = list(dict.fromkeys(dataset for _, dataset in entries))
    models = list(dict.fromkeys(model for model, _ in entries))
    figure = make_subplots(rows=1, cols=len(datasets), subplot_titles=[*datasets], shared_yaxes=True, horizontal_spacing=0.04)
    margins = {
        (entry["model"], entry["dataset"]): (results.tensor("scores", name, "chosen") - results.tensor("scores", name, "rejected")).numpy()
        for name, entry in results.section("scores").items()
    }
    reach = scale_of(np.concatenate([*margins.values()]), share=1.0)
    edges = np.linspace(-reach, reach, 31)
    for i, model in enumerate(models):
        for j, dataset in enumerate(datasets):
            if (model, dataset) not in margins:
                continue
            share = np.histogram(margins[model, dataset], edges)[0] / len(margins[model, dataset])
            line = {"color": color_of(model, i), "dash": dash_of(model), "shape": "hvh", "width": 2}
            figure.add_scatter(
                x=(edges[1:] + edges[:-1]) / 2, y=share, name=model, legendgroup=model, showlegend=j == 0, mode="lines",
                line=line, row=1, col=j + 1,
            )  # fmt: skip
    figure.add_vline(x=0, **DOTTED)
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 70}, "legend": LAYOUT["legend"] | {"y": 1.12}})
    figure.update_xaxes(title="margin (reward units)")
    figure.update_yaxes(title="share of pairs", col=1)
    return escaped(figure)


def neuron_map(results: Results, model: str, score: str = "mean", site: str = "mlp_post") -> EscapedFigure:
    """Every neuron's score as a heatmap: layers up, neurons sorted within their layer from the highest to the lowest score."""
    value = results.tensor("discovery", model, f"{site}/{score}").mean(0)
    ordered, index = value.sort(1, descending=True)
    reach = scale_of(ordered.numpy())
    figure = go.Figure(
        go.Heatmap(
            z=ordered.numpy(),
            customdata=index.numpy(),
            hovertemplate=markup("layer %{y}, neuron %{customdata}<br>") + score + markup(" %{z:.4g}<extra></extra>"),
            colorscale=[[0, "#B2182B"], [0.5, "#FFFFFF"], [1, "#2166AC"]],
            zmin=-reach,
            zmax=reach,
            colorbar={"title": {"text": score, "side": "top"}},
        )
    )
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title=f"rank of the {'head' if site == 'attn_z' else 'neuron'} in its layer")
    figure.update_yaxes(title="layer", dtick=layer_ticks(len(ordered)))
    return escaped(figure)


def layer_profile(results: Results, name: str | None = None) -> EscapedFigure:
    """How many of the top neurons lie in each layer, a line a reward model."""
    entry = overlap_of(results, name)
    figure = go.Figure()
    for i, (model, coords) in enumerate(entry["top"].items()):
        counts = np.bincount([layer for layer, _ in coords], minlength=entry["n_layers"])
        style = {"color": color_of(model, i), "dash": dash_of(model)}
        figure.add_scatter(
            x=np.arange(entry["n_layers"]), y=counts, name=model, mode="lines+markers", line=style,
            marker={"symbol": SYMBOLS.get(model, "cross")},
        )  # fmt: skip
    even = sum(map(len, entry["top"].values())) / len(entry["top"]) / entry["n_layers"]
    figure.add_hline(y=even, **DOTTED, annotation_text="evenly spread")
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="layer", dtick=layer_ticks(entry["n_layers"]))
    figure.update_yaxes(title=f"neurons in the top {share_of_all(entry['fraction'])}", rangemode="tozero")
    return escaped(figure)


def overlap_bars(results: Results, name: str | None = None) -> EscapedFigure:
    """Jaccard index of the top neurons of each pair of reward models, beside chance."""
    entry = overlap_of(results, name)
    names = [f"{pair['a']} – {pair['b']}" for pair in entry["pairs"]]
    figure = go.Figure()
    for key, label, color, shape in (
        ("jaccard", "observed", "#0072B2", ""),
        ("chance_by_layer", "chance, layers matched", "#999999", "/"),
        ("chance", "chance, any layer", "#CCCCCC", "."),
    ):
        values = [pair[key] for pair in entry["pairs"]]
        figure.add_bar(
            name=label, x=names, y=values, marker={"color": color, "pattern": {"shape": shape, "solidity": 0.15, "fillmode": "overlay"}},
            text=[f"{v:.3f}" for v in values], textposition="outside",
        )  # fmt: skip
    figure.update_layout(**LAYOUT, barmode="group")
    figure.update_yaxes(title="Jaccard index", range=[0, 1.08])
    figure.update_xaxes(title="reward models")
    return escaped(figure)


def ablation_curves(results: Results, quantity: str = "accuracy") -> EscapedFigure:
    """Accuracy (or "mean_margin") against the share of neurons zeroed: ranked neurons, and the range of the random draws."""
    if quantity not in ("accuracy", "mean_margin"):
        raise InputError(f"quantity must be accuracy or mean_margin, got {quantity!r}")
    entries = results.section("ablation")
    figure = make_subplots(rows=1, cols=len(entries), subplot_titles=[*entries], shared_yaxes=True, horizontal_spacing=0.04)
    drawn = "random_accuracy" if quantity == "accuracy" else "random_margin"
    for i, (name, entry) in enumerate(entries.items()):
        clean = entry["clean"][quantity]
        shares = [0.0] + [100 * point["fraction"] for point in entry["points"]]
        ranked = [clean] + [point["ranked"][quantity] for point in entry["points"]]
        color = color_of(entry.get("model", name), i)
        place = {"row": 1, "col": i + 1}
        banded = [(s, p[drawn]) for s, p in zip(shares[1:], entry["points"], strict=True) if p[drawn]]
        if banded:
            xs = [0.0, *(s for s, _ in banded)]
            highs = [clean["value"], *(max(d) for _, d in banded)]
            lows = [clean["value"], *(min(d) for _, d in banded)]
            figure.add_scatter(
                x=[*xs, *reversed(xs)], y=[*highs, *reversed(lows)], mode="lines", fill="toself", fillcolor="rgba(127,127,127,0.25)",
                line={"width": 1, "color": "#777777"},  # one draw has no width of its own
                name="random, layers matched (range of draws)", legendgroup="random",
                showlegend=i == 0, hoverinfo="skip", **place,
            )  # fmt: skip
        figure.add_scatter(
            x=shares, y=[v["value"] for v in ranked], mode="lines+markers", line={"color": color},
            error_y=error_bars(ranked),
            name=f"top neurons zeroed: {name}", showlegend=False, **place,
        )  # fmt: skip
    if quantity == "accuracy":
        figure.add_hline(y=0.5, **DOTTED)
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 70}, "legend": LAYOUT["legend"] | {"y": 1.12}})
    figure.update_xaxes(title="neurons zeroed (%)")
    figure.update_yaxes(title="pair accuracy" if quantity == "accuracy" else "mean margin (reward units)", col=1)
    return escaped(figure)


def top_neurons(results: Results, *, k: int = 20, score: str = "mean", site: str = "mlp_post") -> list[dict[str, Any]]:
    """The k neurons with the highest score in any reward model, with their score and rank in every one.

    Models of another shape than the first one's are left out: their neurons are not the same ones.
    """
    entries = results.section("discovery")
    first = next(iter(entries.values()))
    models = [m for m, e in entries.items() if e["shape"] == first["shape"] and f"{site}/{score}" in e["computed"]]
    values = {model: results.tensor("discovery", model, f"{site}/{score}").mean(0) for model in models}
    ranks = {model: value.flatten().argsort(descending=True, stable=True).argsort() for model, value in values.items()}
    best = NeuronSet(coord for value in values.values() for coord in NeuronSet.top(value, k=min(k, value.numel())))
    width = next(iter(values.values())).shape[1]
    rows: list[dict[str, Any]] = [
        {"layer": layer, "neuron": neuron}
        | {model: {"score": values[model][layer, neuron].item(), "rank": int(ranks[model][layer * width + neuron]) + 1} for model in models}
        for layer, neuron in best
    ]
    return sorted(rows, key=lambda row: min(row[model]["rank"] for model in models))[:k]


def _scored(results: Results) -> dict[tuple[str, str], ScoresEntry]:
    return {(entry["model"], entry["dataset"]): entry for entry in results.section("scores").values()}
