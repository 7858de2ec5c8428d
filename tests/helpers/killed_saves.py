"""Saves that are killed at random moments, and saves of several processes at once, in one process without a model: `python killed_saves.py
kills|writers FOLDER TRIALS`. Prints what it saw as JSON; an assertion that fails ends it."""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from tl_reward.errors import InputError
from tl_reward.results.store import Results


def numbered(number: int) -> Results:
    """A run whose JSON and tensors tell the same number."""
    results = Results(provenance={"seed": number})
    entry = {"model": ["a"], "edits": [["zero"]], "dropped": 0, "ids": ["x"], "groups": ["x"]}
    entry |= {key: ["x"] for key in ("subsets", "prompts", "objectives", "tasks")}
    results.add("study", "a", entry, {side: torch.full((1, 1), float(number)) for side in ("chosen", "rejected")} | {"x": torch.ones(9999)})
    return results


def number_of(folder: Path) -> int:
    """Raises where the run is not whole."""
    run = Results.load(folder)
    number = run.provenance["seed"]
    assert run.tensor("study", "a", "chosen").item() == number, "JSON of one run, tensors of another"
    return number


def writer(folder: Path, first: int, step: int) -> None:
    """Saves one number after the other, until it is killed, or the process that started it ends."""
    number, parent = first, os.getppid()
    while os.getppid() == parent:
        numbered(number).save(folder, overwrite=True)
        number += step


def forked(folder: Path, first: int, step: int) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            writer(folder, first, step)
        finally:
            os._exit(1)
    return pid


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def check_clean(folder: Path) -> None:
    """The next save finishes what was left, and nothing stays."""
    numbered(-1).save(folder, overwrite=True)
    assert number_of(folder) == -1
    assert sorted(item.name for item in folder.iterdir()) == ["results.json", "tensors.safetensors"], [*folder.iterdir()]
    assert [item.name for item in folder.parent.iterdir()] == [folder.name]


def kills(folder: Path, trials: int) -> dict[str, int]:
    draw, seen, left = random.Random(trials), 0, 0
    for trial in range(trials):
        if trial % 2:
            numbered(0).save(folder, overwrite=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        pid = forked(folder, 1, 1)
        time.sleep(draw.random() * 0.05)
        kill(pid)
        left += any(item.name.startswith(".sav") for item in folder.iterdir()) if folder.exists() else 0
        try:
            seen += number_of(folder) > 0
        except InputError as error:
            if trial % 2 or "no run folder" not in str(error):  # else there was none before
                raise
        check_clean(folder)
    return {"new": seen, "cut short in the middle": left}


def writers(folder: Path, trials: int) -> dict[str, int]:
    numbers = set()
    for _ in range(trials):
        numbered(0).save(folder, overwrite=True)
        pids = [forked(folder, first, 3) for first in (1, 2, 3)]
        try:
            until = time.time() + 0.5
            while time.time() < until:
                numbers.add(number_of(folder))
        finally:
            for pid in pids:
                kill(pid)
        check_clean(folder)
    return {"runs read": len(numbers)}


if __name__ == "__main__":
    print(json.dumps({"kills": kills, "writers": writers}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
