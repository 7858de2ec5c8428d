"""Two models side by side: the map of their difference, and one against the other."""

import numpy as np
import pytest
from helpers.browser import browser, click_at, opened
from helpers.page_runs import random_run

from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.page import write_page
from tl_reward.show.page.blocks import halves

pytestmark = pytest.mark.browser
EFFECT = "effect on helpful margin"
LINK = "#overview?rm=mixed&with=harmless&metric=effect+on+helpful+margin"


def made():
    """Both models have effects of the same pairs; of statistics, each has its own pairs."""
    run = random_run(3, 40, models=("mixed", "harmless", "other"), shown=2)
    for entry in run.section("tension").values():
        entry["pair_hashes"] = ["b", "a"] if entry["model"] == "mixed" else ["c"] if entry["model"] == "other" else ["a", "b"]
    for name, entry in run.section("discovery").items():
        entry["pair_hashes"] = [name]
    effect = {name: run.tensor("tension", f"{name} · random numbers", "helpful/effect") for name in ("mixed", "harmless")}
    effect["harmless"][1, 5] = effect["mixed"][1, 5] * 1.0001  # not to be told apart by three digits
    return run


RUN = made()


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(RUN, tmp_path_factory.mktemp("page") / "page.html").as_uri()


def shown(model):
    (found,) = [each.values for each in columns_of(RUN) if (each.model, each.key) == (model, EFFECT)]
    values, scale = halves(found)
    return found, np.maximum(np.abs(values.astype(np.float64) * scale) * 2**-11, scale * 2**-25)


def test_the_map_shows_the_difference(chromium, address):
    with opened(chromium, address + LINK) as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        difference = np.array(page.evaluate("document.getElementById('plot-map').data[0].z.map((row) => Array.from(row))"))
        (mixed, off), (harmless, other_off) = shown("mixed"), shown("harmless")
        assert (np.abs(difference - (mixed - harmless)) <= 2.01 * (off + other_off)).all()
        assert difference[1, 5] == 0 and (difference != 0).sum() > 100
        text = page.evaluate("document.getElementById('plot-map').data[0].customdata[1][5]")
        assert text.startswith("neuron 1.5<br>mixed ") and text.endswith("no difference (reward units)")
        assert "mixed minus harmless" in page.inner_text("#section-map")
        page.check("#map-rank")
        page.wait_for_function("() => document.getElementById('plot-map').layout.xaxis.title.text.startsWith('rank')")
        rows = np.array(page.evaluate("document.getElementById('plot-map').data[0].z.map((row) => Array.from(row))"))
        np.testing.assert_array_equal(rows, -np.sort(-difference, axis=1))
        page.uncheck("#map-rank")
        page.wait_for_function("() => document.getElementById('plot-map').layout.xaxis.title.text === 'neuron'")
        click_at(page, "#plot-map", 7, 2)
        page.wait_for_selector('#neuron[data-shown="2.7"]')


def test_one_against_the_other(chromium, address):
    with opened(chromium, address + LINK) as page:
        page.locator("#plot-compare").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-compare[data-drawn]")
        total, points = page.evaluate(
            """() => {
                const [cells, far] = document.getElementById('plot-compare').data;
                return [cells.customdata.flat().reduce((a, b) => a + b), far.customdata.map((i, at) => [i, far.x[at], far.y[at]])];
            }"""
        )
        assert total == 120 and len(points) == 120
        (mixed, _), (harmless, _) = shown("mixed"), shown("harmless")
        for i, x, y in points:
            assert x * mixed.flat[i] >= 0 and y * harmless.flat[i] >= 0
        order = [i for i, *_ in sorted(points, key=lambda each: each[1])]
        assert (np.diff(mixed.flatten()[order]) >= -1e-3 * np.abs(mixed.flatten()[order][1:])).all()
        i, x, y = max(points, key=lambda each: abs(each[1]) + abs(each[2]))
        click_at(page, "#plot-compare", x, y)
        page.wait_for_selector(f'#neuron[data-shown="{i // 40}.{i % 40}"]')


def test_only_what_both_have_on_the_same_pairs(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed&metric=effect+on+helpful+margin") as page:
        assert page.locator("#versus option").all_inner_texts() == ["none", "harmless"]  # other has it on other pairs
        assert page.locator("#section-compare").is_hidden()
        page.select_option("#versus", "harmless")
        page.wait_for_selector("#section-compare:not([hidden])")
        assert "with=harmless" in page.url
        page.select_option("#metric", "mean of mlp_gate")
        page.wait_for_function("() => document.getElementById('section-map').textContent.includes('this is mixed alone')")
        assert page.locator("#section-compare").is_hidden() and page.locator("#versus").is_disabled()
        page.select_option("#metric", "effect on harmless margin")
        page.wait_for_function("() => document.getElementById('section-map').textContent.includes('mixed minus harmless')")
