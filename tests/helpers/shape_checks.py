"""The checker of shapes and types in tests: beartype, but for the choices that the package itself checks.

A `Literal` argument is bad input like any other: the package must answer it with an `InputError`, which beartype would forestall.

jaxtyping's plugin for pytest writes `@jaxtyping.jaxtyped(typechecker=…)` above each function of the package. What stands there in tests
checks the same of each call, arguments and result, in less time than jaxtyping's own, which checks the arguments again beside the result,
and keeps sizes of dimensions for functions without arrays too.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial, reduce, wraps
from operator import or_
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import jaxtyping
from beartype import BeartypeConf, beartype

_own_jaxtyped = jaxtyping.jaxtyped
# An int is a float, as type checkers have it.
_beartyped = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=jaxtyping.TypeCheckError))


def check(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function that checks its types. One name of a dimension is one size within a call."""
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn) or inspect.iscoroutinefunction(fn):
        return _own_jaxtyped(fn, typechecker=_beartyped_loosely)  # beartype's would check its arguments only once it runs, in no scope
    hints = {name: _loosened(_resolved(hint, fn)) for name, hint in fn.__annotations__.items()}
    if not hints:
        return fn
    copy = types.FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__, copy.__annotations__ = fn.__kwdefaults__, fn.__qualname__, fn.__module__, hints
    checking, with_arrays = _beartyped(copy), _has_arrays(hints.values())
    if checking is not copy:
        checking.__code__ = checking.__code__.replace(co_filename=_NOWHERE)

    return wraps(fn)(_WRITTEN["one_scope" if with_arrays else "no_scope"](fn, checking, jaxtyping.config, _own_jaxtyped))


def _beartyped_loosely(fn: Callable[..., Any]) -> Callable[..., Any]:
    fn.__annotations__ = {name: _loosened(hint) for name, hint in fn.__annotations__.items()}
    return _beartyped(fn)


# Who looks for a user's line in a traceback passes over what is "frozen", and so over these checks.
_NOWHERE = "<frozen shape checks>"
_WRITTEN: dict[str, Any] = {}
_SOURCE = """
def no_scope(fn, checking, config, jaxtyped):
    return lambda *args, **kwargs: (fn if config.jaxtyping_disable else checking)(*args, **kwargs)

def one_scope(fn, checking, config, jaxtyped):
    def checked(*args, **kwargs):
        if config.jaxtyping_disable:
            return fn(*args, **kwargs)
        with jaxtyped("context"):
            return checking(*args, **kwargs)

    return checked
"""
exec(compile(_SOURCE, _NOWHERE, "exec"), _WRITTEN)


def _jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    if fn is None:
        return partial(_jaxtyped, typechecker=typechecker)
    if isinstance(fn, type):
        if dataclasses.is_dataclass(fn) and inspect.isfunction(fn.__init__) and not hasattr(fn.__init__, "__wrapped__"):
            fn.__init__ = check(fn.__init__)
        return fn
    if isinstance(fn, classmethod | staticmethod):
        return type(fn)(check(fn.__func__))
    if isinstance(fn, property):
        get, set_, delete = (part and check(part) for part in (fn.fget, fn.fset, fn.fdel))
        return property(get, set_, delete)
    return check(fn)


jaxtyping.jaxtyped = _jaxtyped


def _resolved(hint: Any, fn: Callable[..., Any]) -> Any:
    """A hint that is text, or has some in it, as what it names; anything, where that is not known yet."""
    holder = types.SimpleNamespace(__annotations__={"hint": hint})
    try:
        return get_type_hints(holder, fn.__globals__, include_extras=True)["hint"]
    except Exception:
        return Any


def _has_arrays(hints: Iterable[Any]) -> bool:
    return any(
        (isinstance(hint, type) and issubclass(hint, jaxtyping.AbstractArray))
        or _has_arrays(hint if isinstance(hint, list) else get_args(hint))
        for hint in hints
    )  # fmt: skip


def _loosened(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return reduce(or_, {type(value) for value in get_args(hint)})
    if get_origin(hint) in (Union, types.UnionType):
        return reduce(or_, [_loosened(part) for part in get_args(hint)])
    if get_origin(hint) in (Sequence, Mapping, tuple):  # Sequence[Literal[…]], tuple[Literal[…], …]
        return types.GenericAlias(get_origin(hint), tuple(_loosened(part) for part in get_args(hint)))
    return hint
