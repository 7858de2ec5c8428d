"""JSON that is safe to take from anybody: what a run may hold of it, and how much."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tl_reward.errors import InputError

LARGEST_FILE = 2**29  # bytes of results.json; read, it takes about ten times that
MOST_ENTRIES = 10_000
LONGEST_TEXT = 1_000_000  # characters
DEEPEST = 100
_LARGEST_INT = 2**63 - 1


def read_json(path: Path) -> Any:
    """Raises InputError for what is no JSON, or more of it than a run holds; the message says what, and not where."""
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise InputError(f"{path.name} has {size:,} bytes, at most {LARGEST_FILE:,} are read")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise InputError(f"{path.name} is nested deeper than {DEEPEST} levels") from None
    except (ValueError, UnicodeDecodeError) as error:  # of a number of thousands of digits too
        raise InputError(str(error)) from None
    if fault := count_fault(value.get("sections") if isinstance(value, dict) else None) or json_fault(value):
        raise InputError(fault)
    return value


def count_fault(sections: Any) -> str | None:
    """Whether a run's sections hold more entries than are kept."""
    parts = sections.values() if isinstance(sections, dict) else ()
    count = sum(len(part) for part in parts if isinstance(part, (dict, list)))
    return f"it has {count:,} entries, at most {MOST_ENTRIES:,} are kept" if count > MOST_ENTRIES else None


def json_fault(value: Any) -> str | None:
    """The first thing in a value that JSON does not have, or that a run does not hold, and where; None where there is none.

    >>> json_fault({"accuracy": [0.5, float("nan")]})
    'accuracy.1 is nan, which is no number in JSON'
    """
    found = _fault(value, DEEPEST)
    return None if found is None else f"{'.'.join(map(short, reversed(found.place))) or 'it'} {found.said}"


class _Fault(NamedTuple):
    place: list[Any]  # the innermost key first
    said: str


def _fault(value: Any, levels: int) -> _Fault | None:
    if not isinstance(value, (dict, list, tuple)):
        said = _fault_of_one(value)
        return _Fault([], said) if said else None
    if levels == 0:
        return _Fault([], f"is nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        for key in value:
            said = _fault_of_one(key) if isinstance(key, str) else f"is {type(key).__name__}, and no text"
            if said:
                return _Fault([], f"has a key that {said}")
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        found = _fault(each, levels - 1)
        if found is not None:
            found.place.append(key)
            return found
    return None


def _fault_of_one(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return f"has {len(value):,} characters, at most {LONGEST_TEXT:,} are kept" if len(value) > LONGEST_TEXT else None
    if isinstance(value, int):
        return "is a number of more than 64 bits" if abs(value) > _LARGEST_INT else None
    if isinstance(value, float):
        return None if math.isfinite(value) else f"is {value}, which is no number in JSON"
    return f"is {type(value).__name__}, which JSON does not have"


def short(text: Any) -> str:
    """A name in a message: in one line, and not longer than that."""
    whole = str(text)
    cut = whole if len(whole) <= 120 else f"{whole[:100]}…"
    return cut if cut.isprintable() else repr(cut)


def listed(names: Iterable[Any], *, most: int = 20) -> str:
    """Names in a message.

    >>> listed(["a", "b", "c"], most=2), listed([])
    ('a, b, … (3)', 'nothing')
    """
    every = list(names)
    return ", ".join([*map(short, every[:most]), *([f"… ({len(every):,})"] if len(every) > most else [])]) or "nothing"
