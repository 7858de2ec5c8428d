"""The page in a real browser, from disk and without a network."""

import csv
import re

import numpy as np
import pytest
import torch
from helpers.browser import browser, click_at, opened, scroll_through
from helpers.page_runs import NAMES, TEXTS, random_run, tiny_run

from tl_reward.data.reading import Reading
from tl_reward.show.neuron_columns import columns_of
from tl_reward.show.page import document as page_module
from tl_reward.show.page import write_page
from tl_reward.show.page.blocks import halves

pytestmark = pytest.mark.browser
WIDTH = 1536
RUN = random_run(12, WIDTH, models=NAMES, shown=30)
EFFECT = "effect on helpful margin"


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(RUN, tmp_path_factory.mktemp("page") / "page.html").as_uri()


def column(model, key):
    """The numbers that the page has: three digits."""
    (found,) = [each for each in columns_of(RUN) if (each.model, each.key) == (model, key)]
    values, scale = halves(found.values)  # of effects: their neutral value is 0
    np.testing.assert_allclose(values.astype(np.float64) * scale, found.values, rtol=1e-3, atol=1e-8)
    return values.astype(np.float64) * scale


def test_every_plot_of_a_whole_run_is_drawn(chromium, tmp_path):
    page_file = write_page(tiny_run(), tmp_path / "page.html")
    with opened(chromium, page_file.as_uri() + "#overview?rm=mixed&metric=mean+of+mlp_gate&with=helpful") as page:
        scroll_through(page)
        plots = [box for box in page.locator(".plot").all() if box.is_visible()]
        assert len(plots) == page.locator("#overview section .plot").count() >= 14
        assert all(box.locator(".main-svg").count() for box in plots)
        assert page.locator("#section-tension-0").is_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_both_themes(chromium, address, dark):
    with opened(chromium, address, dark=dark) as page:
        color = "rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == color
        scroll_through(page)
        text = page.locator("#plot-map .xtitle").evaluate("each => getComputedStyle(each).fill")
        assert text == ("rgb(233, 233, 233)" if dark else "rgb(26, 26, 26)")
        page.click("#theme")
        page.click("#theme")  # system, light, dark
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_a_click_on_the_map_opens_the_neuron_that_the_pixel_shows(chromium, address):
    place = f"#overview?rm=harmless&metric={EFFECT.replace(' ', '+')}"
    with opened(chromium, address + place, width=1600) as page:  # two pixels of the screen for each of the map
        edges = np.round(np.arange(481) * (WIDTH / 480)).astype(int)
        pixel, layer = 123, 7
        here = np.abs(column("harmless", EFFECT)[layer, edges[pixel] : edges[pixel + 1]])
        expected = edges[pixel] + int(here.argmax())
        click_at(page, "#plot-map", (edges[pixel] + edges[pixel + 1] - 1) / 2, layer)
        page.wait_for_selector(f'#neuron[data-shown="{layer}.{expected}"]')
        assert f"neuron {expected} of the harmless model" in page.inner_text("#neuron-title")
        assert page.evaluate("location.hash").startswith(f"#L{layer}N{expected}?rm=harmless")


def test_a_zoomed_map_shows_every_neuron_of_its_part(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        page.evaluate("Plotly.relayout(document.getElementById('plot-map'), { 'xaxis.range': [99.5, 199.5] })")
        page.wait_for_function("() => document.getElementById('plot-map').data[0].z[0].length === 100")
        click_at(page, "#plot-map", 150, 3)
        page.wait_for_selector('#neuron[data-shown="3.150"]')


def test_a_click_on_the_tension_plot_opens_its_neuron(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.locator("#plot-tension-2").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-tension-2[data-drawn]")
        x, y, index = page.evaluate(
            """() => {
                const trace = document.getElementById('plot-tension-2').data[2];
                return [trace.x[0], trace.y[0], trace.customdata[0]];
            }"""
        )
        effects = [column("mixed", f"effect on {objective} margin").flatten()[index] for objective in ("harmless", "helpful")]
        units = page.evaluate("document.getElementById('plot-tension-2').layout.xaxis.ticktext.length")
        assert units >= 3 and np.sign(x) == np.sign(effects[0]) and np.sign(y) == np.sign(effects[1])
        click_at(page, "#plot-tension-2", x, y)
        page.wait_for_selector(f'#neuron[data-shown="{index // WIDTH}.{index % WIDTH}"]')


def test_links_the_back_button_and_reloading_keep_the_place(chromium, address):
    with opened(chromium, address + "#L3N17?rm=harmless") as page:
        page.wait_for_selector('#neuron[data-shown="3.17"]')
        assert page.input_value("#model") == "harmless"
        page.keyboard.press("]")
        page.wait_for_selector('#neuron[data-shown="3.18"]')
        page.go_back()
        page.wait_for_selector('#neuron[data-shown="3.17"]')
        page.go_forward()
        page.wait_for_selector('#neuron[data-shown="3.18"]')
        page.reload()
        page.wait_for_selector('#neuron[data-shown="3.18"]')
        assert page.input_value("#model") == "harmless"


def rows_of(page):
    return [[cell.strip().replace("−", "-") for cell in row.split("\t")] for row in page.inner_text("#table tbody").splitlines()]


def test_the_table_sorts_and_filters_and_saves_what_it_shows(chromium, address, tmp_path):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.wait_for_selector("#table tbody tr")
        page.click(f'#table th[data-key="{EFFECT}"] button')
        page.wait_for_selector(f'#table th[data-key="{EFFECT}"][aria-sort="descending"]')
        values = column("mixed", EFFECT)
        best = [f"{i // WIDTH}.{i % WIDTH}" for i in np.argsort(-values, axis=None, kind="stable")[:25]]
        assert [row[0] for row in rows_of(page)] == best
        page.fill(f'#table input[data-key="{EFFECT}"]', "0.01..0.02")
        page.fill("#table-layer", "5")
        kept = np.flatnonzero((values[5] >= 0.01) & (values[5] <= 0.02))
        page.wait_for_function(f"() => document.getElementById('table-status').textContent.startsWith('{len(kept)} of')")
        with page.expect_download() as download:
            page.click("#table-csv")
        download.value.save_as(tmp_path / "neurons.csv")
        with open(tmp_path / "neurons.csv", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        at = next(i for i, name in enumerate(head) if name.startswith(EFFECT))
        order = kept[np.argsort(-values[5, kept], kind="stable")]
        assert [(int(row[0]), int(row[1])) for row in rows] == [(5, int(neuron)) for neuron in order]
        np.testing.assert_allclose([float(row[at]) for row in rows], values[5, order], rtol=1e-3)
        page.reload()
        page.wait_for_selector("html[data-ready]")
        page.wait_for_function(f"() => document.getElementById('table-status').textContent.startsWith('{len(kept)} of')")
        page.click("#table-clear")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('18,432 of')")


def test_a_click_on_a_layer_or_a_set_filters_the_table(chromium, tmp_path):
    run = tiny_run()
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri()) as page:
        page.locator("#plot-overlap-0").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-overlap-0[data-drawn]")
        observed = page.evaluate("document.getElementById('plot-overlap-0').data[0].y[0]")
        click_at(page, "#plot-overlap-0", -0.2, observed / 2)
        page.wait_for_function(f"() => document.getElementById('table-status').textContent.startsWith('{observed} of 96')")
        names = page.evaluate("document.getElementById('plot-overlap-0').data[0].customdata[0]")
        (entry,) = run.section("overlap").values()
        sets = {name: {tuple(place) for place in coords} for name, coords in entry["top"].items()}
        inside = [name for name in sets if name in names]
        expected = set.intersection(*(sets[name] for name in inside)) - set().union(*(sets[name] for name in sets if name not in inside))
        assert {tuple(map(int, row[0].split("."))) for row in rows_of(page)} == expected


def test_from_the_search_box_to_a_neuron_by_keyboard_alone(chromium, address):
    with opened(chromium, address) as page:
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("99.1")
        page.keyboard.press("Enter")
        assert "layers are 0 to 11" in page.inner_text("#search-help")
        page.keyboard.press("Control+A")
        page.keyboard.type("2.7")
        page.keyboard.press("Enter")
        page.wait_for_selector('#neuron[data-shown="2.7"]')
        assert "Neuron 2.7" in page.inner_text("#said")


def test_the_table_is_a_way_in_by_keyboard(chromium, address):
    with opened(chromium, address) as page:
        page.wait_for_selector("#table tbody tr")
        page.focus("#table-csv")
        link = ""
        for _ in range(200):
            page.keyboard.press("Tab")
            link = page.evaluate("document.activeElement.closest('#table tbody a')?.textContent ?? ''")
            if link:
                break
        page.keyboard.press("Enter")
        page.wait_for_selector(f'#neuron[data-shown="{link}"]')


def test_hostile_texts_are_shown_as_they_are_and_run_nothing(chromium, address):
    with opened(chromium, address + "#L0N0?rm=mixed") as page:
        page.wait_for_selector("#section-examples .example")
        shown = page.evaluate("[...document.querySelectorAll('#section-examples .tokens')].map((each) => each.textContent)")
        assert shown == [f"Question?{text} answer{text}" for text in TEXTS]
        scroll_through(page)
        assert page.evaluate("window.hacked") is None
        assert page.locator("#section-examples img, #section-examples script, #section-examples b").count() == 0
        page.goto(address + "#L5N1000?rm=mixed")  # a neuron that is not shown in detail
        page.wait_for_selector('#neuron[data-shown="5.1000"] .example')
        assert "tl-reward examples mixed --neurons 5.1000" in page.inner_text("#neuron")
        assert page.evaluate("window.hacked") is None


def test_hostile_names_run_nothing(chromium, tmp_path):
    evil = "$x$ <a href='https://evil.example'>a</a><img src=x onerror='window.hacked = 1'></script><!--<script>"
    run = random_run(2, 20, models=(evil, "other"), shown=3)
    scores = next(iter(tiny_run().section("scores").values())) | {"model": evil, "dataset": evil}
    run.add("scores", f"{evil} · {evil}", scores, {side: torch.randn(6) for side in ("chosen", "rejected")})
    with opened(chromium, write_page(run, tmp_path / "page.html", title=evil).as_uri()) as page:
        scroll_through(page)
        assert page.evaluate("window.hacked") is None and page.inner_text("h1") == evil
        assert page.locator(".plot a").count() == 0 and "href" in page.locator("#plot-1").text_content()
        assert page.locator("#model option").all_inner_texts() == [evil, "other"]
        page.goto(page.url.split("#")[0] + "#L0N1")
        page.wait_for_selector('#neuron[data-shown="0.1"]')
        scroll_through(page)
        assert page.evaluate("window.hacked") is None


def test_the_outlined_token_has_the_peak_also_where_the_prompt_is_louder(chromium, tmp_path):
    run = random_run(2, 20, shown=3)
    activation = run.tensors["examples/mixed · random numbers/shown/activation"].reshape(3, 10, 5)
    activation[:, :, 0] = 2000.0  # the prompt's first token
    run.tensors["examples/mixed · random numbers/shown/peak"] = activation[:, :, 2:].abs().amax(2).float()
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri() + "#L0N1") as page:
        page.wait_for_selector("#section-examples .example")
        marked = page.evaluate(
            """() => [...document.querySelectorAll('#section-examples .tokens')].map((line) => {
                const tokens = [...line.querySelectorAll('span:not(.start)')];
                return [tokens.findIndex((each) => each.classList.contains('peak')), tokens[0].title];
            })"""
        )
        assert marked == [[2 + int(values[2:].abs().argmax()), "about 2000"] for values in activation[1]]


def test_a_filter_with_or_equal_filters_and_a_strange_one_is_marked(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        box = page.locator(f'#table input[data-key="{EFFECT}"]')
        box.fill(">= 0.01")
        expected = int((column("mixed", EFFECT) >= 0.01).sum())
        page.wait_for_function(f"() => document.getElementById('table-status').textContent.startsWith('{expected:,} of')")
        box.fill("about 3")
        assert box.get_attribute("aria-invalid") == "true"


def test_what_one_model_has_and_another_lacks(chromium, tmp_path):
    run, other = random_run(3, 30, models=("mixed",), shown=3), random_run(2, 20, models=("constructor",), shown=3)
    examples = {key: value for key, value in other.tensors.items() if key.startswith("examples/")}
    run.section("examples").update(other.section("examples"))  # of a model without a number for each neuron
    run.tensors |= examples
    run.add("overlap", "of another shape", {
        "fraction": 0.1, "score": "mean", "site": "mlp_gate", "n_layers": 2, "d_mlp": 20, "top": {"a": [[0, 1]], "b": [[0, 1], [1, 2]]},
        "pairs": [], "depth": {}, "ties_at_cut": {}, "neurons": {"a": 1, "b": 2},
    })  # fmt: skip
    tension = "tension/mixed · random numbers"
    run.tensors[f"{tension}/helpful/effect"] = torch.zeros(3, 30)
    with opened(chromium, write_page(run, tmp_path / "a #1?.html").as_uri()) as page:
        scroll_through(page)
        kept = page.locator("#table-set option").nth(1).get_attribute("value")
        page.select_option("#table-set", kept)
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('3 of 90')")
        page.select_option("#model", "constructor")
        page.wait_for_selector("#section-map[hidden]", state="attached")
        assert "set=" not in page.url
        page.fill("#search", "0.1")
        page.press("#search", "Enter")
        page.wait_for_selector('#neuron[data-shown="0.1"] .example')
        scroll_through(page)
        assert "null" not in page.inner_text("#neuron")


def test_numbers_on_a_neurons_page(chromium, address):
    with opened(chromium, address + "#L4N40?rm=mixed") as page:
        page.wait_for_selector('#neuron[data-shown="4.40"]')
        (row,) = [line for line in page.inner_text("#neuron-numbers").splitlines() if line.startswith(EFFECT)]
        for model, cell in zip(NAMES, re.findall(r"(\S+) \(([\d,]+)\)", row), strict=True):
            values = column(model, EFFECT)
            assert float(cell[0].replace("−", "-")) == pytest.approx(values[4, 40], rel=6e-3)
            assert int(cell[1].replace(",", "")) == 1 + (values > values[4, 40]).sum()


@pytest.mark.parametrize("whole", [True, False], ids=["one-file", "folder"])
def test_a_million_neurons_open(chromium, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(page_module, "LARGEST_FILE", 10**9 if whole else 10**6)
    path = write_page(random_run(80, 17_920, shown=5), tmp_path / "page.html")
    assert (tmp_path / "page.data").exists() != whole
    with opened(chromium, path.as_uri()) as page:
        page.wait_for_selector("#plot-map[data-drawn]", timeout=60_000)
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('1,433,600 of')", timeout=60_000)
        page.fill("#search", "79.17919")
        page.press("#search", "Enter")
        page.wait_for_selector('#neuron[data-shown="79.17919"]')


def test_what_was_left_out_is_on_the_page(chromium, tmp_path):
    run = random_run(2, 20, models=("plain",), shown=3)
    reading = Reading(45, {"longer than 1,024 tokens (<b>max_length</b>)": 36}, {"read as equal": 1})
    run.section("discovery")["plain"]["reading"] = reading.to_json()
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri()) as page:
        said = page.locator("#notes li").all_inner_texts()
    assert said == [
        "discovery of plain: 36 of 45 pairs left out: 36 longer than 1,024 tokens (<b>max_length</b>). Of the 9 read: 1 read as equal."
    ]
