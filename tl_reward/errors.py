"""The one exception that users cause: bad input, said in one line."""

import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input. The message is one line: what was got, and what is allowed.

    The command line prints it as it is and exits with status 2.
    """


class UnknownOption(InputError, TypeError):
    """A keyword that a function does not take."""


def check_keywords(given: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises UnknownOption for the first keyword that is not known, and names the nearest one that is.

    >>> check_keywords(["dtyp"], ["dtype", "device"], "load")
    Traceback (most recent call last):
    tl_reward.errors.UnknownOption: load takes no 'dtyp'; did you mean 'dtype'? It takes dtype, device
    """
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise UnknownOption(f"{where} takes no {name!r}; {meant}It takes {', '.join(known) or 'no other options'}")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing.

    >>> first_line(OSError("no such file\\nsee the log")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends a program that meets an `InputError` with that line on standard error and status 2, instead of a traceback."""
    try:
        yield
    except InputError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
