"""What does the page look like? The first screens of a run's overview and of one neuron, from small to large, light and dark.

Command:  .venv/bin/python benchmarks/pictures.py --run runs/demo --out docs/img
Cost:     about a minute.
Expect:   twelve files, page-{overview,neuron}-{360,1400,2560}-{light,dark}.png, each under 250 kB.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from tl_reward.results.store import Results
from tl_reward.show.page import write_page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from helpers.browser import browser

# By a screen's width: its height, and how many pixels of the picture one of the page is.
SCREENS = {360: (780, 1.0), 1400: (900, 1.0), 2560: (1440, 0.5)}


@dataclass(frozen=True)
class Config:
    """Takes pictures with the Chromium on the path.

    Attributes:
        run: a run folder with effects of MLP neurons, such as the demo's.
        out: the folder for the pictures; those of the same names are replaced.
    """

    run: Path = Path("runs/demo")
    out: Path = Path("docs/img")


def main(config: Config) -> None:
    with tempfile.TemporaryDirectory() as folder, browser() as chromium:
        page = write_page(Results.load(config.run), Path(folder) / "page.html")
        for width, (height, scale) in SCREENS.items():
            for theme in ("light", "dark"):
                context = chromium.new_context(
                    viewport={"width": width, "height": height}, device_scale_factor=scale, color_scheme=theme, offline=True
                )
                take(context.new_page(), page.as_uri(), config.out, f"{width}-{theme}")
                context.close()


def take(page: Any, address: str, out: Path, name: str) -> None:
    """The overview, and the neuron that stands first in its table."""
    page.goto(address)
    first = page.locator("#table tbody a").first
    first.wait_for(timeout=120_000)
    for view in ("overview", "neuron"):
        if view == "neuron":
            page.evaluate("address => { location.hash = address; }", first.get_attribute("href"))
            page.wait_for_selector("#neuron[data-shown]")
        page.wait_for_function(DRAWN, timeout=120_000)
        path = out / f"page-{view}-{name}.png"
        page.screenshot(path=path)
        print(f"{path}  {path.stat().st_size / 1e3:,.0f} kB", flush=True)


# Whether every plot on the screen is drawn, and nothing was in the last quarter of a second.
DRAWN = """() => new Promise((done) => setTimeout(() => done([...document.querySelectorAll('.plot')].every((each) =>
  !each.checkVisibility() || each.getBoundingClientRect().top > innerHeight || each.dataset.drawn)), 250))"""


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
