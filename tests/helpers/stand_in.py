"""A device that is not there. Its tensors are computed on the CPU, but do not say so: what would wait for a GPU is counted, and what a GPU
would refuse, tensors of two devices in one call, is refused."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from tl_reward.model.reward_model import HookedRewardModel

DEVICE = "meta"  # one that torch knows and that needs no driver

# What gives a number, or a shape that depends on numbers, to Python.
_ASKS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal")


class _AsTensor(type(Tensor)):
    """TransformerLens asks whether the type of what it is given equals `torch.Tensor`."""

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is Tensor

    __hash__ = type.__hash__


class OnDevice(Tensor, metaclass=_AsTensor):
    """A tensor of the device; `numbers` holds what it is."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnDevice":
        with torch.inference_mode(inner.is_inference()):  # a view of a tensor is of its kind
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                device=torch.device(DEVICE),
            )
        made.numbers = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of `counted`")

    def tolist(self) -> Any:  # torch's own refuses subclasses
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor of a device to numpy")


class Waits(TorchDispatchMode):
    """Runs what concerns the device. `asked` counts, by operation, what it has to finish its work for; `sent` what is copied to it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
        there = [each for each in tensors if isinstance(each, OnDevice)]
        lists = [each for each in tensors if each.is_meta and not isinstance(each, OnDevice)]
        assert not lists, f"{func}: a list or a number as an index, which torch itself sends to the device"
        target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
        if not there and target != DEVICE:
            return func(*args, **kwargs)
        with self:
            found = func.decompose(*args, **kwargs)  # in inference mode, calls that are made of others come whole
        if found is not NotImplemented:
            return found
        name = func._schema.name.removeprefix("aten::")
        here = [each for each in tensors if not isinstance(each, OnDevice) and each.ndim > 0]
        back = self._note(name, args, there, here, target)
        inner = tree_map(lambda each: each.numbers if isinstance(each, OnDevice) else each, (args, kwargs))
        if target == DEVICE:
            inner[1]["device"] = "cpu"
        found = func(*inner[0], **inner[1])
        if func._schema.is_mutable:
            return args[0]
        return found if back else tree_map(lambda each: OnDevice(each) if isinstance(each, Tensor) else each, found)

    def _note(self, name: str, args: Any, there: Sequence[Tensor], here: Sequence[Tensor], target: str | None) -> bool:
        """Counts a call, and says whether what it gives is on the CPU."""
        if name == "_to_copy" and target is not None:
            if there and target != DEVICE:
                self.asked[name] += 1
                return True
            if not there:
                self.sent[name] += 1
        elif name == "copy_" and there and here:
            (self.sent if isinstance(args[0], OnDevice) else self.asked)[name] += 1
        elif name in ("index", "index_put_", "index_put", "_index_put_impl_") and isinstance(args[0], OnDevice):
            indices = [each for each in args[1] if each is not None]
            self.asked[f"{name} by mask"] += any(each.dtype == torch.bool for each in indices)
            self.sent[f"{name} by index of the CPU"] += any(not isinstance(each, OnDevice) for each in indices)
            here = [each for each in here if not any(each is index for index in indices)]
            assert not here, f"{name}: values on the CPU"
        elif name in _ASKS or (name == "repeat_interleave" and len(args) == 1):
            self.asked[name] += 1
        elif here and there:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, found at least two")
        return False


@contextmanager
def counted() -> Iterator[Waits]:
    with Waits() as waits:
        yield waits
    waits.asked, waits.sent = +waits.asked, +waits.sent


def moved(model: HookedRewardModel) -> HookedRewardModel:
    """The model, from now on on the stand-in. Inside `counted`."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(OnDevice(value.data), requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = OnDevice(value)
    model.cfg.device = DEVICE
    return model
