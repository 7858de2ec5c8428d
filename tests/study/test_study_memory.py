"""Cells side by side: how many memory has room for, one that runs out of it, and a process that is killed. With stand-ins for the work."""

import dataclasses
import multiprocessing
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from io import StringIO

import pytest
from helpers import study_workers
from helpers.study_runs import make_data, table
from rich.console import Console

from tl_reward import devices, parallel
from tl_reward.errors import InputError, OutOfMemory
from tl_reward.study.compute import memory, side_by_side
from tl_reward.study.compute.cells import Cell, cells
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.plan import Planned
from tl_reward.study.compute.progress import Display
from tl_reward.study.config import parse_config


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("study"))


def small(data) -> Inputs:
    alone = {"objectives": ["helpful", "harmless"], "rankings": ["mean"], "set_fractions": [], "patch_fractions": [], "retrain": {}}
    return Inputs(parse_config(table(data) | alone | {"benchmarks": {}}), data)


def size_of(cell: Cell, inputs: Inputs) -> int:
    size = memory.bytes_of(cell, inputs)
    assert size is not None
    return size


class Run:
    """All cells of a small study, computed with a stand-in for `make`."""

    def __init__(self, inputs: Inputs, out, jobs: int) -> None:
        printed, self.out = StringIO(), out
        self.planned = [Planned(cell, "to do", 10, 1.0) for cell in cells(inputs.config)]
        self.error: OutOfMemory | None = None
        with Display(self.planned, Console(file=printed, width=500)) as display:
            try:
                side_by_side.compute(self.planned, out, inputs, jobs, display)
            except OutOfMemory as error:
                self.error = error
        self.printed = printed.getvalue()
        self.tried = [path.read_text() for path in sorted(out.glob("tried*"), key=lambda path: path.stat().st_mtime_ns)]
        self.done = {path.read_text() for path in out.glob("done*")}


def named(kind: str, objective: str) -> str:
    return f"{kind} tiny, {objective}, 0"


@pytest.fixture
def stand_in(monkeypatch, tmp_path):
    """Sets what the stand-in does with one cell, in this process and in workers."""

    def use(**settings: str) -> None:
        for name, value in settings.items():
            monkeypatch.setenv(f"STAND_IN_{name}", value)

    context = multiprocessing.get_context("fork")  # which starts in no time, and knows what is set here
    monkeypatch.setattr(side_by_side.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(side_by_side, "make", study_workers.make)
    monkeypatch.setattr(side_by_side, "_begin", study_workers.begin)
    return use


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_runs_out_of_memory_beside_others_is_done_alone(data, tmp_path, stand_in, jobs):
    stand_in(CELL=named("train", "helpful"), HOW="memory", TIMES="1")
    run = Run(small(data), tmp_path, jobs)
    assert run.error is None and run.done == {f"{each.cell.kind} {each.cell.name}" for each in run.planned}
    assert "train tiny, helpful, 0 is tried again alone: CUDA out of memory. Tried to allocate 9.00 GiB." in run.printed
    again = len(run.tried) - 1 - run.tried[::-1].index(named("train", "helpful"))
    of_harmless = [i for i, cell in enumerate(run.tried) if ", harmless," in cell]
    assert max(of_harmless) < again < run.tried.index(named("discover", "helpful"))  # after the others, before those that need it
    assert len(run.tried) == len(run.planned) + 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_that_does_not_fit_alone_takes_no_other_with_it(data, tmp_path, stand_in, jobs):
    stand_in(CELL=named("train", "helpful"), HOW="memory", TIMES="9")
    run = Run(small(data), tmp_path, jobs)
    others = {f"{each.cell.kind} {each.cell.name}" for each in run.planned if each.cell.objective == "harmless"}
    assert run.done == others and len(others) == 4 and run.tried.count(named("train", "helpful")) == 2
    said = str(run.error)
    assert len(said.splitlines()) == 1
    for part in (
        "train tiny, helpful, 0 failed, alone as well, with",
        "GiB free on cpu: CUDA out of memory",
        "a smaller training.max_length or more free memory would help",
        "4 other cells were done now and are kept, 4 wait for it",
    ):
        assert part in said


@pytest.mark.parametrize("times", ["1", "9"])
def test_a_killed_process_takes_no_other_cell_with_it(data, tmp_path, stand_in, times):
    """The other one's work goes on: it is begun before, ends after, and is tried once."""
    stand_in(CELL=named("train", "helpful"), HOW="kill", TIMES=times, SLOW=named("train", "harmless"))
    run = Run(small(data), tmp_path, 2)
    assert run.tried.count(named("train", "harmless")) == 1 and run.tried.count(named("train", "helpful")) == 2
    if times == "1":
        assert run.error is None and len(run.done) == len(run.planned)
    else:
        assert len(run.done) == 4 and "its process was ended from outside, as the system does where memory runs out" in str(run.error)


def test_workers_that_cannot_start_end_the_run_at_once(data, tmp_path, stand_in):
    stand_in(HOW="no start")
    with pytest.raises(BrokenProcessPool):
        Run(small(data), tmp_path, 2)
    assert not list(tmp_path.glob("tried*"))


def test_a_process_that_is_killed_between_two_cells_is_seen_at_the_next(data, tmp_path, stand_in):
    inputs = small(data)
    worker = side_by_side._Process(tmp_path, inputs, 1, 2**40)
    os.kill(worker._started.result(), signal.SIGKILL)
    while not vars(worker._pool)["_broken"]:
        time.sleep(0.01)
    future = worker.submit(Planned(cells(inputs.config)[0], "to do", 10, 1.0))
    assert side_by_side._why_aside(future, worker) is not None


def test_any_other_error_is_raised_as_it_is(data, tmp_path, stand_in):
    stand_in(CELL=named("train", "helpful"), HOW="input", TIMES="1")
    for jobs in (1, 2):
        with pytest.raises(InputError, match=r"^the training diverged$") as caught:
            Run(small(data), tmp_path / str(jobs), jobs)
        assert not isinstance(caught.value, OutOfMemory)


def test_jobs_are_as_many_as_memory_has_room_for(data, tmp_path, monkeypatch):
    inputs = small(data)
    every = cells(inputs.config)
    size = {cell.kind: size_of(cell, inputs) for cell in every}
    assert size["train"] > size["score"] == size["discover"] > size["compare"] > 2**29
    for room, jobs in ((9 * size["train"], 7), (7 * size["train"], 7), (7 * size["train"] - 1, 6), (3 * size["train"], 3), (1, 1)):
        fit, dearest = memory.jobs_that_fit(every, inputs, 7, room)
        assert fit == jobs and (dearest is None) == (jobs == 7)
        assert dearest is None or dearest.kind == "train"
    scores = [cell for cell in every if cell.kind == "score"]
    assert memory.jobs_that_fit(scores, inputs, 7, 7 * size["score"]) == (7, None)
    elsewhere = dataclasses.replace(scores[0], base="hub")
    monkeypatch.setattr(memory, "bytes_of", lambda cell, inputs: None)
    assert memory.jobs_that_fit([elsewhere], inputs, 7, 1) == (7, None)  # nothing is known of it


def test_a_larger_model_takes_more(data, real_base):
    """An embedded base of 135 million weights, against the 18 GB that training it took in one pass."""
    tables = table(data) | {"bases": [{"name": "smol", "source": "smollm2-135m-instruct"}], "rankings": ["mean"]}
    for method, least, most in (("full", 4, 9), ("lora", 2, 5)):
        training = tables["training"] | {"method": method, "max_length": 320}
        inputs = Inputs(parse_config(tables | {"training": training, "seeds": [1]}), data)
        size = size_of(next(cell for cell in cells(inputs.config) if cell.kind == "train"), inputs)
        assert least < size / 2**30 < most
        assert f'method = "{"lora"}"' in memory.what_helps(Cell("train", "smol", 1), inputs) or method == "lora"


def test_the_cap_is_said_in_one_line_and_each_process_keeps_to_its_share(data, tmp_path, stand_in, monkeypatch):
    inputs = small(data)
    size = size_of(cells(inputs.config)[0], inputs)
    monkeypatch.setattr(side_by_side, "free_bytes", lambda device: 2 * size + 5)
    stand_in(HOW="share")
    run = Run(inputs, tmp_path, 7)
    (line,) = [line for line in run.printed.splitlines() if "jobs" in line]
    assert line == f"2 of 7 jobs: a train cell of tiny takes {size / 2**30:.1f} GiB or more, and {2 * size / 2**30:.1f} GiB are free on cpu"
    assert {path.read_text() for path in tmp_path.glob("share*")} == {str((2 * size + 5) // 2)}


def test_a_process_takes_no_more_than_its_room(monkeypatch):
    free = devices.free_bytes("cpu")
    assert free > 2**28
    monkeypatch.setattr(parallel, "_room", None)
    parallel.keep_to(10 * 2**40)
    assert devices.free_bytes("cpu") < 10 * 2**40
    parallel.keep_to(2**20)
    assert devices.free_bytes("cpu") == 0  # it has taken more than that already
