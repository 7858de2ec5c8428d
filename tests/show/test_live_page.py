"""The live page in a real browser, with a tiny model behind it: what it shows is what the package computes."""

import socket
import threading
from contextlib import contextmanager

import pytest
import uvicorn
from helpers.browser import browser, opened
from helpers.page_runs import tiny_run

from tl_reward.data.pairs import pairs_of_row
from tl_reward.interventions.ablations import MeanAblation, ScaleAblation, ZeroAblation
from tl_reward.model.tiny import tiny_reward_model
from tl_reward.neurons import NeuronSet
from tl_reward.running.scoring import score
from tl_reward.show.live.server import make_app
from tl_reward.show.page import build_page

pytestmark = pytest.mark.browser
TOKEN = "a-token"
PROMPT, CHOSEN, REJECTED = "What is <b>bold</b>?", "A weight of type.", "No idea."


@pytest.fixture(scope="module")
def model():
    return tiny_reward_model(seed=2)


@pytest.fixture(scope="module")
def mean():
    return tiny_run().tensor("discovery", "mixed", "mlp_post/mean").mean(0)


@pytest.fixture(scope="module")
def address(model, mean):
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    page = build_page(tiny_run(), live=True)
    app = make_app({"mixed": model}, page, sources={"mixed": "tiny"}, means={"mixed": mean}, token=TOKEN, port=port)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/?token={TOKEN}#live?rm=mixed"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


def rewards(page, row):
    page.wait_for_selector("#live-rewards", timeout=20_000)
    cells = page.locator(f'#live-rewards td[data-of^="{row} "]').all_inner_texts()
    return [float(cell.replace("−", "-")) for cell in cells]


def fill(page):
    page.wait_for_selector("#live-model option", state="attached")
    for name, text in (("prompt", PROMPT), ("chosen", CHOSEN), ("rejected", REJECTED)):
        page.fill(f"#live-{name}", text)


def expected(model, *edits):
    (pair,) = pairs_of_row({"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED}, "live")
    found = score(model, [pair], interventions=edits)
    return pytest.approx([found.chosen[0], found.rejected[0], found.margin[0]], abs=2e-5)


def test_rewards_and_edits_are_those_of_the_package(chromium, address, model, mean):
    with opened(chromium, address, offline=False) as page:
        fill(page)
        page.fill("#live-neuron", "1.7")
        page.click("#live-run")
        assert rewards(page, "clean") == expected(model)
        assert page.locator("#live-results .tokens").count() == 2
        assert TOKEN not in page.url + page.title() + page.content().replace("\n", "")
        assert page.locator("#live-results .tokens").first.inner_text().startswith("⏎⏎Human: " + PROMPT)
        neurons = NeuronSet([(0, 3), (1, 7)])
        for kind, edit in (("zero", ZeroAblation(neurons)), ("mean", MeanAblation(neurons, mean)), ("scale", ScaleAblation(neurons, -2.5))):
            page.fill("#live-neurons", "0.3, 1.7")
            page.select_option("#live-kind", kind)
            page.fill("#live-factor", "-2.5")
            page.click("#live-add")
            page.wait_for_selector('#live-rewards td[data-of="edited margin"]')
            assert rewards(page, "edited") == expected(model, edit)
            page.click("#live-edits input[type=checkbox]")  # off, and the edited row goes
            page.wait_for_selector('#live-rewards td[data-of="edited margin"]', state="detached")
            page.click("#live-edits button")
            page.wait_for_function("() => document.getElementById('live-status').textContent.startsWith('Margin')")
        link = page.locator("#live-results ol a").first
        name = link.inner_text()
        link.click()
        page.wait_for_selector(f'#neuron[data-shown="{name}"]')
        page.go_back()
        assert page.input_value("#live-prompt") == PROMPT


def test_the_token_is_in_the_first_address_alone_and_the_page_can_be_loaded_again(chromium, address):
    told = []
    with opened(chromium, address, offline=False) as page:
        page.on("request", lambda request: told.append((request.url, request.headers.get("referer"))))
        assert page.evaluate("document.referrer") == "" and "token" not in page.url
        page.reload()
        page.wait_for_selector("html[data-ready]")
        fill(page)
        page.click("#live-run")
        rewards(page, "clean")
        assert TOKEN not in page.url + page.title() + page.content()
    assert {url.split("/")[2] for url, _ in told if url.startswith("http")} == {address.split("/")[2]}
    assert not [each for each in told if TOKEN in str(each) or "favicon" in each[0]] and {referer or None for _, referer in told} == {None}
    with opened_without_waiting(chromium, address.split("?")[0]) as page:
        assert page.inner_text("body") == "Open the address that tl-reward serve printed."


@contextmanager
def opened_without_waiting(chromium, address):
    page = chromium.new_context().new_page()
    page.goto(address)
    yield page
    page.context.close()


def test_two_tabs_each_get_their_own(chromium, address, model):
    with opened(chromium, address, offline=False) as one, opened(chromium, address, offline=False) as other:
        for page in (one, other):
            fill(page)
        other.fill("#live-neurons", "1.7")
        other.click("#live-add")
        one.click("#live-run")
        assert rewards(one, "clean") == expected(model) == rewards(other, "clean")
        assert rewards(other, "edited") == expected(model, ZeroAblation(NeuronSet([(1, 7)])))
        assert one.locator('#live-rewards td[data-of="edited margin"]').count() == 0


def test_what_is_wrong_is_said(chromium, address):
    with opened(chromium, address, offline=False, expected="status of 422") as page:
        fill(page)
        page.fill("#live-neurons", "nonsense")
        page.click("#live-add")
        assert "layer.neuron" in page.inner_text("#live-status")
        page.fill("#live-rejected", CHOSEN)
        page.click("#live-run")
        page.wait_for_function("() => document.getElementById('live-status').textContent.startsWith('Not computed')")
        assert "live: chosen and rejected" in page.inner_text("#live-status")
