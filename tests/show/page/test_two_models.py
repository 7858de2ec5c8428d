"""Two models side by side: the map of their difference, and one against the other."""

import numpy as np
import pytest
import torch
from helpers.browser import browser, click_at, opened
from helpers.page_runs import random_run, tiny_run
from helpers.partial_runs import put

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
    effect["mixed"][1, 6], effect["harmless"][1, 6] = 0.01127, 0.01130  # told apart, by less than ten times the rounding
    return run


def with_rewards(of_tension: str = "random numbers"):
    """The same, and rewards: of the mixed model on three data sets, of the harmless one on two of them, with another spread."""
    run = made()
    about = next(iter(tiny_run().section("scores").values()))
    rewards = {}
    for model, datasets in (("mixed", ("one", "two", "three")), ("harmless", ("three", "one"))):
        for at, dataset in enumerate(datasets):
            sides = {side: torch.arange(6.0) * (1 + len(dataset)) * len(model) + at for side in ("chosen", "rejected")}
            sides["chosen"] = sides["chosen"] ** 2
            put(run, "scores", f"{model} · {dataset}", about | {"model": model, "dataset": dataset}, sides)
            rewards[model, dataset] = np.concatenate([side.numpy() for side in sides.values()])
    for entry in run.section("tension").values():
        entry["dataset"] = of_tension
    return run, rewards


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


def test_what_is_told_apart_is_no_difference_of_0(chromium, address):
    with opened(chromium, address + LINK) as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        texts = page.evaluate("Array.from(document.getElementById('plot-map').data[0].customdata.flatMap((row) => Array.from(row)))")
        assert len(texts) == 120 and not [text for text in texts if "difference 0 " in text]
        assert ": difference −3.00e-5 (reward units)" in texts[46]
        assert "In raw reward units: models' rewards have different spreads" in page.inner_text("#section-map")


@pytest.mark.parametrize(("of_tension", "over"), [("random numbers", ("one", "three")), ("three", ("three",))])
def test_effects_are_in_standard_deviations_of_each_models_rewards(chromium, tmp_path, of_tension, over):
    run, rewards = with_rewards(of_tension)
    spread = {model: np.concatenate([rewards[model, each] for each in over]).std(ddof=1) for model in ("mixed", "harmless")}
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri() + LINK) as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        difference = np.array(page.evaluate("document.getElementById('plot-map').data[0].z.map((row) => Array.from(row))"))
        (mixed, off), (harmless, other_off) = shown("mixed"), shown("harmless")
        expected, error = mixed / spread["mixed"] - harmless / spread["harmless"], off / spread["mixed"] + other_off / spread["harmless"]
        assert (np.abs(difference - expected) <= 2.01 * error).all() and (difference != 0).sum() > 100
        told, own = page.locator("#section-map").text_content(), f"{float(format(spread['mixed'], '.3g')):g}"
        assert f"In standard deviations of each model's rewards on {', '.join(over)} (mixed {own}, " in told
        text = page.evaluate("document.getElementById('plot-map').data[0].customdata[0][0]")
        assert text.endswith("(standard deviations of each model's rewards)")
        page.locator("#plot-compare").scroll_into_view_if_needed()
        page.wait_for_selector("#plot-compare[data-drawn]")
        title = page.evaluate("document.getElementById('plot-compare').layout.xaxis.title.text")
        assert title == "mixed (standard deviations of each model's rewards)"
        assert "since models' rewards have different spreads" in page.inner_text("#section-compare")


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
