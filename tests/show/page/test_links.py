"""What a link names and the run does not have is said, with what there is."""

import pytest
from helpers.browser import browser, opened
from helpers.page_runs import BOTH, random_run

from tl_reward.analyses.exact_effects import neuron_effects
from tl_reward.neurons import NeuronSet
from tl_reward.results.record_edits import record_effects
from tl_reward.results.store import Results
from tl_reward.show.page import write_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(random_run(3, 40, models=("mixed", "harmless"), shown=2), tmp_path_factory.mktemp("page") / "page.html").as_uri()


SAID = {
    "#overview?rm=nobody": "The run has no reward model “nobody”; it has mixed, harmless. This is mixed.",
    "#overview?metric=fame": "The mixed model has no quantity “fame”; it has effect on harmless margin, effect on helpful margin,",
    "#L9N5?rm=harmless": "The harmless model has no neuron 9.5: its layers are 0 to 2, its neurons 0 to 39. This is the overview.",
    "#somewhere": "This page has no place “somewhere”",
    "#live": "The live view needs a model beside the page (tl-reward serve RUN).",
    "#overview?with=nobody": "The run has no reward model “nobody” to compare with; it has mixed, harmless.",
    "#overview?own=1-2": "The set of neurons in the link cannot be read. It is left out.",
    f"#overview?own=0.{'-'.join(['1'] * 3001)}": "The set of neurons in the link cannot be read: it has more than 6,000 characters.",
    "#overview?own=0.1_9.5": "The mixed model lacks 1 of the link's own neurons, such as 9.5: its layers are 0 to 2",
    "#overview?set=tension:7:top:x": "The set of neurons that the link shows is none of the mixed model's. The table shows all neurons.",
    "#overview?layer=77": "The mixed model has no layer 77: its layers are 0 to 2",
    "#overview?sort=-fame": "The table cannot be sorted by “fame”",
    "#overview?range=fame|1..2": "The table cannot be filtered by “fame”",
    "#overview?range=mean+of+mlp_gate|big": "“big” is no filter of mean of mlp_gate",
    "#overview?rm=<img src=x onerror='window.hacked=1'>": "The run has no reward model “<img src=x onerror='window.hacked=1'>”",
}


def test_what_a_link_names_and_the_run_lacks(chromium, address):
    with opened(chromium, address) as page:
        assert page.locator("#lacking").is_hidden()
        for link, says in SAID.items():
            page.goto(address + link)
            page.wait_for_selector("#lacking:not([hidden])")
            assert says in page.inner_text("#lacking"), link
            assert page.locator("#lacking p").count() == 1, link
            page.goto(address + "#L1N2?rm=mixed")
            page.wait_for_selector("#lacking", state="hidden")
        page.goto(address + "#L9N5?rm=nobody")
        page.wait_for_selector("#lacking:not([hidden])")
        assert page.locator("#lacking p").count() == 2
        page.click("#lacking button")
        assert page.locator("#lacking").is_hidden() and page.evaluate("window.hacked") is None


def test_a_whole_link_says_nothing(chromium, address):
    link = "#overview?rm=harmless&metric=mean+of+mlp_gate&layer=1&sort=-mean+of+mlp_gate&range=mean+of+mlp_gate|> -1&own=0.1_2.39&set=own"
    with opened(chromium, address + link) as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        assert page.locator("#lacking").is_hidden() and "set=own" in page.url and "layer=1" in page.url


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded-shape", "no-shape"])
def test_neurons_of_a_run_of_single_edits_alone(chromium, tiny, tmp_path, recorded):
    results = Results()
    if recorded:
        results.provenance["models"] = {"mixed": {"layers": tiny.cfg.n_layers, "d_mlp": tiny.cfg.d_mlp}}
    record_effects(results, "mixed", "some pairs", neuron_effects(tiny, BOTH, NeuronSet([(0, 3), (1, 7)])))
    with opened(chromium, write_page(results, tmp_path / "page.html").as_uri()) as page:
        assert page.inner_text("#edited").split() == ["0.3", "1.7"] or page.inner_text("#edited").split() == ["1.7", "0.3"]
        page.fill("#search", "1.7")
        page.press("#search", "Enter")
        page.wait_for_selector('#neuron[data-shown="1.7"] .plot[data-drawn]')
        margins = [each for row in results.section("effects").values() for each in row["effects"] if each["neurons"] == [[1, 7]]]
        drawn = page.evaluate("document.querySelector('#neuron .plot').data.flatMap((trace) => Array.from(trace.x))")
        (margin,) = margins
        assert sorted(drawn) == sorted([margin["margin"]["value"], *(each["value"] for each in margin["by_objective"].values())])
        page.fill("#search", "0.4")
        page.press("#search", "Enter")
        page.wait_for_selector('#neuron[data-shown="0.4"]')
        assert "The run says nothing of what neuron 0.4 does. It has neurons that were edited alone:" in page.inner_text("#neuron")
        page.fill("#search", f"0.{tiny.cfg.d_mlp - 1}")
        page.press("#search", "Enter")
        if recorded:
            page.wait_for_selector(f'#neuron[data-shown="0.{tiny.cfg.d_mlp - 1}"]')
        else:
            assert "neurons 0 to 7" in page.inner_text("#search-help")
