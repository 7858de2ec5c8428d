"""A set of neurons of the reader's own: made on the page, kept in its address, saved for the command line."""

import csv
import json

import numpy as np
import pytest
from helpers.browser import browser, opened
from helpers.page_runs import random_run

from tl_reward.neurons import NeuronSet
from tl_reward.show.page import write_page

pytestmark = pytest.mark.browser
LAYERS, WIDTH = 3, 1500


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    run = random_run(LAYERS, WIDTH, models=("mixed", "harmless"), shown=3)
    run.section("examples").update(random_run(2, 20, models=("small",), shown=3).section("examples"))
    run.tensors |= {key: tensor for key, tensor in random_run(2, 20, models=("small",), shown=3).tensors.items() if "examples/" in key}
    return write_page(run, tmp_path_factory.mktemp("page") / "page.html").as_uri()


def own_of(page) -> list[str]:
    return page.inner_text("#own-list").split()


def test_ticked_typed_named_and_kept_in_the_link(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.wait_for_selector("#table tbody tr")
        ticked = page.locator("#table tbody a").nth(2).inner_text()
        page.locator("#table tbody input").nth(2).check()
        page.fill("#own-add", "2.7, L1N345; 0.3")
        page.press("#own-add", "Enter")
        page.fill("#own-name", "my <b>set</b>")
        expected = sorted({ticked, "2.7", "1.345", "0.3"}, key=lambda name: tuple(map(int, name.split("."))))
        assert own_of(page) == expected and page.locator("#section-own b").count() == 0
        assert page.inner_text("#own-status") == "my <b>set</b>: 4 neurons of the mixed model."
        page.reload()
        page.wait_for_selector("#table tbody tr")
        assert own_of(page) == expected and page.locator("#table tbody input").nth(2).is_checked()
        page.locator("#table tbody input").nth(2).uncheck()
        assert own_of(page) == [name for name in expected if name != ticked]
        page.select_option("#model", "harmless")
        page.wait_for_function("() => document.getElementById('own-status').textContent.includes('3 neurons of the harmless')")
        page.click("#own-list a")
        page.wait_for_selector('#neuron[data-shown="0.3"]')
        page.click('#neuron [data-own="0.3"]')
        assert page.inner_text('#neuron [data-own="0.3"]') == "Put into your set"
        assert "own=1.345_2.7&named=my" in page.url


def test_links_and_the_back_button_keep_it(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.wait_for_selector("#table tbody tr")
        names = page.locator("#table tbody a").all_inner_texts()[:3]
        page.locator("#table tbody input").nth(0).check()
        page.locator("#table tbody a").nth(1).click()  # a link that was drawn before
        page.wait_for_selector(f'#neuron[data-shown="{names[1]}"]')
        page.click("#neuron [data-own]")
        page.keyboard.press("]")
        page.go_back()
        page.wait_for_selector(f'#neuron[data-shown="{names[1]}"]')
        page.go_back()
        page.wait_for_selector("#overview:not([hidden])")
        assert sorted(own_of(page)) == sorted(names[:2])
        assert [box.is_checked() for box in page.locator("#table tbody input").all()[:3]] == [True, True, False]
        page.click("#table tbody a >> nth=2")
        page.wait_for_selector(f'#neuron[data-shown="{names[2]}"]')
        page.click("#to-overview")
        assert sorted(own_of(page)) == sorted(names[:2])
        page.goto(address + "#overview?rm=mixed&own=1.5")  # a link from elsewhere
        page.wait_for_function("() => document.getElementById('own-list').textContent.trim() === '1.5'")


def test_the_table_and_the_map_show_it(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed&own=0.3-1400_2.7") as page:
        page.click("#own-show")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('3 of 4,500')")
        assert sorted(page.locator("#table tbody a").all_inner_texts()) == ["0.1400", "0.3", "2.7"]
        assert "set=own" in page.url and "my set (your own), 3" in page.inner_text("#table-set")
        page.locator("#plot-map").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-map[data-drawn]")
        marks = page.evaluate("(() => { const t = document.getElementById('plot-map').data[1]; return [t.x, t.y]; })()")
        assert marks == [[3, 1400, 7], [0, 0, 2]]
        page.check("#map-rank")
        page.wait_for_function("() => document.getElementById('plot-map').layout.xaxis.title.text.startsWith('rank')")
        ranked = page.evaluate("document.getElementById('plot-map').data[1].x")
        assert ranked != [3, 1400, 7] and all(0 <= at < WIDTH for at in ranked)
        page.click("#own-empty")
        page.wait_for_function("() => document.getElementById('table-status').textContent.startsWith('4,500 of')")
        assert "own=" not in page.url and "set=" not in page.url
        assert page.inner_text("#own-empty") == "Put the 3 neurons back"
        page.click("#own-empty")
        assert own_of(page) == ["0.3", "0.1400", "2.7"]


def test_saved_for_the_command_line_and_as_csv(chromium, address, tmp_path):
    with opened(chromium, address + "#overview?rm=mixed&own=0.3_2.7&named=a+set%2F..%2Fx") as page:
        for button, suffix in (("#own-json", "json"), ("#own-csv", "csv")):
            with page.expect_download() as download:
                page.click(button)
            assert download.value.suggested_filename == f"a-set-..-x.{suffix}"
            download.value.save_as(tmp_path / f"set.{suffix}")
        assert "tl-reward effects mixed --neurons a-set-..-x.json --out runs/own-set" in page.inner_text("#section-own")
    told = json.loads((tmp_path / "set.json").read_text())
    assert (told["name"], told["model"]) == ("a set/../x", "mixed")
    found = NeuronSet.load(tmp_path / "set.json")
    assert found.coords == ((0, 3), (2, 7)) and found.shape == (LAYERS, WIDTH)
    with open(tmp_path / "set.csv", encoding="utf-8") as file:
        head, *rows = csv.reader(file)
    assert head[:2] == ["layer", "neuron"] and [row[:2] for row in rows] == [["0", "3"], ["2", "7"]]
    effect = random_run(LAYERS, WIDTH, models=("mixed", "harmless"), shown=3).tensor("tension", "mixed · random numbers", "harmless/effect")
    np.testing.assert_allclose([float(row[2]) for row in rows], [effect[0, 3], effect[2, 7]], rtol=1e-3)


def test_commands_take_the_model_as_the_command_line_does(chromium, tmp_path):
    run = random_run(LAYERS, WIDTH, models=("armo · help fulness",))
    run.provenance["models"] = {"armo · help fulness": {"path": "/home/me/a model", "output": "help fulness"}}
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri() + "#overview?own=0.3") as page:
        model = "armo=MODEL --output 'help fulness'"
        assert f"tl-reward effects {model} --neurons my-set.json --out runs/own-set" in page.inner_text("#section-own")
        page.click("#own-list a")
        page.wait_for_selector('#neuron[data-shown="0.3"]')
        assert f"tl-reward examples {model} --neurons 0.3 --out" in page.inner_text("#neuron")


def test_what_cannot_be_added_is_said(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed&own=0.3") as page:
        page.fill("#own-add", "1.4, 7.1")
        page.click("#own-put")
        assert "No such neuron: 7.1. Layers are 0 to 2, neurons 0 to 1499" in page.inner_text("#own-status") and own_of(page) == ["0.3"]
        assert page.get_attribute("#own-add", "aria-invalid") == "true"
        page.fill("#own-add", " ".join(f"1.{neuron}" for neuron in range(WIDTH)))
        page.click("#own-put")
        assert page.inner_text("#own-status").startswith("Not added: a link would be too long. Neurons may take 6,000 characters of it")
        assert own_of(page) == ["0.3"] and "own=0.3" in page.url
        page.fill("#own-add", " ".join(f"1.{neuron}" for neuron in range(1000)))
        page.click("#own-put")
        assert page.inner_text("#own-status") == "my set: 1,001 neurons of the mixed model."
        assert page.inner_text("#own-list").endswith("and 941 more, in the table")


def test_a_model_of_another_shape_has_some_of_it(chromium, address):
    with opened(chromium, address + "#overview?rm=small&own=0.3_2.7") as page:
        assert page.inner_text("#own-status") == "my set: 1 neuron of the small model, and 1 that it does not have."
        assert "The small model lacks 1 of the link's own neurons, such as 2.7: its layers are 0 to 1" in page.inner_text("#lacking")
