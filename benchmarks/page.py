"""How fast is the page? Opening it, a click on a neuron, and hovering, in headless Chromium, beside the figure that plotly writes.

Command:  .venv/bin/python benchmarks/page.py --run runs/demo
Cost:     about 2 minutes.
Expect:   the page of the three embedded models in under 5 MB, open in under 2 s, a click answered in under 100 ms; 1.4 million random
          neurons open in under 6 s, and answer a hover in under 50 ms. Times are medians, then the slowest.
"""

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tyro
from playwright.sync_api import sync_playwright

from tl_reward.results.store import Results
from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.page import write_page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.browser import ARGUMENTS
from helpers.page_runs import random_run

# When things happened, by the page's own clock: an event's time is when the browser got it, and a frame after a change shows it.
WATCH = """
window.times = {};
const frame = (name) => requestAnimationFrame(() => setTimeout(() => { window.times[name] ??= performance.now(); }));
addEventListener("mousedown", (event) => { window.times = { down: event.timeStamp }; }, true);
addEventListener("mousemove", (event) => { window.times.move = event.timeStamp; delete window.times.hover; }, true);
new MutationObserver((changes) => changes.forEach(({ target }) => {
  if (target.id === "plot-map" && target.dataset?.drawn) frame("drawn");
  if (target.id === "neuron" && target.dataset?.shown) frame("shown");
})).observe(document, { subtree: true, attributes: true, attributeFilter: ["data-drawn", "data-shown"] });
new MutationObserver(() => document.querySelector(".hoverlayer .hovertext") && frame("hover"))
  .observe(document, { subtree: true, childList: true });
"""


@dataclass(frozen=True)
class Config:
    """Opens pages in the Chromium on the path.

    Attributes:
        run: a run folder with effects or statistics of MLP neurons, such as the demo's.
        repeats: how often each page is opened, and clicked.
    """

    run: Path = Path("runs/demo")
    repeats: int = 7


def main(config: Config) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        print(f"Chromium {browser.version}\n")
        for name, run in (
            (str(config.run), Results.load(config.run)),
            ("1.4 M random neurons, 80 x 17,920", random_run(80, 17_920, shown=20)),
        ):
            ours = write_page(run, Path(folder) / "page.html", overwrite=True)
            theirs = Path(folder) / "plotly.html"
            as_points(run).write_html(theirs, include_plotlyjs=True)
            opened = [measure_opening(browser, ours) for _ in range(config.repeats)]
            points = [measure_plotly(browser, theirs) for _ in range(max(1, config.repeats // 3))]
            clicks, hovers = measure_answers(browser, ours, config.repeats)
            print(
                f"{name}: page {ours.stat().st_size / 1e6:.1f} MB, plotly's own scatter of one column {theirs.stat().st_size / 1e6:.1f} MB"
            )
            print(f"  open    {shown(opened)}; plotly's {shown(points)}: {median(points) / median(opened):.1f} times ours")
            print(f"  click   {shown(clicks)}")
            print(f"  hover   {shown(hovers)}\n", flush=True)
        browser.close()


def as_points(run: Results) -> go.Figure:
    """What one would write without a page: a point a neuron, of one column, in a file of plotly's."""
    values = columns_of(run)[0].values
    layer = np.repeat(np.arange(len(values)), values.shape[1])
    return go.Figure(go.Scattergl(x=values.flatten(), y=layer, mode="markers", marker={"size": 3}))


def measure_opening(browser: Any, path: Path) -> float:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.add_init_script(WATCH)
    page.goto(path.as_uri())
    page.wait_for_function("() => window.times.drawn", timeout=120_000)
    value = page.evaluate("window.times.drawn")
    page.close()
    return value


def measure_plotly(browser: Any, path: Path) -> float:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(path.as_uri(), timeout=240_000)
    page.wait_for_function("() => document.querySelector('.js-plotly-plot .main-svg .xtick')", timeout=240_000)
    value = page.evaluate("performance.now()")
    page.close()
    return value


def measure_answers(browser: Any, path: Path, repeats: int) -> tuple[list[float], list[float]]:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.add_init_script(WATCH)
    page.goto(path.as_uri())
    clicks, hovers = [], []
    for i in range(repeats + 1):
        page.wait_for_selector("#plot-map[data-drawn]", timeout=120_000)
        page.wait_for_timeout(500)
        box = page.locator("#plot-map .nsewdrag").bounding_box()
        x, y = box["x"] + box["width"] * (i + 1) / (repeats + 2), box["y"] + box["height"] * (0.2 + 0.6 * i / repeats)
        page.mouse.move(x - 30, y)
        page.wait_for_timeout(300)
        page.mouse.move(x, y)
        page.wait_for_function("() => window.times.hover")
        hovers.append(page.evaluate("window.times.hover - window.times.move"))
        page.mouse.click(x, y)
        page.wait_for_function("() => window.times.shown")
        clicks.append(page.evaluate("window.times.shown - window.times.down"))
        page.go_back()
        page.wait_for_selector("#overview:not([hidden])")
        page.evaluate("document.getElementById('neuron').removeAttribute('data-shown')")
    page.close()
    return clicks[1:], hovers[1:]  # the first of each fills caches


def shown(times: list[float]) -> str:
    return f"{median(times):,.0f} ms (slowest {max(times):,.0f})"


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
