"""A stand-in for what computes a cell, in this process and in workers; what it does is set in the environment, which workers inherit.

STAND_IN_CELL: the cell that fails, so many (STAND_IN_TIMES) times, in the way of STAND_IN_HOW. STAND_IN_SLOW: one that ends after that.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from tl_reward import parallel
from tl_reward.errors import InputError
from tl_reward.study.compute import side_by_side


def setting(name: str) -> str:
    return os.environ.get(f"STAND_IN_{name}", "")


def begin(*args: Any) -> None:
    """In the place of a worker's own beginning, which it calls."""
    if setting("HOW") == "no start":
        os._exit(3)
    BEGIN(*args)


BEGIN = side_by_side._begin


def note(out: Path, what: str, text: str) -> None:
    (out / f"{what} {time.time_ns()} {os.getpid()}").write_text(text)


def tried(out: Path, name: str) -> int:
    return sum(path.read_text() == name for path in out.glob("tried*"))


def make(cell: Any, out: Path, inputs: Any, *, tokens: int) -> None:
    name, failing = f"{cell.kind} {cell.name}", setting("CELL")
    out.mkdir(exist_ok=True)
    note(out, "tried", name)
    if setting("HOW") == "share":
        note(out, "share", str(parallel.room()))
    if name == setting("SLOW"):
        until = time.time() + 60
        while tried(out, failing) == 0 and time.time() < until:
            time.sleep(0.02)
        time.sleep(0.5)
    if name == failing and tried(out, name) <= int(setting("TIMES")):
        if setting("HOW") == "kill":
            until = time.time() + 60
            while setting("SLOW") and tried(out, setting("SLOW")) == 0 and time.time() < until:
                time.sleep(0.02)
            os.kill(os.getpid(), signal.SIGKILL)
        if setting("HOW") == "input":
            raise InputError("the training diverged")
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB.\nSee the documentation")
    note(out, "done", name)
