"""How far a computation is: lines that a log file can hold, a bar in a terminal, nothing where nobody wants to know."""

import io
import sys

import pytest

from tl_reward.terminal import progress
from tl_reward.terminal.progress import Progress, hushed


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def passes(clock: list[float], step: float, *, total: int = 1000, by: int = 10, label: str | None = "helpful", note: str = "") -> None:
    with Progress(label, total, "tokens") as shown:
        for _ in range(total // by):
            clock[0] += step
            shown.add(by, note)


def test_a_short_pass_is_one_line(clock: list[float], capsys: pytest.CaptureFixture[str]):
    passes(clock, 0.29)
    assert capsys.readouterr().err == "helpful: 1,000 tokens\n"


def test_a_pass_of_minutes_has_a_line_each_tenth_with_what_is_done_and_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
):
    passes(clock, 10.0, note="loss 0.512")
    said = capsys.readouterr().err
    lines = said.splitlines()
    assert lines[:2] == ["helpful: 1,000 tokens", "helpful: 100 of 1,000 tokens (10%), about 15 min left; loss 0.512"]
    assert lines[-2:] == ["helpful: 900 of 1,000 tokens (90%), about 2 min left; loss 0.512", "helpful: done, after about 17 min"]
    assert len(lines) == 11 and "\r" not in said


def test_lines_are_thirty_seconds_apart_however_fast_it_goes(clock: list[float], capsys: pytest.CaptureFixture[str]):
    passes(clock, 1.0)  # a tenth takes 10 seconds
    shares = [line.partition("(")[2].partition(")")[0] for line in capsys.readouterr().err.splitlines()[1:-1]]
    assert shares == ["30%", "60%", "90%"]


def test_a_pass_of_days_says_every_five_minutes_that_it_is_alive(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Progress("helpful", 1000, "tokens") as shown:
        for _ in range(60):
            clock[0] += 60
            shown.add(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "helpful: 5 of 1,000 tokens (0%), about 16 h 35 min left"
    assert len(lines) == 1 + 12 + 1


def test_what_an_earlier_process_did_counts_as_done_and_not_for_the_pace(clock: list[float], capsys: pytest.CaptureFixture[str]):
    with Progress("training", 100, "steps", done=50) as shown:
        clock[0] += 40
        shown.add(10)
    assert capsys.readouterr().err.splitlines()[:2] == [
        "training: 100 steps, of which 50 are done",
        "training: 60 of 100 steps (60%), about 3 min left",
    ]


def test_one_that_fails_is_not_said_to_be_done(clock: list[float], capsys: pytest.CaptureFixture[str]):
    def fails() -> None:
        with Progress("helpful", 10, "tokens") as shown:
            clock[0] += 400
            shown.add(2)
            raise ValueError("no")

    with pytest.raises(ValueError, match=r"^no$"):
        fails()
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 2 and "done" not in said


def test_a_reader_who_left_is_no_reason_to_stop(clock: list[float], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    passes(clock, 10.0)
    assert clock == [1000.0]


@pytest.mark.parametrize("file", [io.StringIO, Terminal])
def test_nothing_where_none_is_asked_for_or_a_command_is_quiet(
    clock: list[float], monkeypatch: pytest.MonkeyPatch, file: type[io.StringIO]
):
    pytest.importorskip("tqdm")
    shown = file()
    monkeypatch.setattr(sys, "stderr", shown)
    passes(clock, 10.0, label=None)
    with hushed(True):
        passes(clock, 10.0)
    assert shown.getvalue() == ""
    passes(clock, 10.0)
    assert shown.getvalue() != ""


@pytest.mark.parametrize("columns", [40, 120])
def test_a_bar_fits_in_its_terminal_and_keeps_the_share(monkeypatch: pytest.MonkeyPatch, columns: int):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    with Progress("mixed: neurons zeroed one by one, helpful pairs", 100, "tokens") as shown:
        shown.add(100)
    drawn = [part for part in terminal.getvalue().replace("\n", "\r").split("\r") if part.strip()]
    assert "100%" in drawn[-1] and max(map(len, drawn)) <= columns
    assert ("mixed: neurons" in drawn[-1]) and (columns == 40 or "helpful pairs" in drawn[-1])
