"""What a result holds, each value with its place."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any


def leaves(value: Any, place: str = "", *, without: Collection[str] = ()) -> Iterator[tuple[str, Any]]:
    """The numbers, arrays and texts of a result. `without`: fields that are left out."""
    if is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            if each.name not in without:
                yield from leaves(getattr(value, each.name), f"{place}.{each.name}", without=without)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from leaves(each, f"{place}[{key}]", without=without)
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from leaves(each, f"{place}[{i}]", without=without)
    else:
        yield place, value
