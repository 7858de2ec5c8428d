"""The guards that `tests/attack/test_guards.py` takes out, one at a time."""

from typing import NamedTuple


class Guard(NamedTuple):
    """`code` stands once in `file`; with `instead` in its place, `test` fails."""

    promise: str
    file: str
    code: str
    instead: str
    test: str


GUARDS: tuple[Guard, ...] = ()
