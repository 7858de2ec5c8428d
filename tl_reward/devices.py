"""Which devices there are to run a model on."""

from pathlib import Path

import psutil
import torch

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


def free_bytes(device: str | torch.device, groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still take on a device: of what is free there, with what torch keeps for reuse; on a CPU within the limit
    of the control group, shared among the processes that `parallel` counts. No more than is left of `parallel.room`, where that is set."""
    device = torch.device(device)
    if device.type == "cuda":
        own = torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - own
    else:
        own, rooms = psutil.Process().memory_info().rss, [psutil.virtual_memory().available]
        for limit, used, statistics in (
            ("memory.max", "memory.current", "memory.stat"),
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
        ):
            try:
                cached = dict(line.split() for line in (groups / statistics).read_text().splitlines()).get("inactive_file", "0")
                rooms.append(int((groups / limit).read_text()) - int((groups / used).read_text()) + int(cached))
            except (OSError, ValueError):  # no such group, or a limit of "max"
                continue
        free = min(rooms) // parallel.on_this_machine()
    room = parallel.room()
    return max(0, free if room is None else min(free, room - own))
