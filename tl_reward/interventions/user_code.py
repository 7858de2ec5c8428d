"""A user's function runs inside the model: what it did wrong is said in one line, with the site and the line of its source."""

import inspect
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tl_reward.errors import InputError, is_out_of_memory

# By its name, not by where this file stands in it.
_PACKAGE = "tl_reward"
# Code that is not the user's: this package, the standard library, and what is installed.
_NOT_THEIRS = (Path(str(files(_PACKAGE))), *(Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")))


def is_ours(intervention: Any) -> bool:
    """Whether an intervention is one of this package's, which never edit an activation in place."""
    return type(intervention).__module__.partition(".")[0] == _PACKAGE


def is_theirs(path: str | Path) -> bool:
    """Whether the code of a file is the user's, typed into a session included."""
    return not str(path).startswith("<frozen") and not any(folder in Path(path).parents for folder in _NOT_THEIRS)


def guarded(hook_name: str, fn: Callable[..., Any], *, copy: bool = True) -> Callable[..., Tensor | None]:
    """The hook, with its result checked.

    The result must be None (the hook looked on, or edited in place) or a floating-point tensor of the activation's shape, which is then
    given the activation's precision. Anything else, and any exception, becomes an `InputError` that names the hook point and the source.

    Args:
        copy: the function gets a copy, so that an edit in place reaches no other run; and it is watched (`watching`).
    """

    @wraps(fn)
    def run(activation: Tensor, hook: Any) -> Tensor | None:
        given = activation.clone() if copy else activation
        try:
            edited = fn(given, hook=hook)
        except InputError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise  # no fault of the edit's
            raise InputError(f"{hook_name}: {type(error).__name__} at {raised_at(error, fn)}: {error}") from error
        if copy:
            watch(fn, edited, given, activation)
        if edited is None:
            return given if copy else None
        if not isinstance(edited, Tensor) or edited.shape != activation.shape or not edited.is_floating_point():
            got = f"{list(edited.shape)} of {edited.dtype}" if isinstance(edited, Tensor) else type(edited).__name__
            allowed = f"None or a tensor {list(activation.shape)} of {activation.dtype}"
            raise InputError(f"{hook_name}: the edit at {defined_at(fn)} must return {allowed}, got {got}")
        return edited.to(activation)

    return run


_seen: ContextVar[dict[Any, tuple[str, bool]] | None] = ContextVar("seen", default=None)


@contextmanager
def watching() -> Iterator[None]:
    """Warns at the end of a pass, the outermost where one is within another, of each user's function that ran and edited nothing in it."""
    if _seen.get() is not None:
        yield
        return
    seen: dict[Any, tuple[str, bool]] = {}
    before = _seen.set(seen)
    try:
        yield
    finally:
        _seen.reset(before)
    for said, edits in seen.values():
        if not edits:
            warnings.warn(
                f"{said} edited nothing: it returned None at every place, and left each activation as it was (did it forget to return the "
                "edited one? To look on and edit nothing, return the activation)",
                stacklevel=4,
            )


def watch(fn: Callable[..., Any], edited: Any, given: Tensor, activation: Tensor) -> None:
    """Notes whether a user's function edited: it returned something, or changed the copy that it was given in place."""
    seen = _seen.get()
    if seen is None:
        return
    while isinstance(fn, partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    key = getattr(fn, "__code__", fn)  # hooks are made anew for every batch
    said, edits = seen.get(key) or (f"{getattr(fn, '__name__', type(fn).__name__)} ({defined_at(fn)})", False)
    seen[key] = said, edits or edited is not None or not torch.equal(given, activation)  # compared until the first edit


def raised_at(error: BaseException, fn: Any = None) -> str:
    """The file and line in the user's code where an exception came up; where none of it is the user's, that where `fn` is defined, if
    given, or the innermost one."""
    trace, place = error.__traceback__, "an unknown line"
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        place = f"{path.name}:{trace.tb_lineno}"
        if is_theirs(path):
            return place
        trace = trace.tb_next
    return defined_at(fn) if fn is not None else place


def defined_at(fn: Any) -> str:
    """The file and line where a function begins."""
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(inspect.unwrap(fn), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code else repr(fn)
