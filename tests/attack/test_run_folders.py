"""Run folders that lie or are cut short, and saves that are killed: a run is read whole, or refused in one line."""

import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.attack import LONG, tries
from helpers.scripts import Scripts
from rich.console import Console
from safetensors.torch import load_file, save_file

from tl_reward.errors import InputError
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


def outcome(folder: Path, *, page: bool = True) -> str:
    """What becomes of a run: "shown", or one line of refusal. Anything else that is raised fails the test."""
    said = refusal(folder)
    if said is None:
        try:
            results = Results.load(folder)
            summary(results, Console(width=80, file=io.StringIO()))
            if page:
                build_page(results)
        except InputError as error:
            said = str(error)
    assert said is None or (len(said.splitlines()) == 1 and len(said) < 2000), said[:3000]
    return said or "shown"


def refusal(folder: Path) -> str | None:
    """What a run is refused with; None where it loads."""
    try:
        Results.load(folder)
    except InputError as error:
        return str(error)
    return None


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
        kind = tuple("#" if isinstance(key, int) or (i == 2 and place[0] == "sections") else key for i, key in enumerate(place))
        found.setdefault(kind, []).append(place)
    return found


def swapped(place: Sequence[Any], new: Any) -> str:
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
    draw = random.Random(1)
    every = kinds(DOCUMENT)
    trials = [(draw.choice(found), draw.choice(VALUES)) for found in every.values() for _ in range(tries(1, 20))]
    shown = 0
    for i, (place, new) in enumerate(draw.sample(trials, tries(min(300, len(trials)), len(trials)))):
        (run / "results.json").write_text(swapped(place, new), encoding="utf-8")
        try:
            shown += outcome(run, page=LONG or i % 6 == 0) == "shown"
        except Exception as error:
            raise AssertionError(f"{place} = {str(new)[:40]!r}") from error
    assert shown


def test_bytes_that_are_lost_or_flipped(run: Path):
    draw = random.Random(1)
    for _ in range(tries(16, 300)):
        file = run / draw.choice(["results.json", "tensors.safetensors"])
        whole = file.read_bytes()
        at = draw.randrange(min(len(whole), 20_000))  # the header of tensors is here; their numbers have no checksum
        flipped = whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :]
        file.write_bytes(draw.choice([whole[:at], flipped, whole[:at] + bytes(100) + whole[at + 100 :]]))
        said = refusal(run) or ""
        assert len(said.splitlines()) < 2 and len(said) < 2000
        file.write_bytes(whole)


TENSORS = load_file(FOLDER / "tensors.safetensors")


def entry_of(key: str) -> tuple[str, str]:
    section = key.split("/")[0]
    return section, max((name for name in DOCUMENT["sections"][section] if key.startswith(f"{section}/{name}/")), key=len)


def test_tensors_that_are_missing_or_are_not_what_their_entry_says(tmp_path: Path):
    """One of each kind of tensor: each damage is refused, and named. What is beside a run's own tensors is left alone."""
    by_kind = {(entry_of(key)[0], key.split("/")[-2:][0], key.split("/")[-1]): key for key in TENSORS}
    changes: dict[str, Callable[[torch.Tensor], torch.Tensor | None]] = {
        "missing": lambda value: None,
        "flat": lambda value: torch.zeros(value.numel() + 1, dtype=value.dtype),
        "one more": lambda value: torch.cat([value, value[:1]]),
        "of bfloat16": lambda value: value.bfloat16(),
        "of the other kind": lambda value: value.int() if value.is_floating_point() else value.float(),
        "not finite": lambda value: torch.full_like(value, float("nan")) if value.is_floating_point() else None,
    }
    may = {("error", "not finite"), ("activation", "one more"), ("activation", "flat"), ("peak", "not finite")}
    may |= {(name, "not finite") for name in ("auroc", "auroc_error", "cohens_d", "difference", "p_value", "q_value", "welch_t")}
    trials = [(key, change) for key in by_kind.values() for change in changes]
    for key, change in trials if LONG else random.Random(2).sample(trials, 60):
        section, name = entry_of(key)
        prefix, new = f"{section}/{name}/", changes[change](TENSORS[key])
        kept = {other: value for other, value in TENSORS.items() if other.startswith(prefix) and other != key}
        document = DOCUMENT | {"sections": {section: {name: DOCUMENT["sections"][section][name]}}}
        (tmp_path / "results.json").write_text(json.dumps(document), encoding="utf-8")
        save_file(kept | ({} if new is None else {key: new.contiguous()}), tmp_path / "tensors.safetensors")
        said = refusal(tmp_path)
        if said is None:
            assert (key.split("/")[-1], change) in may, f"{key} {change} is not refused"
        else:
            assert "its tensor" in said and len(said.splitlines()) == 1


def written(folder: Path, text: str | bytes) -> Path:
    (folder / "results.json").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return folder


DEEP = "[" * 10_000 + "]" * 10_000
PARTS: dict[str, tuple[Callable[[], str], str]] = {
    "sections are null": (lambda: '"sections": null', "input should be a valid dictionary"),
    "10,000 levels": (lambda: f'"sections": {{"scores": {DEEP}}}', "nested deeper than 100 levels"),
    "200 levels": (lambda: f'"sections": {{}}, "x": {"[" * 200}{"]" * 200}', "nested deeper than 100 levels"),
    "20,000 digits": (lambda: f'"sections": {{}}, "x": {"9" * 20_000}', "digits"),
    "4,000 digits": (lambda: f'"sections": {{}}, "x": {"9" * 4_000}', "more than 64 bits"),
    "NaN": (lambda: '"sections": {}, "x": NaN', "x is nan"),
    "infinity": (lambda: '"sections": {}, "x": [1e999]', r"x\.0 is inf"),
    "10 MB of text": (lambda: f'"sections": {{}}, "x": "{"y" * 10_000_000}"', "10,000,000 characters"),
    "a name of 10 MB": (lambda: f'"sections": {{"scores": {{"{"y" * 10_000_000}": {{}}}}}}', "10,000,000 characters"),
    "a million entries": (lambda: f'"sections": {{"study": {json.dumps(dict.fromkeys(range(10**6), 0))}}}', "1,000,000 entries"),
}


@pytest.mark.parametrize(("part", "says"), PARTS.values(), ids=PARTS)
def test_what_no_run_holds_is_refused_in_a_line_and_in_bounded_time(part: Callable[[], str], says: str, run: Path):
    written(run, f'{{"format": 2, "provenance": {{}}, {part()}}}')
    start = time.process_time()
    with pytest.raises(InputError, match=says) as said:
        Results.load(run)
    assert time.process_time() - start < 20 and len(str(said.value)) < 1000


def test_a_file_that_is_too_large_is_not_read(run: Path):
    os.truncate(run / "results.json", 10**9)  # sparse: it takes no room
    with pytest.raises(InputError, match="1,000,000,000 bytes, at most 536,870,912 are read"):
        Results.load(run)


@pytest.mark.parametrize("name", ["../../up", "/etc/passwd", "__proto__", "constructor", "a\nb\x1b[31m\x00", "x" * 200, " ", "\ud800"])
def test_any_name_is_data(name: str, tmp_path: Path):
    results = Results({"scores": {}})
    entry = DOCUMENT["sections"]["scores"]["mixed · some pairs"] | {"model": name, "dataset": name}
    tensors = {side: TENSORS[f"scores/mixed · some pairs/{side}"] for side in ("chosen", "rejected")}
    name = f"{name} · {name}"
    if "\ud800" in name:
        with pytest.raises(InputError, match="the name is no text that a file can hold"):
            results.add("scores", name, entry, tensors)
        return
    results.add("scores", name, entry, tensors)
    again = Results.load(results.save(tmp_path / "again"))
    assert list(again.section("scores")) == list(results.section("scores")) and again.models() >= {entry["model"]}
    assert [item.name for item in tmp_path.iterdir()] == ["again"]
    with pytest.raises(InputError) as said:
        again.entry("scores", f"{name}?")
    assert len(str(said.value).splitlines()) == 1
    if name[0] in "./_a":
        assert outcome(tmp_path / "again") == "shown"


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("name", ["results.json", "tensors.safetensors", ".saved"])
def test_links_out_of_the_folder_are_not_followed(name: str, run: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(FOLDER, elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(elsewhere if name == ".saved" else elsewhere / name)
    with pytest.raises(InputError, match=r"is a link to .*elsewhere.*, which is not in the folder"):
        Results.load(run)
    (run / "dashboard.data").symlink_to(elsewhere)
    Results().save(run, overwrite=True)
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert sorted(item.name for item in run.iterdir()) == ["results.json", "tensors.safetensors"] and not Results.load(run).sections


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(run: Path):
    (run / "tensors.safetensors").unlink()
    os.mkfifo(run / "tensors.safetensors")
    with pytest.raises(InputError, match=r"tensors.safetensors is no file"):
        Results.load(run)


def attacked(scripts: Scripts, what: str, folder: Path, trials: int) -> dict[str, int]:
    """What `helpers/killed_saves.py` saw."""
    done = scripts.run(Path(__file__).parents[1] / "helpers" / "killed_saves.py", what, folder, str(trials))
    assert done.status == 0, done.err[-3000:]
    return json.loads(done.out)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL") or not hasattr(os, "fork"), reason="processes are not killed so here")
def test_saves_that_are_killed_leave_the_old_run_or_the_new_one(tmp_path: Path, scripts: Scripts):
    attacked(scripts, "kills", tmp_path / "run", tries(8, 30))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_three_writers_at_once_leave_one_whole_run_and_nothing_else(tmp_path: Path, scripts: Scripts):
    assert attacked(scripts, "writers", tmp_path / "run", tries(1, 10))["runs read"] > 0
