"""Commands cut short by signals at random points: what is on disk is whole or not there, and going on gives what was never cut short.

A point is a write below the run folder's parent (before it), or a moment.
"""

import itertools
import random
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers.attack import tries
from helpers.forked import ESCAPED, Ended, Forks, arguments

from tl_reward.cli import main
from tl_reward.errors import InputError
from tl_reward.model.reward_model import HookedRewardModel
from tl_reward.results.store import Results

COMMANDS = ("discover", "attribute", "ablate", "examples", "train", "dashboard", "reproduce")
SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
# Whether a save sweeps up what a killed one left. A page's scratch folder stays, beside the page.
SWEEPS = find_spec("tl_reward.results.disk") is not None


class Whole(NamedTuple):
    """What a command gives that nobody cuts short, and how it did."""

    content: dict[str, bytes]
    ended: Ended


def content_of(command: str, out: Path) -> dict[str, bytes]:
    """What has to be the same to the last bit; time and machine are no part of it."""
    if command == "dashboard":
        return {"page": out.with_name(f"{out.name}.html").read_bytes()}
    if command == "train":
        return {path.name: path.read_bytes() for path in out.iterdir() if path.is_file() and path.name != "training.json"}
    if command == "reproduce":
        written = [path for path in out.rglob("*") if path.suffix in (".md", ".csv", ".tex", ".safetensors") and path.name != "README.md"]
        lines = {str(path.relative_to(out)): path.read_bytes().splitlines() for path in written}
        return {name: b"\n".join(line for line in part if b"at commit" not in line) for name, part in lines.items()}
    found = Results.load(out)
    tensors = {name: tensor.numpy().tobytes() for name, tensor in found.tensors.items()}
    return tensors | {"sections": repr(found.sections).replace(f"'{out.name}'", "NAME").encode()}


@pytest.fixture(scope="module")
def root(forked_root):
    return forked_root


@pytest.fixture(scope="module")
def whole(root, forks):
    found = {}
    for command in COMMANDS:
        out = root / "runs" / "whole" / command
        if command == "discover" and out.exists():
            shutil.rmtree(out)  # of the attacks on disks
        ended = forks.run(*arguments(command, root, out))
        assert ended.status == 0, ended.err
        found[command] = Whole(content_of(command, out), ended)
    return found


def check_cut(command: str, out: Path, whole: Whole) -> None:
    """Whatever is there under its final name is whole."""
    page = out.with_name(f"{out.name}.html")
    if command == "train":
        if not (out / "training.json").exists():
            if (out / "adapter_config.json").exists():
                return  # all of it, but the record
            with pytest.raises(InputError):
                HookedRewardModel.from_pretrained(out, device="cpu")
            return
    elif command == "reproduce":
        for note in out.glob("cells/*/[!.]*/cell.json"):
            assert note.parent.name == "tiny, helpful, 0" or Results.load(note.parent / "run")
        assert not (out / "report.md").exists() or content_of(command, out) == whole.content
        return
    elif command == "dashboard":
        if not page.exists():
            return
    else:
        try:
            Results.load(out)
        except InputError:  # it says that there is none
            return
    assert {name: value for name, value in content_of(command, out).items() if name in whole.content} == whole.content


def go_on(command: str, out: Path, root: Path, forks: Forks) -> None:
    ended = forks.run(*arguments(command, root, out))
    if ended.status == 2 and command == "train" and "finished" not in ended.err:
        ended = forks.run(*arguments(command, root, out), "--resume")
    finished = ended.status == 2 and "exists" in ended.err  # before the signal came
    assert (ended.status == 0 or finished) and ended.status != ESCAPED, ended.err


def plan() -> list[tuple[str, int]]:
    count = tries(len(COMMANDS), 30 * len(COMMANDS))
    return [(command, number) for number, command in zip(range(count), itertools.cycle(COMMANDS), strict=False)]


@pytest.mark.parametrize(("command", "number"), plan())
def test_going_on_gives_what_was_never_cut_short(root, forks, whole, command, number):
    dice = random.Random(number)
    reference, out = whole[command], root / "runs" / f"cut {number}" / command
    sent, moment = SIGNALS[number % 3], dice.random() < 0.3
    point = (None, dice.uniform(0, reference.ended.seconds)) if moment else (dice.randint(1, reference.ended.writes), None)
    cut = forks.run(*arguments(command, root, out), signal=sent, at=point[0], after=point[1])
    assert cut.status in (0, -sent, 128 + sent, ESCAPED, 1), (point, cut.err)
    check_cut(command, out, reference)
    go_on(command, out, root, forks)
    assert content_of(command, out) == reference.content, point
    left = {path.name for path in out.parent.iterdir()} - {f"{out.name}.html" if command == "dashboard" else out.name}
    if command != "dashboard" and (SWEEPS or sent == signal.SIGINT):
        assert not left, point
    assert all(name.startswith(f".{out.name}-") for name in left), left
    if SWEEPS and command in ("discover", "attribute", "ablate", "examples"):
        # .saved: cut short while the run, whole by then, is moved up from there; the next save ends that.
        assert {path.name for path in out.iterdir()} <= {"results.json", "tensors.safetensors", ".lock", ".saved"}
    if command == "train":
        assert not (out / "checkpoints").exists()
    if command == "reproduce":
        assert {path.name for path in out.iterdir()} <= {"cells", "tables", "report.md", "report.html", ".lock"}
        assert not list(out.glob("cells/*/.*"))


def says_interrupts_in_one_line() -> bool:
    """Whether the command line does, whatever is interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tl_reward.cli.entry.DashboardCommand.run", interrupted)
        try:
            main(["dashboard", "nothing"])
        except SystemExit as end:
            return end.code == 130
        except KeyboardInterrupt:
            return False
    return False


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.skipif(not says_interrupts_in_one_line(), reason="the command line does not catch Ctrl-C")
@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["discover", "train"])
def test_an_interrupt_is_one_line(root, forks, whole, command, sent, status):
    out = root / "runs" / f"stopped {status}" / command
    cut = forks.run(*arguments(command, root, out), signal=sent, at=3)
    assert cut.status == status, cut.err
    assert "Traceback" not in cut.err and not [line for line in cut.err.splitlines()[1:] if line.startswith("tl-reward")]
