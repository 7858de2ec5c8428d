"""One self-contained HTML page from a run: figures, captions, a table. No network, and no model."""

import html
import json
import os
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go

from tl_reward import effect_plots, plots
from tl_reward.errors import InputError
from tl_reward.results import Results

_CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


class Panel(NamedTuple):
    title: str
    caption: str
    figure: go.Figure
    height: int = 420


def write_page(results: Results, path: str | Path, *, title: str = "Reward model neurons", overwrite: bool = False) -> Path:
    """Writes the page, all of it or nothing. Raises InputError where the file exists and `overwrite` is off."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another file, or replace it with overwrite (--overwrite)")
    page = build_page(results, title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, suffix=".html")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(page)
    Path(scratch).chmod(0o644)
    Path(scratch).replace(path)
    return path


def build_page(results: Results, *, title: str = "Reward model neurons") -> str:
    """The page as text. Sections that the run lacks are left out."""
    panels = list(_panels(results))
    if not panels:
        raise InputError("this run has nothing to show")
    figures = [{"data": figure["data"], "layout": figure["layout"]} for figure in (p.figure.to_plotly_json() for p in panels)]
    document = (files("tl_reward.dashboard") / "page.html").read_text(encoding="utf-8")
    plotly_js = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    sections = "\n".join(
        f"<section><h2>{html.escape(p.title)}</h2><p>{html.escape(p.caption)}</p>"
        f'<div class="plot" id="plot-{i}" style="height:{p.height}px" role="img" aria-label="{html.escape(p.title)}"></div></section>'
        for i, p in enumerate(panels)
    )
    parts = {
        "CSP": _CSP,
        "TITLE": html.escape(title),
        "PROVENANCE": html.escape(_provenance(results)),
        "SECTIONS": sections + _table(results),
        "FIGURES": _json_block(figures),
        "PLOTLY": plotly_js,
    }
    # One pass over the template: what is put in is never searched for further marks.
    pieces = document.split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _panels(results: Results) -> Iterator[Panel]:
    have = results.sections
    if "scores" in have:
        yield Panel(
            "Does each reward model prefer the chosen response?",
            "Share of pairs in which the chosen response gets the higher reward (a tie counts half), with 95 % bootstrap intervals. "
            "Of a best-of-n row, every pair counts here; the stricter share of rows with all pairs right is in the run's scores.",
            plots.accuracy_bars(results),
        )
        yield Panel(
            "By how much?",
            "Distribution of the margin: reward of the chosen response minus reward of the rejected one, in raw reward units. "
            "Right of the dotted line the model agrees with the preference.",
            plots.margin_histogram(results),
        )
    for name, entry in have.get("overlap", {}).items():
        what = f"the {entry['fraction']:.0%} of neurons with the highest {entry['score']} at {entry['site']}"
        yield Panel(
            "Where are each model's top neurons?",
            f"For each layer, how many of {what} lie in it. {_depth(entry)}",
            plots.layer_profile(results, name),
        )
        yield Panel(
            "Do the models use the same neurons?",
            f"Jaccard index of {what}, beside two levels of chance: independent sets over the whole model, and "
            f"independent sets within each layer with the same counts there. {_regions(entry)}",
            plots.overlap_bars(results, name),
        )
    if "ablation" in have:
        what = "; ".join(_tested(name, entry) for name, entry in have["ablation"].items())
        yield Panel(
            "What breaks when they are zeroed?",
            "Pair accuracy after the top neurons are set to 0 at every position, with 95 % intervals. The grey band is the range of "
            f"random sets of as many neurons in each layer. Neurons: {what}.",
            plots.ablation_curves(results),
        )
        yield Panel(
            "And what happens to the margin?",
            "The same edits, in mean margin: reward of chosen minus rejected, in raw reward units.",
            plots.ablation_curves(results, "mean_margin"),
        )
    yield from _effect_panels(results)
    for model, entry in have.get("discovery", {}).items():
        site, score = default_statistic(entry["computed"])
        yield Panel(
            f"Every neuron of the {model} model",
            f"{score} of {site} over all tokens of {entry['pairs']} pairs of {entry['dataset']}. Each row is a layer, its neurons "
            "sorted by score; hover to read a neuron's number.",
            plots.neuron_map(results, model, score, site),
        )


def _effect_panels(results: Results) -> Iterator[Panel]:
    have = results.sections
    for name, entry in have.get("attribution", {}).items():
        best = entry["methods"][entry["best"]]
        sample = f"{best['agreement']['neurons']} neurons, {best['agreement_drawn']['neurons']} of them drawn at random"
        yield Panel(
            f"Does attribution predict what zeroing a neuron does? {name}",
            f"Each point is a neuron: its effect on the mean margin of {entry['pairs']} pairs as {best['about']} at {entry['site']} "
            "estimates it, and as zeroing it alone shows, with 95 % intervals over prompts. Positive: zeroing lowers the margin. "
            f"Spearman correlation {_interval(best['agreement']['spearman'])} over all {sample}; "
            f"{_interval(best['agreement_drawn']['spearman'])} over these alone.",
            effect_plots.attribution_scatter(results, name),
            480,
        )
        about = "; ".join(f"{method}: {each['about']}" for method, each in entry["methods"].items())
        yield Panel(
            f"Which method can be trusted? {name}",
            f"Agreement of estimated effects with exact ones, for {sample}, with 95 % intervals over neurons. Precision at k: of the k "
            f"largest estimates, the share among the k largest exact effects (k is a quarter of the neurons compared). {about}.",
            effect_plots.agreement_bars(results, name),
        )
    for name, entry in have.get("effects", {}).items():
        yield Panel(
            f"What does each neuron do? {name}",
            f"Exact effect of ablating each alone (kind: {entry['kind']}) on the mean margin of {entry['pairs']} pairs, with 95 % "
            "intervals over prompts. Right of the dotted line, ablating it lowers the margin.",
            effect_plots.effect_intervals(results, name),
            max(320, 120 + 22 * min(30, len(entry["effects"]))),
        )
    for name, entry in have.get("tension", {}).items():
        yield Panel(
            f"Which neurons serve one objective at the other's cost? {name}",
            f"Each neuron's effect on both margins ({entry['method']} at {entry['site']}). Coloured: clear on both, at a false discovery "
            f"rate of 5 % each. In conflict: {_conflict(entry['conflict'])}; of the clear ones {_conflict(entry['conflict_clear'])}. "
            " Chance: signs shuffled among the neurons of each layer.",
            effect_plots.tension_scatter(results, name),
            520,
        )
    for name, entry in have.get("sets", {}).items():
        seen = entry["tested_pairs_that_found"]
        apart = "none of the tested pairs among them" if seen == 0 else f"CAUTION: {seen} of {entry['clean']['pairs']} tested pairs"
        yield Panel(
            f"What breaks when each set is zeroed? {name}",
            f"Pair accuracy with 95 % intervals; crosses are random sets of as many neurons in each layer. Sets found on "
            f"{entry['found_on']} ({apart}).",
            effect_plots.set_bars(results, name),
            480,
        )


def _conflict(value: dict[str, float]) -> str:
    if not value["neurons"]:
        return "none"
    chance = f"chance {value['chance']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"
    return f"{value['share']:.1%} of {value['neurons']:,} ({chance}, p {_p(value['p_value'])})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _interval(value: dict[str, float]) -> str:
    if value["value"] is None:
        return "undefined (all effects are the same)"
    return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"


def _depth(entry: dict[str, Any]) -> str:
    parts = (f"{model} {' / '.join(f'{share:.2f}' for share in thirds)}" for model, thirds in entry["depth"].items())
    return f"Share in the early / middle / late third of the layers: {', '.join(parts)}."


def _regions(entry: dict[str, Any]) -> str:
    if "regions" not in entry:
        return ""
    return f"Neurons: {', '.join(f'{count:,} {region}' for region, count in entry['regions'].items())}."


def _tested(name: str, entry: dict[str, Any]) -> str:
    both = entry["tested_pairs_that_found"]
    apart = "none of the tested pairs" if both == 0 else f"CAUTION: {both} of {entry['clean']['pairs']} tested pairs"
    return f"{name}: highest {entry['score']} at {entry['site']}, found on {entry['found_on']} ({apart} among them)"


def default_statistic(computed: list[str]) -> tuple[str, str]:
    """The site and statistic to show: the study's magnitude, the mean of the activation module's output, where it was computed."""
    site, score = ("mlp_gate/mean" if "mlp_gate/mean" in computed else computed[0]).split("/")
    return site, score


def _provenance(results: Results) -> str:
    source = results.provenance
    versions = source.get("versions", {})
    commit = (source.get("commit") or "none")[:10]
    listed = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    seed = "" if source.get("seed") is None else f"seed {source['seed']} · "
    return f"{source.get('command', '')} · {source.get('created', '')} · {seed}commit {commit} · {listed}"


def _table(results: Results) -> str:
    if "discovery" not in results.sections:
        return ""
    site, score = default_statistic(next(iter(results.sections["discovery"].values()))["computed"])
    rows = plots.top_neurons(results, score=score, site=site)
    models = [key for key in rows[0] if key not in ("layer", "neuron")]
    head = "".join(f"<th>{html.escape(m)}: {score}</th><th>{html.escape(m)}: rank</th>" for m in models)
    body = "".join(
        f"<tr><td>{row['layer']}</td><td>{row['neuron']}</td>"
        + "".join(f"<td>{row[m]['score']:.4g}</td><td>{row[m]['rank']}</td>" for m in models)
        + "</tr>"
        for row in rows
    )
    return (
        f"<section><h2>Top neurons</h2><p>The 20 neurons that rank highest in any model, by {score} at {site}.</p>"
        f"<table><thead><tr><th>layer</th><th>neuron</th>{head}</tr></thead><tbody>{body}</tbody></table></section>"
    )


def _json_block(value: Any) -> str:
    """JSON that cannot end its script element, open a comment, or break a line, whatever text is in it."""
    from plotly.utils import PlotlyJSONEncoder

    text = json.dumps(value, cls=PlotlyJSONEncoder, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
