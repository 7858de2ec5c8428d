"""How is a reproduction run? The cells that are not done, in their order or side by side, and then its report."""

import dataclasses
import json
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tl_reward import parallel
from tl_reward.errors import InputError
from tl_reward.parallel import locked
from tl_reward.results.provenance import provenance
from tl_reward.study.compute.cells import cells
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.plan import Sizes, plan, problems, slow_precision
from tl_reward.study.compute.progress import Display
from tl_reward.study.compute.side_by_side import compute
from tl_reward.study.compute.store import is_done, load_matrix, note_of
from tl_reward.study.config import StudyConfig
from tl_reward.study.findings.claims import claims
from tl_reward.study.report.all_tables import tables_of
from tl_reward.study.report.write import write_report


def reproduce(config: StudyConfig, out: str | Path, *, data: str | Path | None = None, jobs: int = 1) -> Path:
    """Computes every cell that is not done under OUT/cells, and writes the report; returns its path.

    A run that was cut short goes on where it was, and reports the same (to rounding, where it goes on with other threads). A cell whose
    part of the config, pairs or models changed is computed again, and those after it.

    Args:
        data: the folder that `$DATA` of the config stands for.
        jobs: processes that compute cells side by side; fewer where memory has no room for them.

    Raises:
        InputError: before anything runs, with all that is missing; `jobs` below 1. OutOfMemory, which is one: at the end, where a cell has
            too little memory alone as well. All others are done then, but for those that need it.
    """
    parallel.require_one("reproduce")
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, got {jobs}")
    out, inputs = Path(out), Inputs(config, data)
    missing = problems(inputs)
    if missing:
        raise InputError("; ".join(missing))
    if said := slow_precision(config):
        warnings.warn(said, stacklevel=2)
    with _alone(out):
        return _run(inputs, out, jobs)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Raises InputError where another process is at work in the folder. The lock goes with the process that holds it; the empty file stays.
    Some file systems have no locks: there the user is told to see to it."""
    out.mkdir(parents=True, exist_ok=True)
    busy = f"{out}: another reproduction is at work there; wait for it, or give another --out"
    with locked(out / ".lock", busy=busy, wait=0) as why:
        if why is not None:
            warnings.warn(f"{out}: the folder cannot be locked ({why}); start no second reproduction there meanwhile", stacklevel=2)
        yield


def _run(inputs: Inputs, out: Path, jobs: int) -> Path:
    planned = plan(Sizes(inputs, out))
    left = [each for each in planned if not each.done]
    with Display(planned) as display:
        compute(left, out, inputs, jobs, display)
    return report_of_done(inputs, out)


def report_of_done(inputs: Inputs, out: Path) -> Path:
    """The report of all cells that are done. It says nothing of when and how often it was started: the same cells give the same report."""
    matrix = load_matrix(out, inputs)
    made = [_made(note["provenance"]) for cell in cells(inputs.config) if is_done(out, cell, inputs) and (note := note_of(out, cell))]
    about = {
        "Cells": "\n".join(f"{count} {with_}" for with_, count in Counter(made).items()) or "none",
        "Report": _made(provenance()),
        "Config": "\n".join(f"{name}: {json.dumps(value)}" for name, value in _plain(dataclasses.asdict(inputs.config)).items()),
    }
    return write_report(matrix, tables_of(matrix), claims(matrix), out, about)


def _made(by: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in by["versions"].items() if number)
    return f"at commit {by['commit'] or 'unknown'}, with {versions}, on {by['machine']}"


def _plain(value: Any) -> Any:
    """What was given: without the keys that were not, and a training's seed, which comes from `seeds`."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None and key != "seed"}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
