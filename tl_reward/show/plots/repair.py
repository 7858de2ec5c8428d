"""Figures of a repair: what it did beside what else could have done it, what else moved, and among which candidates it was chosen."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from tl_reward.errors import InputError
from tl_reward.measures.json_types import ComparedJson, ShiftJson, TriedJson
from tl_reward.results.sections import RepairEntry
from tl_reward.results.store import Results
from tl_reward.show.intervals import ends
from tl_reward.show.plots.escape import BREAK, EscapedFigure, escaped, markup
from tl_reward.show.plots.style import DOTTED, LAYOUT, error_bars
from tl_reward.show.repairs import TestedOn, before_after, clipped, label_of, number, tested_on, with_interval

# Colours that are read on light and on dark, and are no objective's; each verdict has a marker of its own beside.
VERDICTS = {
    "better": ("#1A9988", "triangle-up"), "worse": ("#D1495B", "triangle-down"), "reversed": ("#9B5DE5", "diamond"),
    "moved": ("#B8860B", "square"), "no clear change": ("#888888", "circle"),
}  # fmt: skip
_WAYS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LINES = ("solid", "dash", "dot", "dashdot", "longdash")
ACROSS = 3  # panels beside each other
_BEST = {"near 0": "best near 0", "high": "best high", "neither": "neither way better"}
_ROW, _APART = 24, 95  # pixels: of a row, and between panels that stand above each other


def repair_evidence(results: Results, name: str) -> EscapedFigure:
    """The paired difference of accuracy on each objective's test pairs and each protected set, with 95 % intervals over prompts: of the
    repair, of the same gates on random neurons, of all neurons scaled alike, and of other models. A panel a set; right of the dotted line
    accuracy is higher than before."""
    entry = results.entry("repair", name)
    sets = tested_on(entry)
    rows = list(dict.fromkeys(_row_of(row) for each in sets for row in (each.repaired, *each.controls)))
    across, down = min(ACROSS, len(sets)), -(-len(sets) // ACROSS)
    tall = 28 * len(rows)
    area = down * tall + (down - 1) * _APART
    figure = make_subplots(
        rows=down, cols=across, subplot_titles=[_title(each) for each in sets], shared_yaxes=True, horizontal_spacing=0.03,
        vertical_spacing=_APART / area if down > 1 else 0,
    )  # fmt: skip
    told: set[str] = set()
    for i, each in enumerate(sets):
        _add_differences(figure, each, rows, told, {"row": i // across + 1, "col": i % across + 1})
    figure.add_vline(x=0, **DOTTED)
    figure.update_xaxes(zeroline=False)
    for i in range(len(sets)):
        lowest: dict[str, Any] = {"title": "difference of accuracy"} if i + across >= len(sets) else {}
        shared: dict[str, Any] = {"matches": "x"} if i else {}
        figure.update_xaxes(row=i // across + 1, col=i % across + 1, **lowest, **shared)
    labels = ["no edit" if kind == "repaired" and entry["chosen"] is None else clipped(label, 34) for kind, label in rows]
    figure.update_yaxes(
        tickvals=[-i for i in range(len(rows))], ticktext=labels, range=[0.6 - len(rows), 0.6],
        zeroline=False, showgrid=False,
    )  # fmt: skip
    return _finished(figure, 165 + area)


def _row_of(row: ComparedJson) -> tuple[str, str]:
    """What a row of the figure is of: all random draws share one."""
    return row["kind"], label_of(row)


def _title(each: TestedOn) -> str:
    accuracy = each.repaired["accuracy"]
    return f"{clipped(each.name, 24)} ({each.kind}){BREAK}{before_after(accuracy)}, {accuracy['before']['n']:,} prompts"


def _add_differences(figure: go.Figure, each: TestedOn, rows: list[tuple[str, str]], told: set[str], place: dict[str, Any]) -> None:
    draws = [row for row in each.controls if row["kind"] == "random"]
    for verdict, (color, symbol) in VERDICTS.items():
        own = [row for row in (each.repaired, *each.controls) if row["verdict"] == verdict]
        if not own:
            continue
        values = [row["accuracy"]["difference"] for row in own]
        # Draws in one row, beside each other, so that their intervals do not hide each other.
        beside = [0.5 * (draws.index(row) + 0.5) / len(draws) - 0.25 if row["kind"] == "random" else 0 for row in own]
        figure.add_scatter(
            x=[value["value"] for value in values], y=[shift - rows.index(_row_of(row)) for row, shift in zip(own, beside, strict=True)],
            error_x=error_bars(values) | {"thickness": 1.5, "width": 3}, mode="markers", name=verdict, legendgroup=verdict,
            showlegend=verdict not in told,
            marker={
                "color": color, "symbol": symbol, "size": [13 if row["kind"] == "repaired" else 8 for row in own], "opacity": 1,
                "line": {"width": 0},
            },
            text=[
                f"{row['name']}{BREAK}accuracy {before_after(row['accuracy'])}, difference {with_interval(row['accuracy']['difference'])}"
                f"{BREAK}margin {before_after(row['margin'], '.2f')} standard deviations, difference "
                f"{with_interval(row['margin']['difference'], '+.2f')}"
                for row in own
            ],
            hovertemplate=markup("%{text}<extra>") + verdict + markup("</extra>"), **place,
        )  # fmt: skip
        told.add(verdict)
    figure.add_hrect(y0=-0.5, y1=0.5, fillcolor="rgba(127,127,127,0.15)", line_width=0, layer="below", **place)


def repair_shifts(results: Results, name: str, tested: Sequence[str] = ()) -> EscapedFigure:
    """Every figure of the battery before (open) and after (filled, with its 95 % interval) the repair: those that are best near 0, those
    that are best high, and those of which neither is better, each of which has a scale of its own and its numbers beside it.

    Args:
        tested: objectives and protected sets, a column each; all by default.

    Raises:
        InputError: one that was not tested; none has a figure.
    """
    entry = results.entry("repair", name)
    columns = {each: _shifts_of(entry, each) for each in tested or entry["shifts"]}
    groups = {
        good: names
        for good in _BEST
        if (names := list(dict.fromkeys(shift["name"] for shifts in columns.values() for shift in shifts if shift["good"] == good)))
    }
    if not groups:
        raise InputError(f"repair of {name!r}: no figure of what else moved was measured")
    lines = sum(len(names) + 1.5 for names in groups.values())
    figure = make_subplots(
        rows=len(groups), cols=len(columns), column_titles=[clipped(each, 30) for each in columns], shared_yaxes=True,
        horizontal_spacing=min(0.03, 0.3 / len(columns)), vertical_spacing=min(0.5 / len(groups), 2.4 / lines),
        row_heights=[len(names) + 0.5 for names in groups.values()],
    )  # fmt: skip
    told: set[str] = set()
    for row, (good, names) in enumerate(groups.items(), 1):
        units = _units(columns, names) if good == "neither" else dict.fromkeys(names, 1.0)
        for column, shifts in enumerate(columns.values(), 1):
            own = [shift for shift in shifts if shift["good"] == good]
            _add_shifts(figure, own, names, units, told, {"row": row, "col": column}, written=good == "neither")
        first = (row - 1) * len(columns) + 1
        here: dict[str, Any] = {"row": row}
        own_axis = {"range": [-1.15, 3], "showticklabels": False, "showgrid": False} if good == "neither" else {}
        figure.update_xaxes(row=row, zeroline=False, **own_axis)
        for column in range(2, len(columns) + 1):
            figure.update_xaxes(row=row, col=column, matches=f"x{first if first > 1 else ''}")
        figure.update_yaxes(
            row=row, tickvals=[-i for i in range(len(names))], ticktext=[clipped(each, 42) for each in names],
            range=[0.6 - len(names), 0.6], zeroline=False,
        )  # fmt: skip
        figure.add_annotation(
            text=_BEST[good], xref="paper", x=0, xanchor="right", xshift=-8, yref=f"y{first if first > 1 else ''} domain", y=1,
            yanchor="bottom", showarrow=False, font={"size": 13, "weight": "bold"},
        )  # fmt: skip
        if good == "near 0":
            figure.add_vline(x=0, **DOTTED, **here)
    return _finished(figure, int(130 + _ROW * lines + 20 * len(groups)))


def _shifts_of(entry: RepairEntry, tested: str) -> list[ShiftJson]:
    if tested not in entry["shifts"]:
        raise InputError(f"the repair was not tested on {tested!r}; it was on {', '.join(entry['shifts'])}")
    return entry["shifts"][tested]


def _units(columns: dict[str, list[ShiftJson]], names: list[str]) -> dict[str, float]:
    """The size of the largest number of each figure, over all columns."""
    units = dict.fromkeys(names, 0.0)
    for shift in (shift for shifts in columns.values() for shift in shifts if shift["name"] in units):
        numbers = [shift[when]["value"] for when in ("before", "after")] + [*(ends(shift["after"]) or ())]
        units[shift["name"]] = max(units[shift["name"]], *(abs(each) for each in numbers if each is not None), 0.0)
    return {each: size or 1.0 for each, size in units.items()}


def _add_shifts(
    figure: go.Figure,
    shifts: list[ShiftJson],
    names: list[str],
    units: dict[str, float],
    told: set[str],
    place: dict[str, Any],
    *,
    written: bool,
) -> None:
    """Before, after, and a line between the two."""

    def at(shift: ShiftJson, when: str) -> float | None:
        value = shift["before" if when == "before" else "after"]["value"]
        return None if value is None else value / units[shift["name"]]

    rows = [-names.index(shift["name"]) for shift in shifts]
    figure.add_scatter(
        x=[x for shift in shifts for x in (at(shift, "before"), at(shift, "after"), None)], y=[y for row in rows for y in (row, row, None)],
        mode="lines", line={"color": "#888888", "width": 1.5}, hoverinfo="skip", showlegend=False, **place,
    )  # fmt: skip
    figure.add_scatter(
        x=[at(shift, "before") for shift in shifts], y=rows, mode="markers", name="before", legendgroup="before",
        showlegend="before" not in told, marker={"color": "#888888", "symbol": "circle-open", "size": 8, "line": {"width": 1.5}},
        text=[_told(shift) for shift in shifts], hovertemplate=markup("%{text}<extra>before</extra>"), **place,
    )  # fmt: skip
    told.add("before")
    for verdict, (color, symbol) in VERDICTS.items():
        own = [(row, shift) for row, shift in zip(rows, shifts, strict=True) if shift["verdict"] == verdict]
        if own:
            bars = error_bars([shift["after"] for _, shift in own])
            scaled = {
                key: [size and size / units[shift["name"]] for size, (_, shift) in zip(bars[key], own, strict=True)]
                for key in ("array", "arrayminus")
            }
            figure.add_scatter(
                x=[at(shift, "after") for _, shift in own], y=[row for row, _ in own],
                error_x=bars | scaled | {"thickness": 1.5, "width": 3}, mode="markers", name=f"after: {verdict}",
                legendgroup=verdict, showlegend=verdict not in told,
                marker={"color": color, "symbol": symbol, "size": 9}, text=[_told(shift) for _, shift in own],
                hovertemplate=markup("%{text}<extra>") + verdict + markup("</extra>"), **place,
            )  # fmt: skip
            told.add(verdict)
    if written:
        figure.add_scatter(
            x=[1.25] * len(shifts), y=rows, mode="text", text=[before_after(shift, ".3g") for shift in shifts], textposition="middle right",
            textfont={"size": 11}, hoverinfo="skip", showlegend=False, **place,
        )  # fmt: skip


def _told(shift: ShiftJson) -> str:
    of = "change of its size" if shift["good"] == "near 0" else "change"
    return (
        f"{shift['name']}{BREAK}{clipped(shift['question'], 90)}{BREAK}{before_after(shift)}, {of} {with_interval(shift['difference'])}, "
        f"{shift['difference']['n']:,} prompts"
    )


def repair_path(results: Results, name: str) -> EscapedFigure:
    """Every candidate on the tune pairs: the mean over objectives of the accuracy gained, against how many neurons it edits. A colour a way
    to choose neurons, a dash a strength; crosses lose more than tolerated on an objective; small marks were tried on a part of the pairs
    alone. The ring is the one that was chosen."""
    entry = results.entry("repair", name)
    series: dict[tuple[str, str], list[TriedJson]] = {}
    for each in entry["tried"]:
        series.setdefault((each["way"], "" if each["way"] == "uniform" else each["about"]), []).append(each)
    ways = [way for way in dict.fromkeys(way for way, _ in series) if way != "uniform"]
    figure = go.Figure()
    for (way, about), found in sorted(series.items(), key=lambda item: [*ways, "uniform"].index(item[0][0])):
        path = sorted(found, key=lambda each: each["neurons"])
        color = _WAYS[ways.index(way) % len(_WAYS)] if way in ways else "#888888"
        dashes = [other for one, other in series if one == way]
        label = f"{way}: {about}" if way in ways else "all neurons alike (no candidate)"
        figure.add_scatter(
            x=[each["neurons"] for each in path], y=[gain_of(each) for each in path], name=clipped(label, 60),
            mode="lines+markers" if way in ways else "markers",
            line={"color": color, "width": 1.5, "dash": _LINES[dashes.index(about) % len(_LINES)]},
            marker={
                "color": color, "symbol": ["circle" if _allowed(each, entry["tolerance"]) else "x" for each in path],
                "size": [10 if each["finalist"] else 6 for each in path], "opacity": 1, "line": {"width": 0},
            },
            text=[_told_of(each) for each in path], hovertemplate=markup("%{text}<extra></extra>"),
        )  # fmt: skip
    for each in (each for each in entry["tried"] if each["chosen"]):
        figure.add_scatter(
            x=[each["neurons"]], y=[gain_of(each)], mode="markers", name=f"chosen: {clipped(each['name'])}", hoverinfo="skip",
            marker={"color": "#000000", "symbol": "circle-open", "size": 20, "line": {"width": 2.5}},
        )  # fmt: skip
    figure.add_hline(y=0, **DOTTED)
    beside: dict[str, Any] = {"legend": {"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"}}
    figure.update_layout(**LAYOUT | beside, height=max(420, 120 + 22 * len(series)))
    most = max((each["neurons"] for each in entry["tried"]), default=1)
    ticks = [digit * 10**power for power in range(len(str(most))) for digit in (1, 2, 5)]
    figure.update_xaxes(title="neurons edited (logarithmic scale)", type="log", tickvals=ticks, ticktext=[f"{each:,}" for each in ticks])
    figure.update_yaxes(title="mean gain of accuracy on the tune pairs")
    return escaped(figure)


def gain_of(tried: TriedJson) -> float | None:
    """The mean over objectives of the accuracy gained; None where there is none."""
    gains = [each["difference"]["value"] for each in tried["accuracy"].values()]
    return sum(gain for gain in gains if gain is not None) / len(gains) if gains and None not in gains else None


def _prompts(tried: TriedJson) -> int:
    return sum(each["difference"]["n"] for each in tried["accuracy"].values())


def _allowed(tried: TriedJson, tolerance: float) -> bool:
    return all((each["difference"]["value"] or 0.0) >= -tolerance for each in tried["accuracy"].values())


def _told_of(tried: TriedJson) -> str:
    parts = [f"{objective} {with_interval(each['difference'])}" for objective, each in tried["accuracy"].items()]
    return BREAK.join([tried["name"], f"mean gain {number(gain_of(tried), '+.3f')}", *parts, f"{_prompts(tried):,} prompts"])


def _finished(figure: go.Figure, height: int) -> EscapedFigure:
    legend = LAYOUT["legend"] | {"y": 1.0, "yref": "container", "yanchor": "top"}
    figure.update_layout(**LAYOUT | {"margin": LAYOUT["margin"] | {"t": 85}, "legend": legend}, height=height)
    figure.update_annotations(font_size=13)
    return escaped(figure)


def height_of(figure: EscapedFigure) -> int:
    """In pixels, as a figure whose rows are many asks for."""
    return int(figure.to_plotly_json()["layout"].get("height", 420))
