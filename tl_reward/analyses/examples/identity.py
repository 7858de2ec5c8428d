"""Of what is a saved state? All that decides what is collected, the code of edits included."""

import copyreg
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, EllipsisType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from tl_reward.analyses.examples import passes
from tl_reward.analyses.examples.passes import Task
from tl_reward.interventions.user_code import is_theirs
from tl_reward.model.heads.chosen import output_name
from tl_reward.model.reward_model import HookedRewardModel

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Path, torch.dtype, torch.device, EllipsisType, np.generic, range, slice)


def identity_of(task: Task, interventions: Any) -> dict[str, str]:
    """What a saved state has to be of to be gone on from, by name."""
    encoded = task.encoded
    rows = [(row.ids, row.response_start) for row in encoded.rows]
    return {
        "pairs": _hash([rows, encoded.chosen, encoded.rejected, [pair.objective for pair in encoded.pairs]]),
        "neurons": _hash(task.neurons.to_json()),
        "site": task.site,
        "where": task.where,
        "seed": str(task.seed),
        "model": str(task.model.cfg.model_name),
        "weights": content_hash(dict(task.model.named_parameters())),
        "interventions": content_hash(list(interventions)),
        "chunk": str(passes.CHUNK),
        **({"output": name} if (name := output_name(task.model)) else {}),
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def content_hash(value: Any) -> str:
    """A hash of what a value holds, which is the same in another process.

    Compared are numbers, texts, tensors, arrays and containers; the attributes of any other object; and of the user's own functions and
    classes the bytecode and constants, the defaults, what they close over, and the globals that they name, each in the same way; a module
    of theirs as the bytes of its file. Of what is installed, and of this package's functions and classes, the name alone. Not seen: files
    that a function reads, and modules that it imports while it runs.
    """
    return _Reader().digest(value).hex()


class _Reader:
    def __init__(self, path: Sequence[int] = ()) -> None:
        self.path = [*path]  # from the first value to the one that is read: a value may hold itself
        self.done: dict[int, tuple[Any, bytes]] = {}  # with the value: an id is of one value while that is there

    def digest(self, value: Any) -> bytes:
        if id(value) in self.path:
            return f"the one {len(self.path) - self.path.index(id(value))} above".encode()
        if id(value) not in self.done:
            self.path.append(id(value))
            digest = hashlib.sha256(type(value).__qualname__.encode())
            for part in self._parts(value):
                digest.update(part.encode() if isinstance(part, str) else part)
                digest.update(b"\0")
            self.path.pop()
            self.done[id(value)] = (value, digest.digest())
        return self.done[id(value)][1]

    def _parts(self, value: Any) -> list[Any]:
        match value:
            case torch.Tensor():
                plain = value.detach().cpu().contiguous().reshape(-1)
                return [str(value.dtype), str(tuple(value.shape)), plain.view(torch.uint8).numpy()]
            case np.ndarray() if value.dtype != object:
                return [str(value.dtype), str(value.shape), np.ascontiguousarray(value).view(np.uint8)]
            case HookedRewardModel():  # its tables of rotations grow as it runs
                return [self.digest(dict(value.named_parameters())), *([name] if (name := output_name(value)) else [])]
            case torch.Generator():
                return [self.digest(value.get_state())]
            case list() | tuple():
                return [self.digest(each) for each in value]
            case set() | frozenset():
                return sorted(_Reader(self.path).digest(each) for each in value)
            case dict() | MappingProxyType():
                return [self.digest(part) for item in value.items() for part in item]
            case CodeType():
                return [value.co_code, *value.co_names, *map(self.digest, value.co_consts)]
            case FunctionType():
                return [_name(value), *(self._function(value) if is_theirs(value.__code__.co_filename) else [])]
            case type():
                return [_name(value), *(self._class(value) if _file_of(sys.modules.get(value.__module__)) else [])]
            case ModuleType():
                file = _file_of(value)
                return [value.__name__, *([file.read_bytes()] if file is not None and file.is_file() else [])]
            case property():
                return [self.digest(part) for part in (value.fget, value.fset)]
            case staticmethod() | classmethod() | MethodType():
                return [self.digest(value.__func__), self.digest(getattr(value, "__self__", None))]
            case partial():
                return [self.digest(part) for part in (value.func, value.args, value.keywords)]
        if isinstance(value, _PLAIN):
            return [_name(value), repr(value)]
        held = _held(value)
        if not held or type(value).__module__ in sys.stdlib_module_names:  # its value is out of sight: it says what it is made again from
            with suppress(TypeError):
                parts = copyreg.dispatch_table.get(type(value), lambda value: value.__reduce_ex__(4))(value)
                if isinstance(parts, tuple):
                    return [_name(value), *(self.digest(list(part) if isinstance(part, Iterator) else part) for part in parts[1:])]
        return [_name(value), self.digest(type(value)), self.digest(dict(sorted(held.items())))]

    def _function(self, function: FunctionType) -> list[bytes]:
        code, everything = function.__code__, function.__globals__
        held = {name: everything[name] for name in _names(code) if name in everything}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with suppress(ValueError):  # it holds nothing yet
                held[name] = cell.cell_contents
        parts = (code, function.__defaults__, function.__kwdefaults__, function.__dict__, dict(sorted(held.items())))
        return [self.digest(part) for part in parts]

    def _class(self, kind: type) -> list[bytes]:
        own = {name: part for name, part in vars(kind).items() if name not in _OF_PYTHON}
        return [self.digest(part) for part in (kind.__bases__, dict(sorted(own.items())))]


def _held(value: Any) -> dict[str, Any]:
    """An object's attributes, without what it only keeps at hand: cached properties, and a dataclass' fields that are no arguments."""
    slots = [name for kind in type(value).__mro__ for name in _slots(kind) if hasattr(value, name)]
    held = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    kept = {name for kind in type(value).__mro__ for name, part in vars(kind).items() if isinstance(part, cached_property)}
    if is_dataclass(value):
        kept |= {each.name for each in fields(value) if not each.init}
    return {name: part for name, part in held.items() if name not in kept}


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', type(value).__qualname__)}"


def _file_of(module: Any) -> Path | None:
    """The file of a user's module, or what stands for one that is typed into a session; None of what is installed."""
    name = getattr(module, "__name__", "")
    if module is None or name.partition(".")[0] in sys.stdlib_module_names:
        return None
    file = Path(getattr(module, "__file__", None) or "<session>")
    if name == "__main__":  # a notebook's has the file of what runs it
        return file
    return file if is_theirs(file) else None


def _names(code: CodeType) -> list[str]:
    """Those that a function's code uses, that of functions inside it included."""
    inside = [name for part in code.co_consts if isinstance(part, CodeType) for name in _names(part)]
    return sorted({*code.co_names, *inside})


def _slots(kind: type) -> Sequence[str]:
    names = vars(kind).get("__slots__", ())
    return [name for name in ([names] if isinstance(names, str) else names) if not name.startswith("__")]


# Of a class, what Python itself keeps there.
_OF_PYTHON = (
    "__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "__annotate__", "__firstlineno__", "__static_attributes__",
    "__dataclass_params__", "__dataclass_fields__", "__abstractmethods__", "_abc_impl", "__parameters__", "__slots__",
)  # fmt: skip
