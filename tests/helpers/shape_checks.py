"""The checker of shapes and types in tests: beartype, but for the choices that the package itself checks.

A `Literal` argument is bad input like any other: the package must answer it with an `InputError`, which beartype would forestall.

jaxtyping checks every call, and builds its checkers anew for every inner function: half of the time of all tests. Here a function is
checked once for each combination of types, element types and shapes that it is given and gives, which is what the check depends on.
"""

import dataclasses
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce, wraps
from itertools import islice
from operator import or_
from typing import Any, Literal, Union, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

try:
    import numpy as np
    import torch

    _ARRAYS = torch.Tensor, np.ndarray
except ImportError:  # .ci/light runs what needs neither
    _ARRAYS = ()
_jaxtyped = jaxtyping.jaxtyped
# By the code of a function, which inner functions share: what was found right, and what calls it with a check.
_checked: dict[types.CodeType, tuple[set, list[Callable[..., Any]]]] = {}


def check(fn: Callable[..., Any]) -> Callable[..., Any]:
    if hasattr(fn, "__annotations__"):
        fn.__annotations__ = {name: _loosened(hint) for name, hint in fn.__annotations__.items()}
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(fn)  # an int is a float, as type checkers have it


def _loosened(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return reduce(or_, {type(value) for value in get_args(hint)})
    if get_origin(hint) in (Union, types.UnionType):
        return reduce(or_, [_loosened(part) for part in get_args(hint)])
    if get_origin(hint) in (Sequence, Mapping, tuple):  # Sequence[Literal[…]], tuple[Literal[…], …]
        return types.GenericAlias(get_origin(hint), tuple(_loosened(part) for part in get_args(hint)))
    return hint


def jaxtyped(fn: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """In the place of jaxtyping's own decorator, which its import hook puts on every function and class of the package."""
    if fn is None:
        return partial(jaxtyped, typechecker=typechecker)
    if dataclasses.is_dataclass(fn) and not hasattr(fn.__init__, "checked"):
        fn.__init__ = jaxtyped(fn.__init__, typechecker=typechecker)
    if not isinstance(fn, types.FunctionType):
        return fn
    if any("{" in str(hint) for hint in fn.__annotations__.values()):  # a shape that depends on a value, which `_kind` does not hold
        return _jaxtyped(fn, typechecker=typechecker)
    right, callers = _checked.setdefault(fn.__code__, (set(), []))

    def checked(*args, **kwargs):
        given = (*map(_kind, args), *kwargs, *map(_kind, kwargs.values()))
        if given in right:
            out = fn(*args, **kwargs)
            if (given, _kind(out)) in right:
                return out
            call = lambda *_, **__: out  # noqa: E731
        else:
            call = fn
        if not callers:
            callers.append(_caller(fn, typechecker))
        out = callers[0](call, args, kwargs)
        right.update((given, (given, _kind(out))))
        return out

    _as_of_jaxtyping(checked)
    setattr(checked, "checked", True)  # noqa: B010
    return wraps(fn)(checked)


def _kind(value: Any, depth: int = 3) -> Any:
    """All that a check of this value depends on; of a list or a dictionary, beartype looks at one entry, and this at the first eight."""
    if isinstance(value, _ARRAYS):
        return type(value), value.dtype, value.shape
    if depth and isinstance(value, list | tuple):
        return type(value), len(value), *(_kind(entry, depth - 1) for entry in value[:8])
    if depth and isinstance(value, dict):
        return type(value), *((type(key), _kind(entry, depth - 1)) for key, entry in islice(value.items(), 8))
    return type(value)


def _caller(fn: types.FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    """Calls any function with the arguments of `fn`, and checks these before it and what it returns after it as those of `fn`."""
    held = threading.local()

    def calls(*args, **kwargs):
        return held.call(*args, **kwargs)

    # With the globals of `fn`, in which its annotations are read.
    _as_of_jaxtyping(calls)
    stand_in = types.FunctionType(calls.__code__, fn.__globals__, fn.__name__, fn.__defaults__, calls.__closure__)
    decorated = _jaxtyped(wraps(fn)(stand_in), typechecker=typechecker)

    def call_as(call: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        held.call = call
        return decorated(*args, **kwargs)

    _as_of_jaxtyping(call_as)
    return call_as


def _as_of_jaxtyping(function: types.FunctionType) -> None:
    """In a traceback its frame is a library's, where those of this folder are taken for a user's own code."""
    function.__code__ = function.__code__.replace(co_filename=jaxtyping.__file__)


jaxtyping.jaxtyped = jaxtyped
