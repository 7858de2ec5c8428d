"""Which devices there are to run a model on, how wide their numbers are, and sums that stay on one until they are read."""

from typing import Any

import torch
from torch import Tensor

from tl_reward import parallel
from tl_reward.errors import InputError


def check_device(device: str | torch.device | None, dtype: torch.dtype | None = None) -> None:
    """Says no before weights are read: raises InputError for a device that is not here, or cannot hold this type."""
    if device is None:
        return
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"no device {device!r}; there is {', '.join(devices())}") from None
    here = {torch.device(name) for name in devices()}
    if wanted.type == "cpu" and wanted.index in (None, 0):
        return
    if not any(wanted.type == each.type and wanted.index in (None, each.index) for each in here):
        raise InputError(f"no device {str(device)!r} on this machine; there is {', '.join(devices())}")
    if wanted.type == "mps" and dtype is torch.float64:
        raise InputError("mps computes no float64; choose float32, or the device cpu")


def devices() -> list[str]:
    """The devices of this machine that models run on."""
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count())), *mps]


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
