"""Every public name has its entry in the reference, with an example; the examples give what they say; links lead somewhere."""

import doctest
import re
from pathlib import Path

import pytest
import yaml

import tl_reward
from tl_reward import plots

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REFERENCE = {path.name: path.read_text(encoding="utf-8") for path in sorted((DOCS / "reference").glob("*.md"))}
BLOCK = re.compile(r"^```pycon\n(.*?)^```", re.MULTILINE | re.DOTALL)
PUBLIC = [*tl_reward.__all__, *(f"plots.{name}" for name in plots.__all__)]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def entries(page: str) -> dict[str, str]:
    """What stands below each name's entry, up to the next one."""
    found = re.split(r"^::: tl_reward\.((?:plots\.)?\w+)$", page, flags=re.MULTILINE)
    return dict(zip(found[1::2], found[2::2], strict=True))


def shown(text: str, name: str) -> list[doctest.Example]:
    """The examples of a text that name it and have a result."""
    examples = [each for block in BLOCK.findall(text) for each in doctest.DocTestParser().get_examples(block)]
    named = any(re.search(rf"\b{name}\b", each.source) for each in examples)
    return [each for each in examples if named and (each.want or each.exc_msg)]


def test_every_public_name_has_one_entry_and_an_example():
    found = [(name, text) for page in REFERENCE.values() for name, text in entries(page).items()]
    assert sorted(name for name, _ in found) == sorted(PUBLIC)
    assert [name for name, text in found if not shown(text, name)] == []


def test_an_entry_without_an_example_is_seen():
    # Guards the test above.
    page = "::: tl_reward.score\n\n```pycon\n>>> tl_reward.score\n1\n```\n\n::: tl_reward.sweep\n\n```pycon\n>>> tl_reward.sweep\n```\n"
    assert [name for name, text in entries(page).items() if not shown(text, name)] == ["sweep"]
    assert not shown("```pycon\n>>> tl_reward.scored\n1\n```\n", "score")


@pytest.mark.filterwarnings("ignore::tl_reward.data.text.NoTemplate", "ignore:.*all splits, find and test, are read")
@pytest.mark.parametrize("name", [name for name, text in REFERENCE.items() if BLOCK.search(text)])
def test_the_examples_give_what_they_say(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    test = doctest.DocTestParser().get_doctest("\n".join(BLOCK.findall(REFERENCE[name])), {}, name, name, 0)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=said.append)
    assert result.attempted > 0 and result.failed == 0, "".join(said)


def test_every_page_is_in_the_navigation():
    # With a loader that reads mkdocs.yml's plain parts.
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    listed = set(re.findall(r"[\w./-]+\.(?:md|ipynb)", str(nav)))
    pages = {str(path.relative_to(DOCS)) for kind in ("md", "ipynb") for path in DOCS.rglob(f"*.{kind}")}
    assert listed == {page for page in pages if not page.startswith("reproduction/tables/")}


def test_links_lead_to_files():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), *DOCS.glob("tutorials/*.ipynb")]
    links = [(page, link) for page in pages for link in LINK.findall(page.read_text(encoding="utf-8"))]
    assert len(links) > 60
    assert [f"{page.relative_to(ROOT)}: {link}" for page, link in links if not (page.parent / link).exists()] == []
