"""Full disks, folders that cannot be written, and names that make trouble: nothing half-written is there under its name, nothing is lost.

A disk is full where no file of a command may get larger than some bytes (RLIMIT_FSIZE), which needs no rights. A folder cannot be written
to where it is below /proc, where even root cannot make one.
"""

import random
import re
import signal
from pathlib import Path

import pytest
from helpers.attack import tries
from helpers.forked import arguments

from tl_reward.errors import InputError
from tl_reward.results.store import Results

NAMES = {
    "spaces": "a run  of mine",
    "quotes": 'it\'s "mine" `now` $HOME',
    "a newline": "one\ntwo",
    "200 characters": "n" * 200,
    "markup": "<b>[bold]{x}",
    "not ASCII": "läufe 結果",
    "a dash": "-run",
}


@pytest.fixture(scope="module")
def root(forked_root, forks):
    ended = forks.run(*arguments("discover", forked_root, forked_root / "runs" / "whole" / "discover"), "--overwrite")
    assert ended.status == 0, ended.err
    return forked_root


def is_there(command: str, out: Path) -> bool:
    """Whether a command's result is there under its name, and read as whole."""
    if command == "train":
        return (out / "training.json").exists()
    if command == "reproduce":
        return (out / "report.md").exists()
    if command == "dashboard":
        return out.with_name(f"{out.name}.html").exists()
    try:
        return bool(Results.load(out).sections)
    except InputError:
        return False


FULL = ("examples", "train", "reproduce", "discover", "dashboard", "ablate", "attribute")


@pytest.mark.parametrize("number", range(tries(3, 40)))
def test_on_a_full_disk_nothing_is_half_there_and_all_goes_on_later(root, forks, number):
    command, out = FULL[number % len(FULL)], root / "runs" / f"full {number}" / "out"
    largest = random.Random(number).choice([0, 100, 2000, 20_000, 60_000])
    full = forks.run(*arguments(command, root, out), largest=largest)
    assert full.status > 0 or is_there(command, out)
    if full.status:
        assert not is_there(command, out)
        ended = forks.run(*arguments(command, root, out))
        if ended.status == 2 and command == "train":
            ended = forks.run(*arguments(command, root, out), "--resume")
        assert ended.status == 0, ended.err
    assert is_there(command, out)
    if command == "examples":
        assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_state_of_examples_outlives_a_disk_that_is_too_small_for_the_run(root, forks):
    out = root / "runs" / "small" / "out"
    cut = forks.run(*arguments("examples", root, out), signal=signal.SIGKILL, at=10)
    state = out.with_name("out.partial")
    assert cut.status == -signal.SIGKILL and state.exists()
    # Room for nothing that is as large as a state: neither the run nor another state can be written, and the old one stays.
    full = forks.run(*arguments("examples", root, out), largest=1000)
    assert full.status > 0 and state.exists() and not is_there("examples", out)
    ended = forks.run(*arguments("examples", root, out))
    assert ended.status == 0 and not re.search(r"(model|pass 1 of 2), pairs 1-3 of", ended.err) and not state.exists()


@pytest.mark.parametrize("command", ["examples", "train", "reproduce", "discover"][: tries(2, 4)])
def test_a_folder_that_cannot_be_made_ends_the_command(root, forks, command):
    (root / "a file").touch()
    for parent in (Path("/proc/1"), root / "a file"):
        ended = forks.run(*arguments(command, root, parent / "runs" / "out"))
        assert ended.status > 0 and (root / "a file").read_bytes() == b""


def named() -> list[tuple[str, str]]:
    commands = ("discover", "examples", "train", "dashboard", "reproduce", "attribute", "ablate")
    each = [(command, name) for command in commands for name in NAMES]
    return [each[i * 8 % len(each)] for i in range(tries(3, len(each)))]  # 8: another command and another name each time


@pytest.mark.parametrize(("command", "name"), named())
def test_names_that_make_trouble(root, forks, command, name):
    out = root / "runs" / f"named {command}" / NAMES[name]
    ended = forks.run(*arguments(command, root, out))
    assert ended.status == 0, ended.err
    assert is_there(command, out)
    beside = {path.name for path in out.parent.iterdir()}
    assert out.name in beside or f"{out.name}.html" in beside
    assert not {each for each in beside if each.startswith(".") or each.endswith(".partial")}
