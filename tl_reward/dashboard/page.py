"""One self-contained HTML page from a run: figures, captions, a table. No network, and no model."""

import html
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from tl_reward import plots
from tl_reward.dashboard.panels import default_statistic, panels_of
from tl_reward.errors import InputError
from tl_reward.results import Results

_CSP = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


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
    panels = list(panels_of(results))
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
