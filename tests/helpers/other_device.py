"""A device that is not the CPU, on a machine that has none: tensors that compute on the CPU, and say that they are elsewhere.

Whatever would fail on a GPU because two tensors are on different devices fails here too, and so does what reads a tensor's memory.
The device goes by the name of "meta", for which torch needs neither a driver nor a thread of its own; its tensors hold numbers here.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "meta"
aten = torch.ops.aten
# Between devices: copies; and an index on the CPU, which torch moves to a GPU by itself.
_ACROSS = (aten._to_copy.default, aten.copy_.default)
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class MixedDevices(RuntimeError):
    pass


class Elsewhere(torch.Tensor):
    """A tensor on the other device. `held` is what it holds, on the CPU."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=torch.device(NAME)
        )
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [each for each in tree_leaves([args, kwargs]) if isinstance(each, torch.Tensor)]
    there = any(isinstance(each, Elsewhere) for each in given)
    if func is aten._fused_sdp_choice.default:
        return 0  # by its formula: the fused ones are the CPU's
    if there and func not in _ACROSS:
        checked = args[:1] if func in _INDEXED else given
        mixed = [each for each in tree_leaves(checked) if isinstance(each, torch.Tensor) and not isinstance(each, Elsewhere) and each.ndim]
        if mixed or (func in _INDEXED and not isinstance(args[0], Elsewhere)):
            raise MixedDevices(f"{func}: some tensors are on the CPU, others on the other device ({[list(each.shape) for each in mixed]})")
    device = kwargs.get("device")
    if device is not None:
        there = torch.device(device).type == NAME
        kwargs = kwargs | {"device": torch.device("cpu")}
    elif func is aten.copy_.default:
        there = isinstance(args[0], Elsewhere)
    inner = tree_map(lambda each: each.held if isinstance(each, Elsewhere) else each, (args, kwargs))
    made = func(*inner[0], **inner[1])
    if func is aten._to_copy.default and not there and any(made is each for each in tree_leaves(inner)):
        made = made.clone()
    wrapped = tree_map(lambda each: Elsewhere(each) if isinstance(each, torch.Tensor) and there else each, made)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if there and device is None else wrapped


class _Factories(TorchDispatchMode):
    """What makes a tensor on the other device, or brings one there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _FromNumbers(TorchFunctionMode):
    """torch.tensor and an index that is a list ask no dispatcher, and tolist takes no subclass."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and kwargs.get("device") is not None:
            return func(*args, **kwargs | {"device": "cpu"}).to(kwargs["device"])
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            each = args[1] if isinstance(args[1], tuple) else (args[1],)
            at = tuple(torch.tensor(part) if isinstance(part, list) else part for part in each)
            return func(args[0], at, *args[2:])
        if func is torch.Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].held.tolist()
        return func(*args, **kwargs)


@contextmanager
def other_device() -> Iterator[str]:
    """Within it there is the other device. Gives its name. Inference mode, which knows no wrapped tensors, is no_grad here."""
    with pytest.MonkeyPatch.context() as patch:
        # The class itself, since functions are decorated with it before this.
        without = nullcontext, torch.no_grad
        patch.setattr(torch.inference_mode, "__enter__", lambda self: self.__dict__.setdefault("plain", without[self.mode]()).__enter__())
        patch.setattr(torch.inference_mode, "__exit__", lambda self, *error: self.__dict__.pop("plain").__exit__(*error))
        with _FromNumbers(), _Factories():
            yield NAME


def put_there(model: Any) -> Any:
    """A model on the other device."""
    for module in model.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                module._parameters[name] = torch.nn.Parameter(Elsewhere(value.detach()), requires_grad=value.requires_grad)
        for name, value in list(module._buffers.items()):
            if value is not None:
                module._buffers[name] = Elsewhere(value)
    model.cfg.device = NAME
    return model
