"""On which device a model is put, and what is said where it has no room there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tl_reward import parallel
from tl_reward.arguments import check_argument
from tl_reward.devices import check_device, says_what_was_free
from tl_reward.model.components import get_device


@contextmanager
def placed(name: str, device: str | torch.device | None, dtype: torch.dtype) -> Iterator[str]:
    """The device on which the model `name` is put: the GPU of this process, or any that there is, where none is asked for.

    Raises:
        InputError: no such device here, or one that cannot hold this type; OutOfMemory: it gets full.
    """
    check_argument("dtype", dtype, torch.dtype)
    check_device(device, dtype)
    chosen = str(device or parallel.device() or get_device())
    with says_what_was_free(name, chosen, helps="dtype=torch.bfloat16, another device, or a smaller model"):
        yield chosen
