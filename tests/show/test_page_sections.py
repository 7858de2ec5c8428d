"""The page's sections and its bar in a real browser: what folds, what leads where, what fits, and what goes on paper."""

import pytest
from helpers.browser import browser, opened, scroll_through
from helpers.page_runs import random_run, tiny_run

from tl_reward.data.reading import Reading
from tl_reward.show.page import write_page

pytestmark = pytest.mark.browser
NEURON = "#L0N3?rm=mixed"


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tiny_run(), tmp_path_factory.mktemp("page") / "page.html").as_uri()


def settled(page):
    """Once the page scrolls no further."""
    page.wait_for_function(
        """() => new Promise((done) => {
            const was = scrollY;
            setTimeout(() => done(scrollY === was), 100);
        })"""
    )


def below_bar(page, selector):
    """How far a thing lies below the bar that stays at the top, in pixels."""
    return page.evaluate(
        """(selector) => {
            const place = (each) => document.querySelector(each).getBoundingClientRect();
            return place(selector).top - place('#bar').bottom;
        }""",
        selector,
    )


def test_a_section_folds_and_stays_so_while_one_is_on_the_page(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        head, plot = page.locator("#section-map .fold"), page.locator("#plot-map")
        assert head.get_attribute("aria-expanded") == "true" and plot.is_visible()
        head.focus()
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-expanded") == "false" and plot.is_hidden()
        page.evaluate(f"location.hash = '{NEURON}'")
        page.wait_for_selector("#neuron[data-shown='0.3']")
        page.click("#section-in-numbers .fold")
        page.keyboard.press("]")
        page.wait_for_selector("#neuron[data-shown='0.4']")
        assert page.locator("#neuron-numbers").is_hidden()
        page.click("#to-overview")
        assert plot.is_hidden()
        page.click("#fold-all")
        assert page.locator("#overview .plot:visible").count() == 0
        # The button does as it says, whatever was folded by hand in between.
        plot.evaluate("each => each.closest('section').querySelector('.fold').click()")
        assert plot.is_visible() and page.locator("#fold-all").text_content() == "Open all"
        page.click("#fold-all")
        assert page.locator("#overview > section:visible .fold[aria-expanded='false']").count() == 0


def test_what_the_pairs_were_stands_last_and_folded(chromium, tmp_path):
    run = random_run(2, 20, models=("plain",), shown=3)
    run.section("discovery")["plain"]["reading"] = Reading(45, {"too long": 36}, {}).to_json()
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri()) as page:
        last = page.locator("#overview > section").last
        assert last.get_attribute("id") == "notes" and last.locator("li").first.is_hidden()
        last.locator(".fold").click()
        assert last.locator("li").first.is_visible()


@pytest.mark.parametrize("width", [360, 1400])
def test_a_link_opens_a_folded_section_and_the_bar_covers_no_target(chromium, address, width):
    with opened(chromium, address, width=width) as page:
        page.click("#section-table .fold")
        assert page.locator("#table").is_hidden()
        if width == 360:
            assert page.locator("#sections").is_hidden()
            page.click("#to-sections")
            assert below_bar(page, "#sections") >= 0
        page.click("#sections a[href='#section-table']")
        assert page.locator("#table").is_visible()
        settled(page)
        assert 0 <= below_bar(page, "#section-table h2") < 60
        assert page.evaluate("document.activeElement === document.querySelector('#section-table .fold')")
        assert page.locator("#sections").is_visible() == (width == 1400)
        page.evaluate("scrollTo(0, 0)")
        page.evaluate("location.hash = '#section-profile'")  # as a link from elsewhere says it
        settled(page)
        assert 0 <= below_bar(page, "#section-profile h2") < 60
        bar = page.locator("#bar").bounding_box()
        assert bar["y"] + bar["height"] < 100  # of 900: what stays on a small screen


def test_the_menu_names_just_the_sections_that_are_shown(chromium, address):
    with opened(chromium, address + "#overview?rm=helpful") as page:
        names = "[...document.querySelectorAll('#sections a')].map((each) => each.title)"
        shown = "[...document.querySelectorAll('main > div:not([hidden]) > section:not([hidden]) > h2')].map((each) => each.textContent)"
        assert page.evaluate(names) == page.evaluate(shown) and "Does a neuron serve both objectives?" not in page.evaluate(names)
        page.select_option("#model", "mixed")
        assert page.evaluate(names) == page.evaluate(shown) and "Does a neuron serve both objectives?" in page.evaluate(names)
        page.evaluate(f"location.hash = '{NEURON}'")
        page.wait_for_selector("#neuron[data-shown='0.3']")
        page.wait_for_function("() => document.querySelector('#sections a').title === 'In numbers'")
        assert page.evaluate(names) == page.evaluate(shown)


@pytest.mark.parametrize("place", ["#overview?rm=mixed", NEURON], ids=["overview", "neuron"])
@pytest.mark.parametrize("width", [360, 1400, 2560])
def test_the_page_is_as_wide_as_the_screen_and_captions_are_short(chromium, address, width, place):
    with opened(chromium, address + place, width=width) as page:
        scroll_through(page)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator("#search").evaluate("each => each.clientWidth") > 100
        lines = page.evaluate(
            """() => [...document.querySelectorAll('.caption')].filter((each) => each.checkVisibility())
                .map((each) => Math.round(each.clientHeight / parseFloat(getComputedStyle(each).lineHeight)))"""
        )
        assert lines and max(lines) <= (7 if width == 360 else 2)


def test_what_needs_no_reading_is_behind_how_to_read_this(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        how = page.locator("#section-map .how")
        assert "99.9th percentile" not in page.inner_text("#section-map .caption") and how.locator("p").is_hidden()
        how.locator("summary").click()
        assert "The scale of colours ends at the 99.9th percentile" in how.locator("p").inner_text()
        assert page.locator("#section-1 .how").is_hidden() or page.locator("#section-1 .how p").count() > 0  # none is empty


def test_on_paper_all_is_open_drawn_and_light(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed", dark=True) as page:
        page.wait_for_selector("#plot-map[data-drawn]")
        page.click("#section-map .fold")
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.wait_for_function(
            "() => [...document.querySelectorAll('#overview .plot')].every((each) => each.dataset.drawn || !each.checkVisibility())"
        )
        page.emulate_media(media="print")
        assert page.locator("#plot-map").is_visible() and page.locator("#section-map .how p").is_visible()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        assert max(page.evaluate("[...document.querySelectorAll('.plot')].map((each) => each.clientWidth)")) <= 704
        assert page.locator("#theme").is_hidden() and page.locator("#sections").is_hidden()
        page.emulate_media(media="screen")
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate("document.documentElement.dataset.theme") == "dark" and page.locator("#plot-map").is_hidden()


def test_texts_of_a_neuron_are_light_on_paper_too(chromium, address):
    darkest = """() => Math.min(...[...document.querySelectorAll('.tokens span[data-share="0"]')]
        .map((each) => getComputedStyle(each).backgroundColor.match(/\\d+/g).reduce((sum, part) => sum + Number(part), 0)))"""
    with opened(chromium, address + NEURON, dark=True) as page:
        page.wait_for_selector("#section-examples .tokens span")
        assert page.evaluate(darkest) < 100
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.evaluate(darkest) == 3 * 255
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.evaluate(darkest) < 100


def test_who_steps_from_neuron_to_neuron_by_keyboard_stays_on_the_button(chromium, address):
    with opened(chromium, address + NEURON) as page:
        page.locator("#neuron .step button", has_text="next ]").focus()
        for name in ("0.4", "0.5"):
            page.keyboard.press("Enter")
            page.wait_for_selector(f"#neuron[data-shown='{name}']")
            assert page.evaluate("document.activeElement.textContent") == "next ]"


def test_the_table_steps_from_the_page_that_is_drawn(chromium, tmp_path):
    run = random_run(3, 120, models=("mixed",))
    with opened(chromium, write_page(run, tmp_path / "page.html").as_uri() + "#overview?rm=mixed&page=999") as page:
        page.wait_for_function("() => document.querySelectorAll('#table tbody tr').length > 0")
        last = page.evaluate("Number(document.getElementById('table').dataset.page)")
        assert 0 < last < 999
        page.click("#table-back")
        page.wait_for_function(f"() => document.getElementById('table').dataset.page === '{last - 1}'")


def test_what_scrolls_by_itself_is_reached_from_the_keyboard(chromium, address):
    with opened(chromium, address + NEURON, width=360) as page:
        page.wait_for_selector("#neuron-numbers")
        boxes = page.evaluate(
            """() => [...document.querySelectorAll('#neuron .wide, #neuron .tokens')]
                .map((each) => [each.scrollWidth > each.clientWidth + 1 || each.scrollHeight > each.clientHeight + 1, !each.tabIndex])"""
        )
        assert any(scrolls for scrolls, _ in boxes) and all(scrolls == reached for scrolls, reached in boxes)
