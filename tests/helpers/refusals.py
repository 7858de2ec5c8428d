"""Bad input is refused with one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tl_reward.cli import main
from tl_reward.errors import InputError

MOST_CHARACTERS = 400  # of a message, without the folder and the list of known schemas
GOOD_ROW = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}


def refusal(call: Callable, *args: Any, **kwargs: Any) -> str:
    """The message with which a call is refused."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def check(message: str, path: Path, place: str, says: str) -> None:
    """A message names the file, the place in it, and what helps; and it is short."""
    assert message.startswith(f"{path}{place}"), message
    assert says in message, message
    assert len(message.replace(str(path.parent), "").partition("; known: ")[0]) <= MOST_CHARACTERS, message


def command_refuses(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a command that must fail says, without the program's name."""
    capsys.readouterr()  # what others have said before
    with pytest.raises(SystemExit) as ended:
        main([str(each) for each in arguments])
    out, err = capsys.readouterr()
    assert ended.value.code == 2 and "Traceback" not in out + err
    assert err.startswith("tl-reward: ") and len(err.splitlines()) == 1, err
    return err.removeprefix("tl-reward: ").rstrip("\n")
