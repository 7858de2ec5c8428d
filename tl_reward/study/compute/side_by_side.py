"""Runs cells, each as soon as those it needs are done. One that runs out of memory, or whose process is killed, is tried again alone, after
the others, and takes nothing of theirs with it."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import NamedTuple

import torch

from tl_reward import parallel
from tl_reward.devices import free_bytes
from tl_reward.errors import OutOfMemory, first_line, is_out_of_memory
from tl_reward.show.console import quiet
from tl_reward.study.compute.cells import Cell
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.compute.memory import bytes_of, device_of_cells, jobs_that_fit, what_helps
from tl_reward.study.compute.plan import Planned
from tl_reward.study.compute.progress import Display
from tl_reward.study.compute.work import forget, make
from tl_reward.study.config import StudyConfig


class Failed(NamedTuple):
    """A cell that is not done, and why: memory, or its process ended. `free`: bytes, before it was begun."""

    planned: Planned
    why: str
    free: int


def compute(left: Sequence[Planned], out: Path, inputs: Inputs, jobs: int, display: Display) -> None:
    """Computes cells that are not done. Of several jobs each is a process of its own, and there are no more than memory has room for.

    Raises:
        OutOfMemory: at the end, where a cell had too little memory alone as well, or its process was killed again; all others are done, but
            for those that need it. Any other error of a cell is raised at once; cells that run beside it are still done, and kept.
    """
    alone = _jobs(out, inputs, 1) if jobs > 1 else _here(out, inputs)
    beside = _jobs(out, inputs, _capped(left, inputs, jobs, display)) if jobs > 1 else alone
    waiting, unfinished, failed = list(left), {each.cell for each in left}, list[Failed]()
    while waiting:
        aside = _run(waiting, unfinished, beside, display)
        if not aside:
            break
        put = {each.planned.cell for each in aside}
        waiting = [each for each in waiting if each.cell in unfinished - put]
        for each in aside:
            display.say(f"{each.planned.cell.kind} {each.planned.cell.name} is tried again alone: {each.why}")
            failed += _run([each.planned], unfinished, alone, display)
    if failed:
        raise OutOfMemory(_told(failed, len(left) - len(unfinished), len(unfinished) - len(failed), inputs))


def _capped(left: Sequence[Planned], inputs: Inputs, jobs: int, display: Display) -> int:
    device = device_of_cells()
    free = free_bytes(device)
    fit, dearest = jobs_that_fit([each.cell for each in left], inputs, jobs, free)
    if dearest is not None:
        size = bytes_of(dearest, inputs) or 0
        display.say(
            f"{fit} of {jobs} jobs: a {dearest.kind} cell of {dearest.base} takes {size / 2**30:.1f} GiB or more, "
            f"and {free / 2**30:.1f} GiB are free on {device}"
        )
    return fit


def _told(failed: Sequence[Failed], done: int, wait_for_them: int, inputs: Inputs) -> str:
    first, *others = (each.planned.cell for each in failed)
    too = f" (likewise {'; '.join(f'{each.kind} {each.name}' for each in others)})" if others else ""
    return (
        f"{first.kind} {first.name}{too} failed, alone as well, with {failed[0].free / 2**30:.3g} GiB free on {device_of_cells()}: "
        f"{failed[0].why}; {what_helps(first, inputs)}; {done} other cells were done now and are kept, {wait_for_them} wait for it"
    )


class _Here:
    """This process, as a worker."""

    def __init__(self, out: Path, inputs: Inputs) -> None:
        self.out, self.inputs = out, inputs

    def submit(self, each: Planned) -> Future[None]:
        future = Future[None]()
        try:
            future.set_result(_make_or_say(each.cell, self.out, self.inputs, each.tokens))
        except Exception as error:
            future.set_exception(error)
        return future

    def check_started(self) -> None:
        pass

    def close(self, *, now: bool) -> None:
        pass


class _Process:
    """A process that computes one cell after the other. Each is a pool of its own: one that loses a process ends all of its others."""

    def __init__(self, out: Path, inputs: Inputs, jobs: int, room: int) -> None:
        self.out, context = out, multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_begin, initargs=(inputs.config, inputs.data, jobs, room))
        self._started = self._pool.submit(os.getpid)

    def submit(self, each: Planned) -> Future[None]:
        try:
            return self._pool.submit(_make, each.cell, self.out, each.tokens)
        except BrokenProcessPool as error:  # it was killed between two cells
            failed = Future[None]()
            failed.set_exception(error)
            return failed

    def check_started(self) -> None:
        """Raises the error of a process that did not come as far as its first cell: another would not either."""
        self._started.result()

    def close(self, *, now: bool) -> None:
        self._pool.shutdown(wait=not now, cancel_futures=now)


class _Workers(NamedTuple):
    """How many there are, and how one of them is started."""

    jobs: int
    start: Callable[[], _Here | _Process]


def _here(out: Path, inputs: Inputs) -> _Workers:
    return _Workers(1, lambda: _Here(out, inputs))


def _jobs(out: Path, inputs: Inputs, jobs: int) -> _Workers:
    room = free_bytes(device_of_cells()) // jobs
    return _Workers(jobs, lambda: _Process(out, inputs, jobs, room))


def _run(cells: Sequence[Planned], unfinished: set[Cell], workers: _Workers, display: Display) -> list[Failed]:
    """Runs each as soon as those it needs are done, and takes them out of `unfinished`; gives those that memory was too short for."""
    waiting, aside, free = list(cells), list[Failed](), free_bytes(device_of_cells())
    idle, running = (
        [workers.start() for _ in range(min(workers.jobs, len(waiting)))],
        dict[Future[None], tuple[Planned, _Here | _Process]](),
    )
    try:
        while True:
            for each in [each for each in waiting if not unfinished & set(each.cell.needs)][: len(idle)]:
                waiting.remove(each)
                display.start(each.cell)
                worker = idle.pop()
                running[worker.submit(each)] = (each, worker)
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                each, worker = running.pop(future)
                why = _why_aside(future, worker)
                if why is None:
                    unfinished.remove(each.cell)
                    display.end(each.cell)
                    idle.append(worker)
                else:
                    aside.append(Failed(each, why, free))
                    worker.close(now=True)
                    idle.append(workers.start())
    except BaseException:
        for worker in [*idle, *(worker for _, worker in running.values())]:
            worker.close(now=True)
        raise
    for worker in idle:
        worker.close(now=False)
    return aside


def _why_aside(future: Future[None], worker: _Here | _Process) -> str | None:
    """None of a cell that is done. Raises what its computing raised, but for a lack of memory."""
    try:
        future.result()
    except OutOfMemory as error:
        return str(error)
    except BrokenProcessPool:
        worker.check_started()
        return "its process was ended from outside, as the system does where memory runs out"
    return None


_inputs: Inputs | None = None  # of a worker process


def _begin(config: StudyConfig, data: str | Path | None, jobs: int, room: int) -> None:
    global _inputs
    _inputs = Inputs(config, data)
    quiet()
    parallel.keep_to(room)
    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        wait_for([parent.sentinel])
        os._exit(1)  # what it was at is done again: nobody would wait for it

    threading.Thread(target=end_with_parent, daemon=True).start()


def _make(cell: Cell, out: Path, tokens: int) -> None:
    assert _inputs is not None
    _make_or_say(cell, out, _inputs, tokens)


def _make_or_say(cell: Cell, out: Path, inputs: Inputs, tokens: int) -> None:
    """Raises OutOfMemory where memory runs out; whatever was held for the cell, and for the next ones, is let go."""
    try:
        make(cell, out, inputs, tokens=tokens)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        why = first_line(error)
    else:
        return
    forget()
    raise OutOfMemory(why)
