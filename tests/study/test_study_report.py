"""The report's files: the same for the same matrix, self-contained, and text nowhere markup."""

import re
from pathlib import Path

import pytest
from helpers.browser import browser, opened
from helpers.page_runs import TEXTS, document
from helpers.study_matrices import scored, whole

from tl_reward.study.findings.claims import claims
from tl_reward.study.matrix import Matrix, ModelEdit
from tl_reward.study.report.all_tables import tables_of
from tl_reward.study.report.write import heading, write_report

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
