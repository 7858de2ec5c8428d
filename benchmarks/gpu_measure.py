"""Time, memory and limits of work on a GPU, and what it asks of the device: attention calls, batches, and waits for it."""

import gc
import signal
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from tl_reward.data.batches.packing import PackedBatch
from tl_reward.model.layers import kernels
from tl_reward.model.layers.attention import FusedAttention

STEP = 40.0  # seconds that a step may take at most
STEADY = 3  # warm runs


class Timing(NamedTuple):
    first: float
    steady: float
    runs: int
    peak_gib: float

    def rounded(self) -> dict[str, float]:
        return {key: float(f"{value:.4g}") for key, value in self._asdict().items()}


class TooLong(Exception):
    """A step took longer than its limit."""


def timed(run: Callable[[], Any], device: torch.device, end: float) -> Timing:
    """The first run, and the median of three more, or of as many as there is time for."""
    freed(device)
    start = time.monotonic()
    first = once(run, device)
    times = [once(run, device)]
    while len(times) < STEADY and time.monotonic() + 1.2 * times[-1] < min(end, start + 0.9 * STEP):
        times.append(once(run, device))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0  # not looked at
    return Timing(first, statistics.median(times), len(times), peak)


def once(run: Callable[[], Any], device: torch.device) -> float:
    finished(device)
    start = time.perf_counter()
    run()
    finished(device)
    return time.perf_counter() - start


def finished(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def freed(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Stops what runs within after so many seconds. Windows, and other threads, have no such signal: there it
    ends when it ends."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise TooLong(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Counts(NamedTuple):
    """`attention_calls_a_layer`: forward calls of torch's attention for each batch that passes a layer; 1 is the fewest. `waits_a_batch`:
    where the CPU waited for the GPU, by torch's own count; None on a CPU."""

    batches: int
    tokens_computed: int
    attention_calls_a_layer: float
    waits_a_batch: float | None


def counts_of(run: Callable[[], Any], device: torch.device) -> Counts:
    moved: list[int] = []
    with waits(device) as waited, counted(PackedBatch, "to", lambda batch: moved.append(batch.tokens.numel())):
        passed, calls = [0], [0]
        with (
            counted(FusedAttention, "_fused", lambda *_: add(passed)),
            counted(F, "scaled_dot_product_attention", lambda *_: add(calls)),
            counted(kernels, "varlen_attn", lambda *_: add(calls)),
        ):
            run()
    a_batch = len(waited) / max(1, len(moved)) if device.type == "cuda" else None
    return Counts(len(moved), sum(moved), round(calls[0] / max(1, passed[0]), 3), a_batch)


def add(count: list[int]) -> None:
    count[0] += 1


@contextmanager
def counted(owner: Any, name: str, seen: Callable[..., None]) -> Iterator[None]:
    before = getattr(owner, name)
    if before is None:  # torch has none
        yield
        return

    @wraps(before)
    def call(*args: Any, **options: Any) -> Any:
        seen(args[0])
        return before(*args, **options)

    setattr(owner, name, call)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def waits(device: torch.device) -> Iterator[list[str]]:
    """The places at which torch says that it waits for a GPU."""
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found += [str(warning.message) for warning in seen if "synchroniz" in str(warning.message)]
