"""The search in the examples' texts: which neurons are found, what is said of it, and that the texts stay texts."""

import pytest
from helpers.browser import browser, opened
from helpers.page_runs import TEXTS, random_run

from tl_reward.show.page import write_page

pytestmark = pytest.mark.browser
RUN = random_run(2, 30, shown=4)
NAME = "examples/mixed · random numbers"


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    return write_page(RUN, tmp_path_factory.mktemp("page") / "page.html").as_uri()


def found_by_hand(words):
    """For each neuron, in how many of its top texts the words are, and in how many of its examples the strongest token lies in them."""
    (entry,) = RUN.section("examples").values()
    texts = ["".join(each["tokens"]) for each in entry["transcripts"]]
    top, width = RUN.tensors[f"{NAME}/top/transcript"], 30
    in_top = {(i // width, i % width): sum(words in texts[which] for which in top.flatten(1)[:, i].tolist()) for i in range(2 * width)}
    activation, peaks = RUN.tensors[f"{NAME}/shown/activation"].float().reshape(4, 10, 5), {}
    for n, neuron in enumerate(entry["neurons"]):
        for j, which in enumerate(RUN.tensors[f"{NAME}/shown/transcript"][n].tolist()):
            tokens = entry["transcripts"][which]["tokens"]
            peak = 2 + int(activation[n, j, 2:].abs().argmax())
            start = len("".join(tokens[:peak]))
            at = texts[which].find(words)
            while at >= 0:
                if at < start + len(tokens[peak]) and start < at + len(words):
                    peaks[tuple(neuron)] = peaks.get(tuple(neuron), 0) + 1
                    break
                at = texts[which].find(words, at + 1)
    return texts, in_top, peaks


def search(page, words):
    page.fill("#texts-box", words)
    page.press("#texts-box", "Enter")
    page.wait_for_function("() => /is in/.test(document.getElementById('texts-status').textContent)")
    return page.inner_text("#texts-status"), page.locator("#texts-found li").all_inner_texts()


def test_neurons_by_words(chromium, address):
    texts, in_top, peaks = found_by_hand("bold")
    with opened(chromium, address + "#overview?rm=mixed") as page:
        said, rows = search(page, "BOLD")
        having = sum(count > 0 for count in in_top.values())
        assert said.startswith(
            f"“BOLD” is in 1 of {len(texts)} texts (random numbers, mlp_post, response tokens). Of 60 neurons searched, {having} have"
        )
        assert f"of the 4 whose peaks are known token by token, {len(peaks)} peak in the words." in said
        every = {place for place, count in in_top.items() if count} | set(peaks)
        order = sorted(every, key=lambda place: (-peaks.get(place, 0), -in_top[place], place))
        assert [row.split()[0] for row in rows] == [f"{layer}.{neuron}" for layer, neuron in order[:25]]
        for row, place in zip(rows, order, strict=False):
            assert f"has it in {in_top[place]} of its top 5 texts" in row
            assert (f"peaks in it in {peaks[place]} of its examples" in row) if place in peaks else ("peaks in it" not in row)
        assert page.locator("#texts-found mark").first.inner_text() == "bold"
        page.click("#texts-found a")
        page.wait_for_selector(f'#neuron[data-shown="{order[0][0]}.{order[0][1]}"]')


def test_hostile_texts_are_found_and_stay_texts(chromium, address):
    with opened(chromium, address + "#overview?rm=mixed") as page:
        for words in (*TEXTS[:5], TEXTS[7], "(", "a+b", "[", "\\d"):
            said, rows = search(page, words)
            assert (" is in 0 of " in said) == (not rows) and bool(rows) == (words in "".join(TEXTS))
        assert page.locator("#section-texts :is(img, script, b, br)").count() == 0 and page.evaluate("window.hacked") is None
        page.fill("#texts-box", "  ")
        page.press("#texts-box", "Enter")
        page.wait_for_function("() => document.getElementById('texts-status').textContent === ''")


def test_the_examples_of_one_neuron(chromium, address):
    with opened(chromium, address + "#L0N1?rm=mixed") as page:
        page.wait_for_selector("#example-filter")
        texts = page.locator("#section-examples .tokens").all_text_contents()
        page.fill("#example-filter", "BOLD")
        left = [each for each in page.locator("#section-examples .example").all() if each.is_visible()]
        assert len(left) == sum("bold" in text for text in texts) > 0
        assert page.inner_text("#section-examples [role=status]") == f"{len(left)} of {len(texts)} examples have it"
        page.fill("#example-filter", "")
        assert all(each.is_visible() for each in page.locator("#section-examples .example").all())
