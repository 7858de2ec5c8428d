"""Which devices there are to run a model on."""

import torch

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
