"""Run folders that lie, are cut short or full of what no run holds, and saves that are killed: a run is read whole, or refused in a line."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.attack import LONG, tries
from rich.console import Console
from safetensors.torch import load_file, save_file

import tl_reward
from tl_reward.errors import InputError
from tl_reward.results.disk import plain
from tl_reward.results.store import Results
from tl_reward.show.page import build_page
from tl_reward.show.run_tables import summary

FOLDER = Path(__file__).parents[1] / "results" / "run_format_2"
DOCUMENT = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
# What may stand where something else is due.
VALUES: tuple[Any, ...] = (
    None, True, "6", "", "x" * 300, "a\nb\x1b[31m", 0, -1, 6.5, 1e308, 2**62, float("nan"), float("inf"), [], [1], [[]], {}, {"a": 1},
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy without the tensors, which are a link to a file that is not in the folder until it is copied."""
    shutil.copytree(FOLDER, tmp_path / "run")
    return tmp_path / "run"


def outcome(folder: Path) -> str:
    """What becomes of a run: "shown", or one line of refusal. Anything else that is raised fails the test."""
    try:
        results = Results.load(folder)
        summary(results, Console(width=80, file=io.StringIO()))
        build_page(results)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 2000, str(error)[:3000]
        return str(error)
    return "shown"


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document."""
    if place:
        yield place
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(each, (*place, key))


def kinds(value: Any) -> dict[tuple[Any, ...], list[tuple[Any, ...]]]:
    """Places by what stands there: entries of one section are of a kind, and so are the items of a list."""
    found: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for place in places(value):
        kind = tuple("#" if isinstance(key, int) or i == 2 and place[0] == "sections" else key for i, key in enumerate(place))
        found.setdefault(kind, []).append(place)
    return found


def swapped(place: tuple[Any, ...], new: Any) -> str:
    """The document with another value at a place; of sections, the one that holds it."""
    document = json.loads(json.dumps(DOCUMENT))
    if place[0] == "sections" and len(place) > 1:
        document["sections"] = {place[1]: document["sections"][place[1]]}
    at = document
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = new
    return json.dumps(document)


def test_every_kind_of_value_swapped_for_others(run: Path):
    """Each kind of value in turn, for a value drawn at random: at least once each."""
    draw = random.Random(0)
    every = kinds(DOCUMENT)
    trials = [(draw.choice(found), draw.choice(VALUES)) for found in every.values() for _ in range(tries(1, 20))]
    shown = 0
    for place, new in draw.sample(trials, tries(min(300, len(trials)), len(trials))):
        (run / "results.json").write_text(swapped(place, new), encoding="utf-8")
        try:
            shown += outcome(run) == "shown"
        except Exception as error:
            raise AssertionError(f"{place} = {str(new)[:40]!r}") from error
    assert shown
