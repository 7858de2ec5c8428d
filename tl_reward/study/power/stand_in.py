"""Which scores could a config's cells hold? Stand-ins on its own rows and prompts, for the width of intervals alone: no model runs.

Where OUT has scores of a condition, its rows are taken in turn for those of the config, all conditions of a row together, so that what is
paired stays paired. Where it has none, a row is right at the stated rate of `expected`, and an edit changes its side at the stated rate, as
often to the right side as to the wrong one.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri

from tl_reward.data.pairs import PreferencePair
from tl_reward.errors import InputError
from tl_reward.measures.scores import Scores
from tl_reward.results.store import Results
from tl_reward.study.benchmarks import by_pairs
from tl_reward.study.compute.cells import NO_EDIT, Cell, cells, draws_of
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.store import RUN, edited_of, folder_of, note_of
from tl_reward.study.config import StudyConfig
from tl_reward.study.expected import ACCURACY, CHANGED, CHANGED_AT_RANDOM, LEVEL, SEEDS_ALIKE
from tl_reward.study.findings.set_ablations import SETS
from tl_reward.study.matrix import Found, Matrix, Model, ModelEdit

Condition = tuple[Model, ModelEdit]
Place = tuple[str, str]  # a test and, of an objective's own pairs, the objective
Held = Mapping[Place, Mapping[Condition, Mapping[str, Scores]]]
_LAYERS, _WIDTH = 30, 100  # of rankings that stand in for those of a model


class StandIn(NamedTuple):
    """A matrix of stand-ins, and one of the scores at hand, whatever config they are of."""

    matrix: Matrix
    at_hand: Matrix


def stand_in(inputs: Inputs, out: Path) -> StandIn:
    config, held = inputs.config, _held(inputs, out)
    scores: dict[Condition, dict[str, Scores]] = {}
    found: dict[Model, Found] = {}
    for cell in cells(config):
        if cell.kind == "discover":
            found[cell.model] = _ranked(config)
        for edit in edits_of(cell, config):
            made = _of_condition(cell, edit, inputs, held)
            scores.setdefault((cell.model, edit), {}).update(made)
    at_hand: dict[Condition, dict[str, Scores]] = {}
    for conditions in held.values():
        for condition, tasks in conditions.items():
            at_hand.setdefault(condition, {}).update(tasks)
    return StandIn(Matrix(scores, found, config.conventions), Matrix(at_hand))


def edits_of(cell: Cell, config: StudyConfig) -> list[ModelEdit]:
    """Those that claims are about. Beside more than half of all neurons there is no room for random ones."""
    if cell.kind == "score" and cell.edit == NO_EDIT:
        return [NO_EDIT]
    if cell.kind == "sets":
        return [ModelEdit("set", name, fraction) for fraction in config.set_fractions for name in SETS]
    if cell.kind != "ablate":
        return []
    tops = [ModelEdit("top", cell.ranking, fraction) for fraction in config.fractions]
    draws = range(draws_of(cell, config))
    return tops + [ModelEdit("random", f"{cell.ranking} {i}", fraction) for fraction in config.fractions if fraction <= 0.5 for i in draws]


def _ranked(config: StudyConfig) -> Found:
    """What claims about neurons ask for is there; which neurons they are says nothing."""
    return Found({name: torch.rand(_LAYERS, _WIDTH, generator=torch.Generator().manual_seed(0)) for name in config.rankings})


def _held(inputs: Inputs, out: Path) -> Held:
    """The scores of cells that were made for this config or for one before it; those that cannot be read are left out."""
    held: dict[Place, dict[Condition, dict[str, Scores]]] = defaultdict(lambda: defaultdict(dict))
    for cell in cells(inputs.config):
        if cell.kind not in ("score", "ablate", "sets") or cell.edit != NO_EDIT or note_of(out, cell) is None:
            continue
        try:
            model, by_edit = edited_of(Results.load(folder_of(out, cell) / RUN), cell.name, {})
        except (InputError, OSError, KeyError, ValueError):
            continue
        for edit, tasks in by_edit.items():
            held[cell.tested[:2]][model, edit].update(tasks)
    return held


def _of_condition(cell: Cell, edit: ModelEdit, inputs: Inputs, held: Held) -> Iterator[tuple[str, Scores]]:
    """By sub-task, the scores of a model under an edit."""
    test, objective, _ = cell.tested
    known = held.get((test, objective), {})
    by_task: dict[str, list[PreferencePair]] = defaultdict(list)
    tested = inputs.tested(*cell.tested)
    for pair in tested.pairs:
        by_task[tested.tasks[pair.id]].append(pair)
    edited = inputs.tested(test, objective, inputs.config.limits.edited.get(test) != 0)
    for task, pairs in by_task.items():
        row_of = [pair.group or pair.id for pair in pairs]
        among = dict.fromkeys(pair.group or pair.id for pair in edited.pairs if edited.tasks[pair.id] == task)
        source = _sources([*dict.fromkeys(row_of)], [*among], [scores[task] for scores in _of_task(known, task, edits=True)],
                          [scores[task] for scores in _of_task(known, task, edits=False)])  # fmt: skip
        names = row_of if not by_pairs(task) else [pair.id for pair in pairs]
        mine, clean = (known.get((cell.model, each), {}).get(task) for each in (edit, NO_EDIT))
        rights, levels = _right(cell.model, names), _level(cell.model, row_of)
        if clean is not None and source:
            rights, levels = _taken(clean, row_of, source, rights, levels)
        if mine is not None and source:
            rights, levels = _taken(mine, row_of, source, rights, levels)
        elif edit != NO_EDIT:
            rights = _changed(cell.model, edit, names, rights)
        margin = np.where(rights, 1.0, -1.0) * (0.5 + _uniform(f"size {cell.model}", names))
        yield task, Scores.of(pairs, (levels + margin / 2).tolist(), (levels - margin / 2).tolist())


def _of_task(known: Mapping[Condition, Mapping[str, Scores]], task: str, *, edits: bool) -> list[Mapping[str, Scores]]:
    return [tasks for (_, edit), tasks in known.items() if task in tasks and (edit != NO_EDIT) is edits]


def _sources(rows: Sequence[str], edited: Sequence[str], of_edits: Sequence[Scores], of_models: Sequence[Scores]) -> dict[str, str]:
    """By row of the config the row at hand that stands for it; nothing where there are none. Rows that edited models are tested on have one
    that was tested under edits, where there are such."""
    shared = [[*dict.fromkeys(row for row in each[0].groups if all(row in one.groups for one in each))] for each in (of_models, of_edits)
              if each]  # fmt: skip
    if not shared or not shared[0]:
        return {}
    plain, under = shared[0], (shared[-1] or shared[0])
    inside = {row: under[i % len(under)] for i, row in enumerate(edited)}
    return {row: inside.get(row, plain[i % len(plain)]) for i, row in enumerate(rows)}


def _taken(
    scores: Scores, rows: Sequence[str], source: Mapping[str, str], rights: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Of each pair whether it is right, and its level; a row with other pairs than the one that stands for it has these in turn."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(scores.groups):
        places[group].append(i)
    rights, levels, seen = rights.copy(), levels.copy(), defaultdict[str, int](int)
    for i, row in enumerate(rows):
        here = places.get(source[row])
        if here:
            j = here[seen[row] % len(here)]
            rights[i], levels[i] = scores.chosen[j] > scores.rejected[j], (scores.chosen[j] + scores.rejected[j]) / 2
        seen[row] += 1
    return rights, levels


def _right(model: Model, names: Sequence[str]) -> np.ndarray:
    return _of_seed("right", model, names) < ACCURACY


def _level(model: Model, rows: Sequence[str]) -> np.ndarray:
    return LEVEL * ndtri(_of_seed("level", model, rows))


def _changed(model: Model, edit: ModelEdit, names: Sequence[str], rights: np.ndarray) -> np.ndarray:
    """Sides change as often to the right as to the wrong one, so that accuracy stays about what it is."""
    share = CHANGED_AT_RANDOM if edit.kind == "random" or edit.name == "random" else CHANGED
    right = float(np.clip(rights.mean(), 0.05, 0.95))
    rate = np.where(rights, share / 2 / right, share / 2 / (1 - right))
    return rights ^ (_of_seed(f"changed {edit}", model, names) < rate)


def _of_seed(salt: str, model: Model, names: Sequence[str]) -> np.ndarray:
    """As `_uniform`; of most names the same for models that differ in their seed alone."""
    kind, own = f"{salt} {model.base} {model.objective}", f"{salt} {model}"
    return np.where(_uniform(f"alike {kind}", names) < SEEDS_ALIKE, _uniform(kind, names), _uniform(own, names))


def _uniform(salt: str, names: Sequence[str]) -> np.ndarray:
    """In (0, 1), of each name always the same; of equal names the same."""

    def of(name: str) -> float:
        digest = hashlib.blake2b(f"{salt} {name}".encode("utf-8", "surrogatepass"), digest_size=6).digest()
        return (int.from_bytes(digest, "big") + 0.5) / 2**48

    return np.array([*map(of, names)])
