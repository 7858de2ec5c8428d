"""Time, memory and growth of functions that run side by side in one process."""

import ctypes
import gc
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil
import torch


def seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(works: Mapping[str, Callable[[], Any]], times: int) -> dict[str, list[float]]:
    """Runs each work `times` times, in turns: what else the machine does then hits all of them alike."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(times):
        for name, work in works.items():
            taken[name].append(seconds(work))
    return taken


def ratio(upper: Sequence[float], lower: Sequence[float], target: str) -> dict[str, Any]:
    """The median of the ratios of neighbours in time, and their spread."""
    ratios = [a / b for a, b in zip(upper, lower, strict=True)]
    return {"ratio": round(statistics.median(ratios), 3), "low": round(min(ratios), 3), "high": round(max(ratios), 3), "target": target}


def fastest(work: Callable[[int], Any], choices: Sequence[int]) -> int:
    """The batch size with which a peer is fastest, each tried once after a first call that warms it up."""
    work(choices[0])
    return min(choices, key=lambda choice: seconds(lambda: work(choice)))


def peak_memory(work: Callable[[], Any]) -> float:
    """GiB that the process grows by at most while the work runs, looked at every 5 ms."""
    process, stop = psutil.Process(), threading.Event()
    _return_free_memory()
    before = process.memory_info().rss
    most = [before]

    def watch() -> None:
        while not stop.wait(0.005):
            most[0] = max(most[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        stop.set()
        watcher.join()
    return (most[0] - before) / 2**30


def _return_free_memory() -> None:
    """Hands the allocator's free blocks back to the system (glibc), so that growth starts from what is really in use."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def matrix_product_peak(d_in: int, d_out: int, dtype: torch.dtype, *, tokens: int = 1024) -> float:
    """GFLOP/s of the matrix product that the model spends most on, by itself: the best of 20."""
    x, w = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_out, d_in, dtype=dtype)
    with torch.inference_mode():
        best = min(seconds(lambda: torch.nn.functional.linear(x, w)) for _ in range(20))
    return 2 * tokens * d_in * d_out / best / 1e9


def exponent(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The slope of log time over log size: 1 is linear growth."""
    xs, ys = [math.log(size) for size in sizes], [math.log(value) for value in times]
    return round(statistics.linear_regression(xs, ys).slope, 2)
