"""Who writes a page may be killed at any step, or not be alone: the page is whole, the old one or the new, and nothing is in the way."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from helpers.attack import tries
from helpers.page_runs import random_run

from tl_reward.errors import InputError
from tl_reward.show.page import document as page_module
from tl_reward.show.page import files, write_page


def in_child(work: Any) -> int:
    """Runs it in a copy of this process; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def title_of(path: Path) -> str:
    """Of a page on the disk; its data must be there."""
    text = path.read_text(encoding="utf-8")
    folder = re.search(r'data-folder="([^"]*)"', text)
    assert folder is not None
    if folder[1]:
        blocks = {file.stem for file in (path.parent / folder[1]).iterdir()}
        assert {"manifest", "plotly", "panels", "column-0"} <= blocks
    found = re.search(r"<title>(.*)</title>", text)
    assert found is not None
    return found[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("large", [False, True], ids=["one-file", "folder"])
def test_a_killed_writer_leaves_the_old_page_and_nothing_in_the_way(tmp_path, monkeypatch, large):
    monkeypatch.setattr(page_module, "LARGEST_FILE", 1000 if large else 10**9)
    run, path = random_run(2, 20), tmp_path / "run" / "dashboard.html"
    run.save(tmp_path / "run")
    die: Any = lambda *args, **kwargs: os._exit(9)  # noqa: E731
    replace = os.replace

    def write_and_die(where: str) -> None:
        if where == "before anything":
            files._make = lambda folder: (folder.mkdir(parents=True), die())
        elif where == "among the data":
            page_module._document = die
        elif where == "before the page":
            os.replace = die  # of a copy of this process, which ends here
        else:
            files._clear = die
        write_page(run, path, title=f"new {where}", overwrite=True)

    places = ("before anything", "among the data", "before the page", "after the page")
    for where in places[: 4 if large else 3]:
        assert in_child(lambda where=where: write_and_die(where)) == 9
        assert path.exists() == (where == "after the page")
    run.save(tmp_path / "run", overwrite=True)  # nothing is in its way
    for where in places:
        write_page(run, path, title="old", overwrite=True)
        assert in_child(lambda where=where: write_and_die(where)) == 9
        assert title_of(path) == (f"new {where}" if where == "after the page" else "old")
    write_page(run, path, title="last", overwrite=True)
    assert title_of(path) == "last" and os.replace is replace
    assert {item.name for item in (tmp_path / "run").iterdir()} - {"dashboard.data"} == {"dashboard.html"} | {
        item.name for item in (tmp_path / "run").iterdir() if item.suffix in (".json", ".safetensors")
    }
    assert len(list((tmp_path / "run").glob("dashboard.data/*"))) == large


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_writers_at_once_leave_one_whole_page(tmp_path, monkeypatch):
    monkeypatch.setattr(page_module, "LARGEST_FILE", 1000)
    run, path = random_run(2, 20), tmp_path / "page.html"
    write_page(run, path, title="0")
    for _ in range(tries(2, 30)):
        children = []
        for i in range(3):
            child = os.fork()
            if child == 0:
                for _ in range(2):
                    try:
                        write_page(run, path, title=str(i), overwrite=True)
                    except BaseException:
                        os._exit(1)
                os._exit(0)
            children.append(child)
        assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
        assert title_of(path) in "012"
    write_page(run, path, title="last", overwrite=True)
    assert title_of(path) == "last" and len(list((tmp_path / "page.data").iterdir())) == 1
    monkeypatch.undo()
    write_page(run, path, overwrite=True)
    assert [item.name for item in tmp_path.iterdir()] == ["page.html"]


def test_places_where_no_page_can_be_are_said_in_one_line(tmp_path):
    run = random_run(2, 20)
    (tmp_path / "file").write_text("")
    wrong = {
        tmp_path: "is a folder; name a file in it",
        tmp_path / "file" / "page.html": "cannot be written",
        tmp_path / ("x" * 300): "cannot be written",
    }
    for path, message in wrong.items():
        for overwrite in (False, True):
            with pytest.raises(InputError, match=message) as caught:
                write_page(run, path, overwrite=overwrite)
            assert "\n" not in str(caught.value)
    assert [item.name for item in tmp_path.iterdir()] == ["file"]
