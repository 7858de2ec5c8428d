"""Which devices there are, what is free on each and what is said where that is not enough, and sums that stay on one until they are
read."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError, OutOfMemory, is_out_of_memory

_WANTED = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]i?B)", re.IGNORECASE)
_UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_KINDS = ("cpu", "cuda", "mps")


class Memory(NamedTuple):
    """Bytes on a device: `free` for this process, of `total`."""

    free: int
    total: int


def check_device(device: str | torch.device | None, dtype: torch.dtype | None = None) -> None:
    """Says no before weights are read: raises InputError for a device that is not here, or cannot hold this type."""
    if device is None:
        return
    here = ", ".join(found := devices())
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"no device {device!r}; there is {here}") from None
    if wanted.type not in (*_KINDS, *found):
        raise InputError(f"no device {str(device)!r}: models run on {', '.join(_KINDS)}; there is {here}")
    if not any(wanted.type == each.type and wanted.index in (None, each.index or 0) for each in map(torch.device, found)):
        unable = wanted.type == "cuda" and not torch.backends.cuda.is_built()
        why = f" (torch {torch.__version__} is built without CUDA)" if unable else ""
        raise InputError(f"no device {str(device)!r} on this machine; there is {here}{why}")
    if wanted.type == "mps" and dtype is torch.float64:
        raise InputError("mps computes no float64; choose float32, or the device cpu")


def devices() -> list[str]:
    """The devices of this machine that models run on."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps]


def memory_on(device: str | torch.device) -> Memory:
    """What is free on a device, and how much there is.

    On a CPU within the limit of the process' control group, if it has one. Where several processes run on this machine
    (`parallel`), each has its share. What torch holds on a GPU and does not use is free: it will use it again.
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Memory(free // ceil(parallel.on_this_machine() / torch.cuda.device_count()) + cached, total)
    host = psutil.virtual_memory()
    free = min([host.available, *_cgroup_rooms()]) // parallel.on_this_machine()
    if device.type == "mps" and hasattr(torch.mps, "recommended_max_memory"):  # of the host's own memory; torch 2.5
        total = torch.mps.recommended_max_memory()
        return Memory(max(0, min(free, total - torch.mps.current_allocated_memory())), total)
    return Memory(free, host.total)


def free_bytes(device: str | torch.device) -> int:
    """Bytes that this process may still take on a device: what is free there, and no more than is left of `parallel.room`, where that is
    set."""
    free, room = memory_on(device).free, parallel.room()
    if room is None:
        return free
    on_card = torch.device(device).type == "cuda"
    own = torch.cuda.memory_allocated(device) if on_card else psutil.Process().memory_info().rss
    return max(0, min(free, room - own))


def _cgroup_rooms(root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What the control group's limit leaves, for versions 2 and 1. Files that it has in its cache can go, and count as free."""
    rooms = []
    for limit, used, statistics in (
        ("memory.max", "memory.current", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
    ):
        try:
            cached = dict(line.split() for line in (root / statistics).read_text().splitlines()).get("inactive_file", "0")
            rooms.append(int((root / limit).read_text()) - int((root / used).read_text()) + int(cached))
        except (OSError, ValueError):  # no such group, or a limit of "max"
            continue
    return rooms


def has_bf16() -> bool:
    """Whether torch has kernels for bfloat16 on the GPU, or on the CPU where there is none (of x86, those with AVX-512 or AMX). Without
    them a CPU multiplies it several times slower than float32."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_fits(name: str, numbers: int, dtype: torch.dtype, device: str | torch.device) -> None:
    """Says no before weights are read: raises OutOfMemory where a model of so many numbers has no room on a device."""
    bits = torch.finfo(dtype).bits
    free = free_bytes(device)
    if numbers * bits // 8 <= free:
        return
    at = torch.device(device)
    room = {str(device): free} | {each: free_bytes(each) for each in devices() if torch.device(each).type != at.type}
    fits = [
        f"{_short(each)} on {where}"
        for where, bytes_free in room.items()
        for each in dict.fromkeys((dtype, torch.bfloat16))
        if numbers * min(bits, torch.finfo(each).bits) // 8 <= bytes_free
    ]
    would = f"what would fit: {' or '.join(fits)}" if fits else "it fits on no device of this machine"
    wanted = f"{gib(numbers * bits // 8)} in {_short(dtype)}"
    raise OutOfMemory(f"{name}: its weights take {wanted}, and {gib(free)} are free on {device}; {would}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def says_what_was_free(what: str, device: str | torch.device = "cpu", *, helps: str) -> Iterator[None]:
    """Says in one line that memory ran out: what was wanted, what there was, and what helps.

    Raises:
        OutOfMemory: in the place of torch's error, or of Python's.
    """
    try:
        yield
    except OutOfMemory:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        found = _WANTED.search(str(error))
        wanted = f"{gib(int(float(found[1]) * 2 ** _UNITS[found[2][0].lower()]))} more were wanted, and " if found else ""
        have = memory_on(device)
        line = f"{what}: out of memory on {device}: {wanted}{gib(have.free)} of {gib(have.total)} are free; what helps: {helps}"
        raise OutOfMemory(line) from None


def forget_cached() -> None:
    """Gives back what torch holds on a GPU and does not use, so that pieces become whole again: once an error's frames are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def gib(count: float) -> str:
    """
    >>> gib(5 * 2**29)
    '2.5 GiB'
    """
    return f"{count / 2**30:.3g} GiB"


def widest(device: torch.device | str) -> torch.dtype:
    """The widest floating-point type that a device computes: float64, but on Apple's GPU float32."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64


def wide(values: Tensor) -> Tensor:
    """The values in the widest type of their device."""
    return values.to(widest(values.device))


class WideSums:
    """Running sums in float64, or another type. They start at 0.

    Where a device has no float64, what float32 rounds off a sum is kept in a second number beside it (the two-sum of Knuth 1969), so
    that sums over many batches are as good.
    """

    def __init__(self, *shape: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> None:
        paired = dtype == torch.float64 and widest(device) != torch.float64
        self._high = torch.zeros(shape, device=device, dtype=widest(device) if paired else dtype)
        self._low = torch.zeros_like(self._high) if paired else None

    @property
    def dtype(self) -> torch.dtype:
        """Of what is added."""
        return self._high.dtype

    def add(self, at: Any, value: Tensor) -> None:
        """Adds to the sums at an index, in which no place comes twice."""
        if self._low is None:
            self._high[at] += value
            return
        before, value = self._high[at], value.to(self._high.dtype)
        after = before + value
        rounded = after - before
        self._low[at] += (before - (after - rounded)) + (value - rounded)
        self._high[at] = after

    def add_each(self, at: Any, values: Tensor) -> None:
        """Adds several values, along their first axis, one after the other: the sums do not depend on how many come at once."""
        if self._low is None:
            self._high[at] = torch.cat([self._high[at][None], values]).cumsum(0)[-1]
        else:
            self.add(at, values.sum(0))

    def total(self) -> Tensor:
        """The sums so far, on the CPU."""
        return self._high.cpu() if self._low is None else self._high.cpu().double() + self._low.cpu().double()

    def merge(self) -> None:
        """Adds up what all processes have."""
        if self._low is None:
            parallel.add_up(self._high)
            return
        total = self.total()
        parallel.add_up(total)
        self._high.copy_(total)
        self._low.copy_(total - self._high.cpu().double())
