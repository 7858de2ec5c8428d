"""The page of a stranger's run: markup in every string, strange names and numbers, sections alone; and writers that are killed or race."""

import inspect
import json
import random
import re
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

import plotly.graph_objects as go
import pytest
import torch
from helpers.attack import LONG
from helpers.browser import browser, opened, scroll_through
from helpers.hostile_runs import EVIL, TAKEN, changed_estimates, only, rewritten, whole_run
from helpers.page_runs import document, random_run, tiny_run
from rich.console import Console

from tl_reward import plots
from tl_reward.errors import InputError
from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.page import build_page, write_page
from tl_reward.show.page.blocks import ASSETS, figure_json, front
from tl_reward.show.plots import estimates
from tl_reward.show.plots.escape import EscapedFigure, escaped, markup
from tl_reward.show.run_tables import summary

SECTIONS = (
    "scores", "discovery", "examples", "attribution", "effects", "tension", "ablation", "sets", "overlap", "patching", "lens", "repair",
)  # fmt: skip
OURS = re.compile(r"</?extra>|<br>|%\{(x|y|z|text|customdata)(:[^}]*)?\}")
NO_ENDS = {
    "none": lambda value: value | {"low": None, "high": None, "n": 1},
    "missing": lambda value: {"value": value["value"], "n": 1},
    "few": lambda value: value | {"n": 3},
}


def evil(text: str) -> str:
    return f"{text} {EVIL}"


def strings_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for part in value.values() for each in strings_of(part)]
    if isinstance(value, list):
        return [each for part in value for each in strings_of(part)]
    return [value] if isinstance(value, str) else []


# Markup


def test_no_string_of_a_run_is_markup_in_any_figure():
    run = rewritten(whole_run(), evil)
    figures = document(build_page(run, title=EVIL), "panels")
    assert len(figures) == len(document(build_page(whole_run()), "panels")) >= 15
    for figure in figures:
        for text in strings_of(figure):
            left = OURS.sub("", text)
            assert "<" not in left and "%{" not in left and "$" not in left, text
    assert sum("evil.example" in str(figure) for figure in figures) >= 10
    (model,) = (entry["model"] for entry in run.section("tension").values())
    (name,) = run.section("tension")
    for figure in (
        plots.tension_scatter(run, name),
        plots.quantity_map(run, model),
        plots.layer_sums(run),
        plots.region_bars(run),
        plots.neuron_effects(run, (0, 3)),
    ):
        assert not [text for text in strings_of(figure_json(figure)) if "<" in OURS.sub("", text)]
    assert "<a" not in run._repr_html_() and "<span" not in run._repr_html_()


def test_no_figure_can_forget_it():
    makers = [getattr(plots, name) for name in plots.__all__ if name != "top_neurons"]
    makers += [estimates.dots, estimates.curves, estimates.distributions]
    assert all("EscapedFigure" in str(inspect.signature(make).return_annotation) for make in makers)
    plain: Any = go.Figure()
    with pytest.raises(TypeError, match="EscapedFigure"):
        figure_json(plain)
    figure = go.Figure(layout={"title": {"text": EVIL}, "annotations": [{"text": EVIL}], "xaxis": {"ticktext": [EVIL]}})
    figure.add_heatmap(z=[[1]], customdata=[[EVIL]], hovertemplate=markup("%{z}<extra>") + EVIL + markup("</extra>"), x=[EVIL])
    done = escaped(figure)
    assert isinstance(done, EscapedFigure) and figure_json(escaped(go.Figure())) is not None
    assert all("<" not in OURS.sub("", text) for text in strings_of(figure_json(done)))
    scripts = [file.name for file in (ASSETS / "front").iterdir() if file.name.endswith(".js")]
    assert [name for name in scripts if re.search(r"\bPlotly\.(?!\w*\()|Plotly\.\w+\(", front(name))] == ["draw.js"]
    assert not [name for name in scripts if re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", front(name))]


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


HOVER_ALL = """() => { for (const box of document.querySelectorAll(".plot")) if (box.data) box.data.forEach((trace, curveNumber) => {
    try { Plotly.Fx.hover(box, [{ curveNumber, pointNumber: trace.type === "heatmap" ? [0, 0] : 0 }],
        [(trace.xaxis ?? "x") + (trace.yaxis ?? "y")]); } catch {} }); }"""


def look_for_markup(page: Any) -> None:
    page.evaluate(HOVER_ALL)
    assert page.evaluate("window.hacked") is None
    links = "e => e.getAttribute('href') ?? e.getAttribute('xlink:href') ?? e.getAttribute('src') ?? ''"
    assert (
        page.evaluate(
            f"[...document.querySelectorAll('main *')].map({links}).filter(link => /^http|evil/.test(link) && !link.startsWith('#'))"
        )
        == []
    )
    assert page.evaluate("[...document.querySelectorAll('[style]')].filter(e => /red/.test(e.style.color + e.style.fill)).length") == 0
    handlers = "[...e.attributes].some(a => a.name.startsWith('on'))"
    assert page.evaluate(f"[...document.querySelectorAll('main *')].filter(e => {handlers}).length") == 0


@pytest.mark.browser
def test_hostile_runs_in_a_browser(chromium, tmp_path):
    """Markup in every string; and models, objectives and sets whose names every JavaScript object has."""
    asked = []
    sections = SECTIONS if LONG else ("discovery", "effects", "tension", "sets", "overlap")
    run = rewritten(Results.merge([only(whole_run(), section) for section in sections]), evil)
    with opened(chromium, write_page(run, tmp_path / "a page.html", title=EVIL).as_uri()) as page:
        page.on("request", lambda request: asked.append(request.url))
        mixed = page.evaluate("[...document.getElementById('model').options].map((each) => each.value)")[-1]
        page.select_option("#model", mixed)
        scroll_through(page)
        look_for_markup(page)
        assert "<a href=" in page.locator("#overview").text_content()  # it is there, as text
        page.fill("#search", "0.3")
        page.press("#search", "Enter")
        page.wait_for_selector('#neuron[data-shown="0.3"]')
        scroll_through(page)
        look_for_markup(page)
        assert not [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]


def strange_run(layers: int = 2, width: int = 20) -> Results:
    names = (*TAKEN, "x" * 200 + "\nline")
    run = random_run(layers, width, models=names, shown=2)
    for key, value in run.tensors.items():
        if key.startswith("tension/"):
            value[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
        elif key.endswith(("mlp_gate/mean", "shown/peak", "correlated/value", "histogram/edge")):
            value.view(-1)[0] = float("nan")
    scores = next(iter(tiny_run().section("scores").values()))
    for name in names:
        rewards = {side: torch.randn(6) for side in ("chosen", "rejected")}
        run.add("scores", f"{name} · a", scores | {"model": name, "dataset": "__proto__"}, rewards)
    top = {name: [[0, i], [1, 1]] for i, name in enumerate(names)}
    run.add("overlap", "__proto__", {
        "fraction": 0.1, "score": "mean", "site": "mlp_gate", "n_layers": layers, "d_mlp": width, "top": top, "pairs": [], "depth": {},
        "ties_at_cut": {}, "neurons": {},
    })  # fmt: skip
    return run


@pytest.mark.browser
def test_names_that_objects_have_and_numbers_that_are_none(chromium, tmp_path):
    with opened(chromium, write_page(strange_run(), tmp_path / "page.html").as_uri()) as page:
        for name in ("constructor", "__proto__"):
            page.select_option("#model", name)
            scroll_through(page)
            boxes = [box for box in page.locator("#overview .plot").all() if box.is_visible()]
            assert len(boxes) >= 6 and all(box.locator(".main-svg").count() for box in boxes)
            assert "neurons have no number" in page.locator("#overview").text_content()
        bars = "[...document.querySelectorAll('.plot')].find(box => box.data?.[0].type === 'bar' && box.data.length === 6)"
        assert page.evaluate(f"{bars}.data.map((trace) => trace.name)")[:5] == [f"{name}\u2060" for name in TAKEN]
        page.click("#table th[data-key='effect on helpful margin'] button")
        page.wait_for_selector("#table th[aria-sort='descending']")
        page.evaluate("location.hash = '#overview?rm=constructor&range=__proto__|>1&range=constructor|>1&sort=-__proto__&set=toString'")
        page.wait_for_timeout(50)
        page.evaluate("location.hash = '#L0N0?rm=__proto__'")
        page.wait_for_selector('#neuron[data-shown="0.0"]')
        scroll_through(page)
        assert "NaN" not in page.inner_text("#neuron")


@pytest.mark.browser
def test_a_run_of_one_section_alone_opens(chromium, tmp_path):
    chosen = SECTIONS if LONG else random.Random(0).sample(SECTIONS, 2)
    for section in chosen:
        run = changed_estimates(only(whole_run(), section), NO_ENDS["missing"])
        with opened(chromium, write_page(run, tmp_path / f"{section}.html").as_uri()) as page:
            scroll_through(page)
            assert page.locator("#overview section").count()


# Intervals without ends


@pytest.mark.parametrize("kind", NO_ENDS if LONG else ("none", "few"))
def test_intervals_without_ends_are_dashes_and_few_prompts_have_a_star(kind, tmp_path):
    run = changed_estimates(whole_run(), NO_ENDS[kind])
    page = build_page(run)
    assert len(document(page, "panels")) >= 15
    manifest = document(page, "manifest")
    margins = [margin for each in manifest["exact"] for margin in each["margins"].values()]
    assert margins and all((margin["low"] is None) == (kind != "few") for margin in margins)
    assert sum("fewer than 10 prompts" in " ".join(panel["notes"]) for panel in manifest["panels"]) >= 10
    with (tmp_path / "said").open("w") as file:
        summary(run, Console(file=file, width=200))
    said = (tmp_path / "said").read_text()
    assert said.count("[–]") > 1 and "*" in said and "fewer than 10 prompts" in said and "None" not in said


@pytest.mark.parametrize("section", SECTIONS if LONG else SECTIONS[::4])
def test_each_section_alone_makes_a_page_or_says_why_not(section):
    for run in (only(whole_run(), section), rewritten(only(whole_run(), section), lambda text: f"{text}\n{'y' * 200}")):
        assert document(build_page(run), "manifest")["format"] == 1


# Sizes


def test_sizes_that_no_page_can_show_are_refused_at_once():
    overlap = next(iter(whole_run().section("overlap").values()))
    big = [
        ({"d_mlp": 10**9}, "at most 50,000,000 neurons are drawn"),
        ({"n_layers": 0}, "at most 50,000,000"),
        ({"top": {"a": [[10**9, 0]], "b": [[0, 1]]}}, "a has neuron 1000000000.0; there are 2 layers of 48 neurons"),
    ]
    start = time.process_time()
    for change, message in big:
        run = Results()
        run.sections["overlap"] = {"x": cast(Any, overlap | change)}  # `add` would refuse it
        for look in (build_page, plots.layer_profile, plots.region_bars):
            with pytest.raises(InputError, match=message):
                look(run)
    patching = deepcopy(only(whole_run(), "patching"))
    for entry in patching.section("patching").values():
        for cell in entry["cells"]:
            if cell["layer"]:
                cell["layer"] = 10**9
    with pytest.raises(InputError, match="cells; at most 50,000,000 are drawn"):
        build_page(patching)
    assert time.process_time() - start < 3


def test_one_model_at_two_sites_shares_a_page():
    one, other = random_run(2, 20), random_run(2, 20)
    (name,) = one.section("tension")
    other.section("tension")[name]["site"] = "mlp_gate"
    for key in [key for key in other.tensors if key.startswith("tension/")]:
        other.tensors[key] = -other.tensors[key]
    both = Results.merge([only(one, "tension"), only(other, "tension")])
    keys = [(column.model, column.key) for column in columns_of(both)]
    assert len(keys) == len(set(keys)) == 4 and ("mixed", "effect on helpful margin (mlp_gate)") in keys
    values = {column.key: column.values for column in columns_of(both)}
    assert (values["effect on helpful margin (mlp_gate)"] == -values["effect on helpful margin (mlp_post)"]).all()
    with pytest.raises(InputError, match="two runs hold tension of"):
        Results.merge([one, one])


# The notebook


def notebook() -> str:
    path = Path(__file__).resolve().parents[2] / "experiments" / "explore.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("section", ["nothing", "all", *SECTIONS])
def test_the_notebook_reads_any_run_or_says_what_computes_the_rest(tmp_path, monkeypatch, capsys, section):
    run = Results() if section == "nothing" else whole_run() if section == "all" else only(whole_run(), section)
    run.save(tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    exec(compile(notebook(), "explore.ipynb", "exec"), {"__name__": "notebook"})
    assert ("To add it: tl-reward" in capsys.readouterr().out) == (section != "all")
