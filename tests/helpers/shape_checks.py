"""The checker of shapes and types in tests: beartype, but for the choices that the package itself checks.

A `Literal` argument is bad input like any other: the package must answer it with an `InputError`, which beartype would forestall.
"""

import types
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Any, Literal, Union, get_args, get_origin

from beartype import BeartypeConf, beartype


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
