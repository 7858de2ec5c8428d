"""Commands in pipes, in files and in narrow terminals, and told to be quiet: on a tiny model, in a process that has torch already."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.forked import Ended, Forks, arguments
from rich.table import Table

from tl_reward.cli.entry import COMMANDS, _options_of, _parsed
from tl_reward.results.store import Results
from tl_reward.show.console import _Console, print_table

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes are forked")
WIDTH = 100
LAST = re.compile(r"(Run|Page|Model|Report|Evidence): (/\S+)")


def commands(root: Path, out: Path) -> dict[str, list[str | Path]]:
    """One of each kind that prints, which writes to `out`."""
    found = root / "runs" / "pipes" / "discover"
    run = ["--limit", "4", "--device", "cpu", "--out", out]
    model = root / "model"
    return {
        **{name: [*arguments(name, root, out)] for name in ("discover", "attribute", "examples", "train", "reproduce")},
        "score": ["score", model, *run],
        "effects": ["effects", model, "--neurons", "0.3", "1.7", *run],
        "tension": ["tension", model, "--device", "cpu", "--out", out],
        "ablate": ["ablate", model, "--ranking", found, "--fractions", "0.1", "--draws", "1", *run],
        "patch": ["patch", model, *run],
        "patch-models": ["patch-models", model, f"other={model}", "--find-limit", "4", "--top", "0", "--random", "0", "--draws", "1", *run],
        "lens": ["lens", model, *run],
        "compare": ["compare", found, "--score", "mean", "rms", "--out", out],
        "dashboard": ["dashboard", found, "--out", out],
    }


NAMES = [*commands(Path("root"), Path("out"))]


@pytest.fixture(scope="module")
def root(forked_root: Path, forks: Forks) -> Path:
    runs = forked_root / "runs" / "pipes"
    check(forks.run(*arguments("discover", forked_root, runs / "discover")))
    return forked_root


def check(ended: Ended) -> Ended:
    assert ended.status == 0, ended.err
    for stream in (ended.out, ended.err):
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]", stream) is None, "a control code"
        assert "Traceback" not in stream and "Exception" not in stream
    return ended


def test_no_command_is_left_out():
    # The demo is below, a repair prints as the others do and takes long, and the live page runs until it is stopped.
    assert {*COMMANDS} - {*NAMES} == {"demo", "repair", "serve"}


@pytest.mark.parametrize("name", NAMES)
def test_in_a_file_there_are_no_control_codes_and_tables_have_one_width(name: str, root: Path, forks: Forks):
    ended = check(forks.run(*commands(root, root / "runs" / "pipes" / f"{name}.plain")[name]))
    where = [line for line in ended.out.splitlines() if LAST.match(line)]
    assert where
    # Paths are not broken, so that they can be copied.
    assert max((len(line) for line in ended.out.splitlines() if str(root) not in line), default=0) <= WIDTH


@pytest.mark.parametrize("name", ["score", "train", "reproduce"])  # the others share the options of the first
def test_quiet_says_only_where_the_files_are(name: str, root: Path, forks: Forks):
    out = root / "runs" / "pipes" / f"{name}.quiet"
    quiet(check(forks.run(*commands(root, out)[name], "--quiet")))
    assert out.exists()


def test_quiet_still_warns_where_tested_pairs_found_the_neurons(root: Path, forks: Forks):
    ended = check(forks.run(*commands(root, root / "runs" / "pipes" / "ablate.quiet")["ablate"], "--split", "find", "--quiet"))
    assert re.search(r"^CAUTION: \d+ of the tested pairs were used to find the neurons$", ended.err, re.MULTILINE)
    assert all(LAST.match(line) for line in ended.out.splitlines())


def quiet(ended: Ended) -> None:
    found = [LAST.match(line) for line in ended.out.splitlines()]
    assert found and all(each is not None and Path(each[2].rstrip(",")).exists() for each in found), ended.out
    assert [line for line in ended.err.splitlines() if not line.startswith("warning: ")] == []


def test_every_command_that_computes_can_be_quiet():
    assert {name for name, kind in COMMANDS.items() if "--quiet" not in dict(_options_of(kind))} == {"dashboard", "serve"}


def test_forty_columns_cut_nothing(root: Path, forks: Forks):
    wide, narrow = (
        check(forks.run(*commands(root, root / "runs" / "pipes" / f"wide{columns}")["score"], COLUMNS=columns)) for columns in ("200", "40")
    )
    words = {word for word in re.split(r"[\s│┃━─┏┓┡┩└┘┴┳╇┬┼]+", wide.out) if word and "/" not in word}
    assert {word for word in words if word not in narrow.out} - {"Scores"} == set()
    assert max(len(line) for line in narrow.out.splitlines() if str(root) not in line) <= 40


def test_a_reader_who_leaves_costs_no_file(root: Path, forks: Forks):
    out = root / "runs" / "pipes" / "left"
    check(forks.run("demo", "--smoke", "--out", out, leaves=True))
    assert Results.load(out).sections and (out / "dashboard.html").exists()  # the page is written after the tables are printed


def test_a_smoke_test_is_the_demo_and_calls_its_models_random(root: Path, forks: Forks):
    out = root / "runs" / "pipes" / "smoke"
    quiet(check(forks.run("demo", "--smoke", "--quiet", "--out", out)))
    run = Results.load(out)
    assert run.models() == {"random helpful", "random harmless", "random mixed"}
    assert {entry["pairs"] for entry in run.section("scores").values()} == {8}
    assert {*run.sections} == {"scores", "discovery", "overlap", "attribution", "tension", "ablation", "examples"}
    assert (out / "dashboard.html").read_text(encoding="utf-8").startswith("<!doctype html>")


SHOW = """
from rich.table import Table
from tl_reward.show.console import console, print_table
table = Table("model", "margin", title="Scores")
table.add_row("helpful", "0.5")
print_table(table, console)
from tl_reward.cli import main
main(["score", "--help"])
"""


def in_a_terminal(**variables: str) -> str:
    """What a terminal gets of tables and help."""
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW], stdout=slave, stderr=slave, stdin=slave, env=environment | {"TERM": "xterm-256color"} | variables
    )
    os.close(slave)
    parts: list[bytes] = []
    try:
        while part := os.read(master, 65536):
            parts.append(part)
    except OSError:  # so a terminal ends
        pass
    os.close(master)
    process.wait(timeout=60)
    return b"".join(parts).decode()


@pytest.mark.parametrize("terminal", [None, "xterm"])
def test_the_parser_leaves_the_environment_as_it_was(monkeypatch: pytest.MonkeyPatch, terminal: str | None):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", terminal) if terminal else monkeypatch.delenv("TERM", raising=False)
    _parsed(["dashboard", "a-run"])
    assert os.environ.get("TERM") == terminal


def test_names_command_no_terminal():
    name = "he\x1b[31mlp\u202e \x9bful\r\u2066"
    table = Table(name, "margin", title=name)
    table.add_row(name, "wide\nwörter ✓")
    for width in (100, 15):
        shown = _Console(markup=False, width=width, file=io.StringIO(), force_terminal=True)
        print_table(table, shown)
        shown.print(name, style="bold")
        assert isinstance(shown.file, io.StringIO)
        text = re.sub(r"\x1b\[[\d;]*m", "", plain := shown.file.getvalue())
        assert "he[31mlp ful" in " ".join(text.split()) and "✓" in text and "\x1b[31m" not in plain
        assert re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text) is None
        assert len({len(line) for line in text.splitlines() if line[:1] in tuple("┃│┏└")}) == (width == 100)


def test_no_color_is_honoured():
    colour = re.compile(r"\x1b\[[\d;]*(3[0-7]|38|9[0-7])[\d;]*m")
    assert colour.search(in_a_terminal())
    plain = in_a_terminal(NO_COLOR="1")
    assert "usage: tl-reward score" in plain and "helpful" in plain
    assert colour.search(plain) is None
