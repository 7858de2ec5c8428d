"""How are cells kept on disk? In a folder each, written whole or not at all; what they hold together is a `Matrix`."""

import dataclasses
import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

import torch
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from tl_reward.measures.names import RankingName
from tl_reward.measures.scores import Scores
from tl_reward.results.provenance import provenance
from tl_reward.results.record_neurons import discovery_of
from tl_reward.results.sections import EditedStudyEntry, UneditedStudyEntry
from tl_reward.results.store import Results
from tl_reward.study.compute.cells import Cell, cells, key, made_from, seed_of_random
from tl_reward.study.compute.inputs import Inputs, files_hash
from tl_reward.study.matrix import BF16, Found, Matrix, Model, ModelEdit

CELL, RUN, MODEL = "cell.json", "run", "model"
SITE = "mlp_gate"  # the study's reading of a neuron


class Note(TypedDict):
    """What is noted beside a cell.

    Attributes:
        key, made_from: what it was made from (`cells.key`); `needs`: the contents of the cells that it read, by kind and name.
        content: a hash of the numbers that it holds, its safetensors.
        files: a hash of each of its files, by its path in the cell; cells of an earlier version have none.
        provenance: where it was made.
        seconds, tokens: what it took; tokens of all passes, 0 where a training went on.
    """

    kind: str
    name: str
    key: str
    made_from: dict[str, Any]
    needs: dict[str, str]
    content: str
    files: NotRequired[dict[str, str]]
    provenance: dict[str, Any]
    seconds: float
    tokens: int


def folder_of(out: Path, cell: Cell) -> Path:
    return out / "cells" / cell.kind / cell.name


def scratch_of(out: Path, cell: Cell) -> Path:
    """Where a cell is made. Names with a dot in front are never read as cells."""
    return folder_of(out, cell).with_name(f".{cell.name}.partial")


def note_of(out: Path, cell: Cell) -> Note | None:
    """None where the cell is not done, or its note is damaged."""
    return _note(folder_of(out, cell) / CELL)


def notes(out: Path) -> list[Note]:
    """Of all cells that are there, whatever config they are of."""
    found = map(_note, sorted(out.glob(f"cells/*/[!.]*/{CELL}")))
    return [note for note in found if note is not None]


def _note(path: Path) -> Note | None:
    try:
        return _reader().validate_json(path.read_bytes())
    except (OSError, ValueError):  # pydantic's are of this kind
        return None


_reader = cache(lambda: TypeAdapter(Note))

State = Literal["done", "changed", "damaged", "to do"]


def state_of(out: Path, cell: Cell, inputs: Inputs) -> State:
    """Whether a cell is there, made from what it would be made from now, and from what the cells that it needs hold now (a model that is
    trained again from the same need not be the same), with the files that it was made with: "damaged" where one is another by its hash."""
    folder = folder_of(out, cell)
    if not folder.exists():
        return "to do"
    note = note_of(out, cell)
    if note is None:
        return "damaged"
    if note["key"] != key(cell, inputs):
        return "changed"
    if not _is_whole(folder, note):
        return "damaged"
    needed = all(is_done(out, each, inputs) for each in cell.needs) and note["needs"] == _contents(out, cell.needs)
    return "done" if needed else "changed"


def is_done(out: Path, cell: Cell, inputs: Inputs) -> bool:
    return state_of(out, cell, inputs) == "done"


def _is_whole(folder: Path, note: Note) -> bool:
    """Whether a cell's files are those that were noted. They are read once, and again where their time or size is another."""
    noted = note.get("files", {}).items()
    return files_hash(folder.rglob("*.safetensors")) == note["content"] and noted <= _hashes(folder).items()


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files_hash([path], cards=True) for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    """Of a cell, all but its note, and what a desktop or a lock leaves there."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (CELL, "key") and path.name[0] != ".")


def missing_fractions(out: Path, cell: Cell, inputs: Inputs) -> tuple[float, ...]:
    """The shares of neurons that a cell ("ablate", "sets", "patch") is to edit and that the one on disk has not, which differs in nothing
    else from it: its other conditions are taken from there. All where there is no such cell; none of a cell of another kind."""
    made = made_from(cell, inputs) if cell.kind in ("ablate", "sets", "patch") else {}
    wanted = tuple(made.get("fractions", ()))
    note = note_of(out, cell) if wanted else None
    if note is None or "fractions" not in note["made_from"]:
        return wanted
    had = note["made_from"]["fractions"]
    same = note["key"] == key(cell, inputs, made | {"fractions": had}) and note["needs"] == _contents(out, cell.needs)
    if not same or not _is_whole(folder_of(out, cell), note):
        return wanted
    return tuple(fraction for fraction in wanted if fraction not in had)


def kept_scores(out: Path, cell: Cell, inputs: Inputs) -> dict[ModelEdit, Scores]:
    """The conditions that a cell takes from the one on disk: of all its pairs together."""
    wanted = made_from(cell, inputs)["fractions"]
    kept = set(wanted) - set(missing_fractions(out, cell, inputs))
    if not kept:
        return {}
    results = Results.load(folder_of(out, cell) / RUN)
    _, _, by_edit = _recorded(results, cell.name)
    return {edit: scores for edit, scores in by_edit.items() if edit.fraction in kept}


def content_of(out: Path, cell: Cell) -> str:
    """A hash of what a cell holds; "" where it is not done."""
    note = note_of(out, cell)
    return note["content"] if note else ""


def _contents(out: Path, needs: Sequence[Cell]) -> dict[str, str]:
    return {f"{each.kind} {each.name}": content_of(out, each) for each in needs}


def start(out: Path, cell: Cell, inputs: Inputs) -> Path:
    """The folder in which a cell is made: what a training of the same, from the same, left there is kept."""
    scratch = scratch_of(out, cell)
    made, now = scratch / "key", json.dumps([key(cell, inputs), _contents(out, cell.needs)])
    goes_on = cell.kind in ("train", "retrain") and made.exists() and made.read_text(encoding="utf-8") == now
    if not goes_on:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        made.write_text(now, encoding="utf-8")
    return scratch


def finish(out: Path, cell: Cell, inputs: Inputs, *, seconds: float, tokens: int) -> None:
    """Puts a cell in its place by a rename; one that was there gives way whole."""
    scratch, folder = scratch_of(out, cell), folder_of(out, cell)
    note = Note(
        kind=cell.kind,
        name=cell.name,
        key=key(cell, inputs),
        made_from=made_from(cell, inputs),
        needs=_contents(out, cell.needs),
        content=files_hash(scratch.rglob("*.safetensors")),
        files=_hashes(scratch),
        provenance=provenance(seed=cell.seed),
        seconds=round(seconds, 2),
        tokens=tokens,
    )
    (scratch / CELL).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    old = folder.with_name(f".{cell.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    scratch.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def record_edited(results: Results, cell: Cell, scores: Mapping[ModelEdit, Scores], tasks: Mapping[str, str]) -> None:
    """Rewards of one model on the same pairs under several edits, as tensors `chosen` and `rejected` [edit, pair], float64. Of no edits,
    where none can be made, a record that says so."""
    if not scores:
        results.add("study", cell.name, UneditedStudyEntry(model=list(cell.model), edits=[]))
        return
    first = next(iter(scores.values()))
    entry = EditedStudyEntry(
        model=list(cell.model),
        edits=[list(edit) for edit in scores],
        dropped=first.dropped,
        ids=list(first.ids),
        groups=list(first.groups),
        subsets=list(first.subsets),
        prompts=list(first.prompts),
        objectives=list(first.objectives),
        tasks=[tasks[name] for name in first.ids],
    )
    tensors = {side: torch.stack([torch.from_numpy(getattr(each, side)) for each in scores.values()]) for side in ("chosen", "rejected")}
    results.add("study", cell.name, entry, tensors)


def edited_of(results: Results, name: str, tasks: Mapping[str, str]) -> tuple[Model, dict[ModelEdit, dict[str, Scores]]]:
    """The rewards of a cell by edit and sub-task.

    Args:
        tasks: of every pair that was tested, over-long ones included, which are counted as `dropped` of their sub-task.
    """
    model, of_pairs, everything = _recorded(results, name)
    found: dict[ModelEdit, dict[str, Scores]] = {edit: {} for edit in everything}
    tested, places = Counter(tasks.values()), defaultdict(list)
    for i, task in enumerate(of_pairs):
        places[task].append(i)
    for task, index in places.items():
        first = dataclasses.replace(next(iter(everything.values())).take(index), dropped=tested[task] - len(index))
        for edit, scores in everything.items():  # names are shared: there are many edits
            found[edit][task] = dataclasses.replace(first, chosen=scores.chosen[index], rejected=scores.rejected[index])
    return model, found


def _recorded(results: Results, name: str) -> tuple[Model, list[str], dict[ModelEdit, Scores]]:
    """The model of a cell, the sub-task of each of its pairs, and the rewards of all of them by edit."""
    entry = cast(EditedStudyEntry, results.entry("study", name))
    model, edits = Model(*entry["model"]), [ModelEdit(*edit) for edit in entry["edits"]]
    if not edits:  # none could be made
        return model, [], {}
    chosen, rejected = (results.tensor("study", name, side).numpy() for side in ("chosen", "rejected"))
    first = Scores(
        ids=tuple(entry["ids"]),
        chosen=chosen[0],
        rejected=rejected[0],
        groups=tuple(entry["groups"]),
        subsets=tuple(entry["subsets"]),
        dropped=entry["dropped"],
        prompts=tuple(entry["prompts"]),
        objectives=tuple(entry["objectives"]),
    )
    by_edit = {edit: dataclasses.replace(first, chosen=chosen[i], rejected=rejected[i]) for i, edit in enumerate(edits)}
    return model, list(entry["tasks"]), by_edit


def found_of(results: Results, cell: Cell, rankings: Sequence[RankingName]) -> Found:
    """Those of the rankings that a "discover" or a "firing" cell finds; "random" is drawn for each model."""
    own, recorded = discovery_of(results, cell.objective), results.section("discovery")
    if cell.kind == "firing":
        return Found({"entropy": own.ranking("entropy", SITE)})
    found = {name: own.ranking(name, SITE, seed=seed_of_random(cell)) for name in rankings if name != "entropy"}
    beside = {name: own.by_side[SITE, name].mean(0) for name in ("abs_mean", "change_ms")}
    if cell.objective + BF16 in recorded:
        rounded = discovery_of(results, cell.objective + BF16)
        beside |= {name + BF16: rounded.ranking(name, SITE) for name in rankings if (SITE, name) in rounded.by_side}
    return Found(found, beside)


def load_matrix(out: str | Path, inputs: Inputs) -> Matrix:
    """Every cell of a config that is done, and made from what it would be made from now."""
    out, config = Path(out), inputs.config
    scores: dict[tuple[Model, ModelEdit], dict[str, Scores]] = {}
    found: dict[Model, Found] = {}
    for cell in cells(config):
        if cell.kind in ("train", "retrain", "compare") or not is_done(out, cell, inputs):
            continue
        results = Results.load(folder_of(out, cell) / RUN)
        if cell.kind in ("discover", "firing"):
            more, old = found_of(results, cell, config.rankings), found.get(cell.model, Found({}))
            found[cell.model] = Found({**old.rankings, **more.rankings}, {**old.beside, **more.beside})
            continue
        model, by_edit = edited_of(results, cell.name, inputs.tested(*cell.tested).tasks)
        for edit, tasks in by_edit.items():
            scores.setdefault((model, edit), {}).update(tasks)
    return Matrix(scores, found, config.conventions)
