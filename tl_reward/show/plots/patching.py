"""Figures of patching and of the reward lens. `Results` in, plotly `Figure` out."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tl_reward.errors import InputError
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson, ModelPatchingPointJson, PatchedCellJson
from tl_reward.results.sections import ModelPatchingEntry
from tl_reward.results.store import Results
from tl_reward.show.intervals import ends
from tl_reward.show.neuron_columns import MOST_NEURONS
from tl_reward.show.plots.escape import BREAK, EscapedFigure, escaped, markup
from tl_reward.show.plots.style import DOTTED, LAYOUT, color_of, error_bars, layer_ticks, scale_of

DIRECTIONS: Mapping[Literal["noising", "denoising"], str] = {
    "noising": "noising: chosen run patched",
    "denoising": "denoising: rejected run patched",
}
_SCALE = [[0, "#B2182B"], [0.5, "#FFFFFF"], [1, "#2166AC"]]
_LOOKS = (
    ("#0072B2", "solid"),
    ("#D55E00", "dash"),
    ("#009E73", "dot"),
    ("#CC79A7", "dashdot"),
    ("#E69F00", "longdash"),
    ("#000000", "solid"),
)
_TOP: dict[str, Any] = LAYOUT | {"margin": LAYOUT["margin"] | {"t": 90}, "legend": LAYOUT["legend"] | {"y": 1.14}}


def patch_profile(results: Results, name: str) -> EscapedFigure:
    """The share of the reward gap that each layer's sites move, a line a site, with 95 % intervals; a panel a direction."""
    cells = [cell for cell in results.entry("patching", name)["cells"] if cell["unit"] is None and isinstance(cell["where"], str)]
    lines: dict[str, list[PatchedCellJson]] = {}
    for cell in cells:
        if cell["layer"] is not None:
            lines.setdefault(f"{cell['kind']}, {cell['where']} tokens", []).append(cell)
    figure = make_subplots(rows=1, cols=2, subplot_titles=list(DIRECTIONS.values()), shared_yaxes=True, horizontal_spacing=0.04)
    for column, direction in enumerate(DIRECTIONS, start=1):
        for i, (label, line) in enumerate(lines.items()):
            color, dash = _LOOKS[i % len(_LOOKS)]
            _banded(
                figure, [cell["layer"] for cell in line], [cell[direction] for cell in line], label, color, dash, row=1, col=column,
                showlegend=column == 1,
            )  # fmt: skip
        for cell in cells:
            if cell["layer"] is None:
                place: dict[str, Any] = {"row": 1, "col": column}
                figure.add_hline(y=cell[direction]["value"], **DOTTED, annotation_text=f"the set, {cell['where']} tokens", **place)
    figure.add_hline(y=0, line={"color": "#999", "width": 1})
    figure.update_layout(**_TOP)
    figure.update_xaxes(title="layer", dtick=layer_ticks(1 + max((cell["layer"] or 0 for cell in cells), default=0)))
    figure.update_yaxes(title="share of the reward gap moved", col=1)
    return escaped(figure)


def patch_heads(results: Results, name: str, where: str | int = "all") -> EscapedFigure:
    """The share of the reward gap that each attention head moves, at some tokens; a panel a direction."""
    cells = [cell for cell in results.entry("patching", name)["cells"] if cell["unit"] is not None and cell["where"] == where]
    if not cells:
        raise InputError(f"patching of {name!r} has no heads at {where} tokens; patch attn_z")
    shape = (max(cell["layer"] or 0 for cell in cells) + 1, max(cell["unit"] or 0 for cell in cells) + 1)
    _check_shape(name, shape)
    values = {direction: np.zeros(shape) for direction in DIRECTIONS}
    for cell in cells:
        for direction in DIRECTIONS:
            values[direction][cell["layer"], cell["unit"]] = cell[direction]["value"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=list(DIRECTIONS.values()), shared_yaxes=True, horizontal_spacing=0.04)
    for column, value in enumerate(values.values(), start=1):
        figure.add_trace(_heat(value, hover=markup("layer %{y}, head %{x}: %{z:.3f}<extra></extra>")), row=1, col=column)
    _shared_scale(figure, list(values.values()), "share moved")
    figure.update_xaxes(title=f"head ({where} tokens)", dtick=1)
    figure.update_yaxes(title="layer", col=1, dtick=layer_ticks(shape[0]))
    return escaped(figure)


def patch_tokens(results: Results, name: str) -> EscapedFigure:
    """One pair, patched one token and layer at a time: the share of its reward gap that moves; a panel a direction."""
    entry = results.entry("patching", name)
    cells = [cell for cell in entry["cells"] if isinstance(cell["where"], int) and cell["unit"] is None and cell["layer"] is not None]
    if not cells or "tokens" not in entry:
        raise InputError(f"patching of {name!r} is not token by token; patch one pair with tokens")
    places = sorted({cell["where"] for cell in cells})
    layers = max(cell["layer"] or 0 for cell in cells) + 1
    _check_shape(name, (layers, len(places)))
    values = {direction: np.zeros((layers, len(places))) for direction in DIRECTIONS}
    for cell in cells:
        for direction in DIRECTIONS:
            values[direction][cell["layer"], places.index(cell["where"])] = cell[direction]["value"]
    labels = [f"{as_label(token['chosen'])}{BREAK}{as_label(token['rejected'])}" for token in entry["tokens"]]
    figure = make_subplots(rows=2, cols=1, subplot_titles=list(DIRECTIONS.values()), shared_xaxes=True, vertical_spacing=0.08)
    for row, value in enumerate(values.values(), start=1):
        heat = _heat(value, hover=markup("layer %{y}, %{customdata}: %{z:.3f}<extra></extra>"))
        heat.customdata = np.tile(np.array([f"token {at}{BREAK}{label}" for at, label in zip(places, labels, strict=True)]), (layers, 1))
        figure.add_trace(heat, row=row, col=1)
    _shared_scale(figure, list(values.values()), "share moved")
    shown = list(range(len(places)))[:: -(-len(places) // 60)]  # more labels would overlap; the hover has them all
    figure.update_xaxes(
        tickvals=shown, ticktext=[labels[i] for i in shown], tickangle=-60 if len(shown) > 12 else 0, tickfont={"size": 10}, row=2
    )
    figure.update_xaxes(title="token: chosen, and below it rejected", row=2)
    figure.update_yaxes(title=f"layer ({cells[0]['kind']})", dtick=layer_ticks(layers))
    return escaped(figure)


def patched_accuracy(results: Results, model: str, source_model: str) -> EscapedFigure:
    """Pair accuracy over the share of neurons patched from a source, a panel a data set: what is restored on one, and costs on another."""
    section = results.section("model_patching")
    entries = [entry for entry in section.values() if (entry["model"], entry["source_model"]) == (model, source_model)]
    if not entries:
        raise InputError(f"nothing is patched from {source_model!r} into {model!r}; the run has {', '.join(section)}")
    figure = make_subplots(
        rows=1, cols=len(entries), shared_yaxes=True, horizontal_spacing=0.03,
        subplot_titles=[entry["dataset"].replace(", ", BREAK) for entry in entries],
    )  # fmt: skip
    for column, entry in enumerate(entries, start=1):
        _patched_curve(figure, entry, "accuracy", entry["clean"]["accuracy"], column)
        place: dict[str, Any] = {"row": 1, "col": column}
        accuracy, look = entry["source"]["accuracy"]["value"], {"dash": "dash", "color": "#555"}
        figure.add_hline(y=accuracy, line=look, annotation_text=source_model, **place)
    figure.update_layout(**_TOP)
    figure.update_xaxes(title="neurons patched (%)")
    figure.update_yaxes(title="pair accuracy", range=[-0.02, 1.02], col=1)
    return escaped(figure)


def model_patching_curves(results: Results, name: str) -> EscapedFigure:
    """The share of lost pairs recovered, and that of right pairs kept, over the share of neurons patched; with random bands."""
    entry = results.entry("model_patching", name)
    titles = [f"lost pairs recovered (of {entry['lost']})", "right pairs kept"]
    figure = make_subplots(rows=1, cols=2, subplot_titles=titles, shared_yaxes=True, horizontal_spacing=0.03)
    starts: dict[Literal["recovered", "kept"], float] = {"recovered": 0.0, "kept": 1.0}
    for column, (quantity, start) in enumerate(starts.items(), start=1):
        _patched_curve(figure, entry, quantity, {"value": start, "low": start, "high": start, "n": 0}, column)
    figure.update_layout(**_TOP)
    figure.update_xaxes(title="neurons patched (%)")
    figure.update_yaxes(title="share of pairs", range=[-0.02, 1.02], col=1)
    return escaped(figure)


class _Found(NamedTuple):
    """A quantity at a point: of the top neurons, and of each random draw."""

    top: EstimateJson | MaybeEstimateJson
    random: Sequence[float | None]


def _found(point: ModelPatchingPointJson, quantity: Literal["accuracy", "recovered", "kept"]) -> _Found:
    if quantity == "accuracy":
        return _Found(point["ranked"]["accuracy"], point["random_accuracy"])
    if quantity == "recovered":
        return _Found(point["recovered"], point["random_recovered"])
    return _Found(point["kept"], point["random_kept"])


def _patched_curve(
    figure: go.Figure, entry: ModelPatchingEntry, quantity: Literal["accuracy", "recovered", "kept"], start: EstimateJson, column: int
) -> None:
    place: dict[str, Any] = {"row": 1, "col": column}
    points, found = entry["points"], [_found(point, quantity) for point in entry["points"]]
    # Shares are steps, evenly spaced: on a linear axis all but the largest would be one.
    labels = ["0", *(f"{100 * point['fraction']:g}" for point in points)]
    figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels, **place)
    drawn = [(step, [value for value in each.random if value is not None]) for step, each in enumerate(found, start=1)]
    banded = [(x, values) for x, values in drawn if values]
    if banded:
        xs = [0, *(x for x, _ in banded)]
        highs, lows = ([start["value"], *(pick(values) for _, values in banded)] for pick in (max, min))
        figure.add_scatter(
            x=[*xs, *reversed(xs)], y=[*highs, *reversed(lows)], mode="lines", fill="toself", fillcolor="rgba(127,127,127,0.3)",
            line={"width": 0}, name="random, layers matched (range of draws)", showlegend=column == 1, hoverinfo="skip", **place,
        )  # fmt: skip
        means = [start["value"], *(float(np.mean(values)) for _, values in banded)]
        figure.add_scatter(
            x=xs, y=means, mode="lines+markers", line={"color": "#777777", "dash": "dot"}, marker={"symbol": "x-thin-open", "size": 7},
            name="mean of the random draws", showlegend=column == 1, **place,
        )  # fmt: skip
    shown = [(step, value) for step, each in enumerate(found, start=1) if (value := each.top)["value"] is not None]
    values = [start, *(value for _, value in shown)]
    figure.add_scatter(
        x=[0, *(x for x, _ in shown)], y=[value["value"] for value in values], mode="lines+markers", name="top neurons patched",
        line={"color": color_of(entry["source_model"], 0)}, error_y=error_bars(values), showlegend=column == 1, **place,
    )  # fmt: skip


def lens_curves(results: Results) -> EscapedFigure:
    """By depth: the accuracy of the reward read there, and the share of pairs whose preference is decided.

    A colour is a model, a dash a data set."""
    figure = make_subplots(rows=1, cols=2, subplot_titles=["pair accuracy", "pairs decided"], shared_yaxes=True, horizontal_spacing=0.04)
    datasets = list(dict.fromkeys(entry["dataset"] for entry in results.section("lens").values()))
    for i, (name, entry) in enumerate(results.section("lens").items()):
        depths = list(range(len(entry["accuracy"])))
        color, dash = color_of(entry["model"], i), ("solid", "dash", "dot", "dashdot")[datasets.index(entry["dataset"]) % 4]
        _banded(figure, depths, entry["accuracy"], name, color, dash, row=1, col=1, showlegend=True)
        decided = np.array(entry["decided_at_depth"])
        share = [float((decided <= depth).mean()) for depth in depths]
        figure.add_scatter(x=depths, y=share, mode="lines", name=name, line={"color": color, "dash": dash}, showlegend=False, row=1, col=2)
    first: dict[str, Any] = {"row": 1, "col": 1}
    figure.add_hline(y=0.5, **DOTTED, annotation_text="chance", **first)
    figure.update_layout(**_TOP)
    figure.update_xaxes(
        title="depth (layers that have run)", dtick=layer_ticks(max(len(e["accuracy"]) for e in results.section("lens").values()))
    )
    figure.update_yaxes(title="share of pairs", range=[0, 1.02], col=1)
    return escaped(figure)


def token_curves(results: Results, name: str, pair_id: str) -> EscapedFigure:
    """The reward at each token of a pair's two transcripts, from where they part."""
    shown = {pair["id"]: pair for pair in results.entry("lens", name)["shown"]}
    if pair_id not in shown:
        raise InputError(f"lens of {name!r} shows no pair {pair_id!r}; it shows {', '.join(shown)}")
    pair = shown[pair_id]
    figure = go.Figure()
    for side, color, dash in (("chosen", "#0072B2", "solid"), ("rejected", "#D55E00", "dash")):
        rewards, tokens = pair[side]["reward"], [as_label(token) for token in pair[side]["tokens"]]
        figure.add_scatter(
            x=list(range(len(rewards))), y=rewards, mode="lines+markers", name=side, line={"color": color, "dash": dash},
            marker={"size": 4}, text=tokens, hovertemplate=markup("%{text}: %{y:.3f}<extra>") + side + markup("</extra>"),
        )  # fmt: skip
    figure.add_vline(x=pair["decided_at_token"], **DOTTED, annotation_text="decided")
    figure.update_layout(**LAYOUT)
    figure.update_xaxes(title="token after the shared prefix (hover for its text)")
    figure.update_yaxes(title="reward so far (reward units)")
    return escaped(figure)


def as_label(token: str) -> str:
    """A token in a figure: plotly drops spaces and line ends."""
    text = token.replace("\n", "⏎").replace("\r", "␍").replace("\t", "⇥").replace(" ", "·")
    return (text if len(text) <= 14 else text[:13] + "…") or "∅"


def _check_shape(name: str, shape: tuple[int, int]) -> None:
    if shape[0] * shape[1] > MOST_NEURONS:
        raise InputError(f"patching of {name!r}: a map of {shape[0]:,} × {shape[1]:,} cells; at most {MOST_NEURONS:,} are drawn")


def _heat(value: np.ndarray, *, hover: str) -> go.Heatmap:
    return go.Heatmap(z=value, coloraxis="coloraxis", hovertemplate=hover)


def _shared_scale(figure: go.Figure, values: list[np.ndarray], title: str) -> None:
    reach = scale_of(np.stack(values))
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 50}})
    figure.update_layout(
        coloraxis={"colorscale": _SCALE, "cmin": -reach, "cmax": reach, "colorbar": {"title": {"text": title, "side": "right"}}}
    )


def _banded(
    figure: go.Figure,
    x: Sequence[int | None],
    values: Sequence[EstimateJson],
    name: str,
    color: str,
    dash: str,
    *,
    showlegend: bool,
    **place: Any,
) -> None:
    """A line with its intervals as a band."""
    both = [ends(value) or (value["value"], value["value"]) for value in values]  # no width where there is no interval
    band = [high for _, high in both] + [low for low, _ in reversed(both)]
    figure.add_scatter(
        x=[*x, *reversed(x)], y=band, mode="lines", fill="toself", fillcolor=_faint(color), line={"width": 0}, hoverinfo="skip",
        legendgroup=name, showlegend=False, name=name, **place,
    )  # fmt: skip
    figure.add_scatter(
        x=x, y=[value["value"] for value in values], mode="lines", name=name, legendgroup=name, showlegend=showlegend,
        line={"color": color, "dash": dash}, **place,
    )  # fmt: skip


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
