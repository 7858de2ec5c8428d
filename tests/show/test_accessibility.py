"""axe-core's rules on the pages that readers see, in both themes, on a small screen and a usual one."""

import os
from typing import Any

import pytest
from helpers.browser import browser, opened
from helpers.page_runs import tiny_run

from tl_reward.show.page import write_page
from tl_reward.show.page.document import build_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(tiny_run(), tmp_path_factory.mktemp("page") / "page.html").as_uri()


def violations(page: Any) -> list[str]:
    """What axe-core finds of impact serious or critical. Its script is evaluated: the page's policy lets none be loaded."""
    try:
        from axe_playwright_python.sync_playwright import Axe
    except ImportError:
        if os.environ.get("CI"):
            raise
        pytest.skip("axe-playwright-python is not installed")
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [
        f"{each['id']}: {each['help']}: {node['target']}"
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_neither_page_has_a_serious_violation(chromium, address, dark):
    for place in ("#overview?rm=mixed", "#L0N3?rm=mixed"):
        with opened(chromium, address + place, width=1400, dark=dark) as page:
            page.wait_for_selector(".plot[data-drawn]")
            page.evaluate("document.querySelectorAll('summary, .fold[aria-expanded=false]').forEach((each) => each.click())")
            assert violations(page) == [], place
            page.set_viewport_size({"width": 360, "height": 900})
            page.click("#to-sections")
            assert violations(page) == [], (place, 360)


def test_the_live_page_has_none_either(chromium, tmp_path):
    path = tmp_path / "live.html"
    path.write_text(build_page(tiny_run(), live=True), encoding="utf-8", errors="replace")
    with opened(chromium, path.as_uri() + "#live", expected="") as page:  # no server answers it
        assert page.locator("#live-prompt").is_visible()
        assert violations(page) == []


def test_a_field_without_a_name_is_found(chromium, address):
    with opened(chromium, address) as page:
        page.evaluate("document.querySelector('label[for=search]').remove()")
        page.locator("#search").evaluate("each => { each.removeAttribute('title'); each.removeAttribute('placeholder'); }")
        assert any(each.startswith("label") for each in violations(page))
