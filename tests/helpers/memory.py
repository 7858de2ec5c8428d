"""Counts the bytes of the tensors that are alive: memory as a GPU's allocator would see it, on a CPU."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass
class Count:
    """Bytes of all tensors that came up within `counted`: those that live now, and the most at any time."""

    now: int = 0
    peak: int = 0
    _known: set[int] = field(default_factory=set)

    def see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if tensor.is_meta or storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class _Counting(TorchDispatchMode):
    def __init__(self, count: Count, old: set[int]) -> None:
        super().__init__()
        self.count, self.old = count, old

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves([args, kwargs, made]):
            if isinstance(each, torch.Tensor) and each.untyped_storage()._cdata not in self.old:
                self.count.see(each)
        return made


@contextmanager
def counted(*without: torch.nn.Module) -> Iterator[Count]:
    """Counts from here on. Weights and constants of the models `without` do not count."""
    old = [each.untyped_storage() for model in without for each in (*model.parameters(), *model.buffers())]
    count = Count()
    with _Counting(count, {each._cdata for each in old}):
        yield count
