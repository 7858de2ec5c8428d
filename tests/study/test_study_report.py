"""The report's files: the same for the same matrix, self-contained, and text nowhere markup."""

import re
from pathlib import Path

import pytest
from helpers.browser import browser, opened
from helpers.page_runs import TEXTS, document
from helpers.study_matrices import scored, whole

from tl_reward.study.findings.claims import TOPICS, WORDS, claims, in_order, said
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.report.all_tables import tables_of
from tl_reward.study.report.write import heading, write_report
from tl_reward.study.table import markdown

ABOUT = {"command": "tl-reward study config.toml", "time": "3 min", "config": "[a]\nb = 1\n</pre><script>window.hacked = 4</script>"}


def written(matrix: Matrix, folder: Path, about=ABOUT) -> dict[str, bytes]:
    write_report(matrix, tables_of(matrix), claims(matrix), folder, about)
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return written(whole(), tmp_path_factory.mktemp("report"))


def test_every_table_is_there_in_three_forms(files):
    names = {table.name for table in tables_of(whole())} | {"claims"}
    assert set(files) == {"report.md", "report.html"} | {f"tables/{name}.{end}" for name in names for end in ("csv", "md", "tex")}
    text = files["report.md"].decode()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")][:2] == ["Claims", "Sub-task accuracy"]
    assert "    b = 1\n" in text and "command: tl-reward study config.toml" in text
    assert heading("rm-bench-styles") == "RM-Bench styles"


def test_the_same_matrix_gives_the_same_bytes(files, tmp_path):
    assert written(whole(), tmp_path) == files
    assert written(whole(), tmp_path) == files  # an earlier report is replaced


def test_the_page_holds_every_figure_and_asks_for_nothing(files):
    page = files["report.html"].decode()
    figures = document(page, "figures")
    assert set(figures) == set(re.findall(r'class="plot" id="([a-z-]+)"', page)) and len(figures) == 13
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=(?!\"data:)", page)
    assert "default-src 'none'" in page and "connect-src 'none'" in page and "showSendToCloud: false" in page


def test_it_opens_with_ten_sentences_whose_numbers_are_the_tables(files):
    text, page = files["report.md"].decode(), files["report.html"].decode()
    verdicts = in_order(claims(whole()))
    lines = text.splitlines()[2:12]
    assert [line.split(". ")[0] for line in lines] == [str(i) for i in range(1, 11)] and text.splitlines()[12] == ""
    assert lines[0] == f"1. {markdown(said(verdicts))}"
    counted = []
    for topic, line in zip(TOPICS, lines[1:], strict=True):
        words = [each.judged.word for each in verdicts if each.topic == topic]
        assert f"of {len(words)} claims" in line and line.lower().split(". ", 1)[1].startswith(topic.lower())
        for word, says in zip(WORDS, ("agree", "differ", "remain"), strict=True):
            rows = [i for i, each in enumerate(verdicts, 1) if (each.topic, each.judged.word) == (topic, word)]
            assert re.search(rf"{len(rows) or 'none'} {says}s?\b", line)
            if rows:
                assert f" {', '.join(map(str, rows))}](#claims)" in line
                counted += rows
    assert sorted(counted) == [*range(1, len(verdicts) + 1)]
    # On the page each number leads to its row, which is of that verdict.
    assert [int(row) for row in re.findall(r'href="#claim-([0-9]+)"', page)] == counted
    ids = dict(re.findall(r'<tr id="claim-([0-9]+)"><td class="number"[^>]*>[0-9]+</td><td>([^<]*)</td>', page))
    assert ids == {str(i): each.judged.word for i, each in enumerate(verdicts, 1)}
    assert "for want of models or data" in page and "for want of rows, at up to ±" in page


def hostile() -> Matrix:
    runs = scored({"mixed": {ModelEdit(): {text[:300]: [1.0, -1.0] for text in TEXTS}}}, base=TEXTS[0])
    return Matrix({**runs, **whole().scores}, whole().found)


def test_text_is_nowhere_markup(files, tmp_path):
    about = ABOUT | {TEXTS[0]: "\n".join(TEXTS[:6]), "lone": "\ud800"}
    page = written(hostile(), tmp_path, about)["report.html"].decode()
    plain = files["report.html"].decode()
    assert re.findall(r"</?script", page) == re.findall(r"</?script", plain) and "<!--" not in page and "<img" not in page
    text = (tmp_path / "report.md").read_text()
    # In Markdown only a block of text may hold what looks like a tag, and its lines are indented.
    assert [line for line in text.splitlines() if "<" in line and not line.startswith("    ")] == []


def test_an_empty_matrix_gives_a_report_that_says_so(tmp_path):
    text = written(Matrix(), tmp_path)["report.md"].decode()
    assert text.count("Not computed: this run has no ") == len(tables_of(Matrix())) and "0 reward models" in text


@pytest.mark.browser
def test_the_page_draws_and_runs_nothing_of_the_matrix(tmp_path):
    written(hostile(), tmp_path)
    with browser() as chromium, opened(chromium, (tmp_path / "report.html").as_uri()) as page:
        assert page.locator(".plot[data-drawn=yes]").count() == page.locator(".plot").count() == 13
        assert page.evaluate("window.hacked") is None
        assert page.locator("section img, section b, dd script").count() == 0
        assert page.locator("td", has_text="</script><script>window.hacked = 2</script>").count() > 0


@pytest.mark.browser
def test_tables_are_sorted_from_the_keyboard(tmp_path):
    written(whole(), tmp_path)
    with browser() as chromium, opened(chromium, (tmp_path / "report.html").as_uri()) as page:
        section = page.locator("section", has=page.get_by_role("heading", name="Sub-task accuracy"))
        head = section.get_by_role("columnheader", name="accuracy")
        column = "section => [...section.querySelectorAll('tbody tr')].map(row => Number(row.cells[4].textContent.split(' ')[0]))"
        before = section.evaluate(column)
        assert len(set(before)) > 2
        head.get_by_role("button").focus()
        for sort, expected in (("ascending", sorted(before)), ("descending", sorted(before, reverse=True)), (None, before)):
            page.keyboard.press("Enter")
            assert head.get_attribute("aria-sort") == sort and section.evaluate(column) == expected
        # A dash is no number, and stays last both ways.
        moved = page.locator("section", has=page.get_by_role("heading", name="Transferability", exact=True))
        dashes = "section => [...section.querySelectorAll('tbody tr')].map(row => row.cells[3].textContent === '–')"
        button = moved.get_by_role("columnheader", name="transferability").get_by_role("button")
        for _ in range(2):
            button.press("Space")
            found = moved.evaluate(dashes)
            assert any(found) and found == sorted(found)
        page.locator(".said a").first.click()
        assert page.evaluate("document.querySelector('tr:target') !== null")
