"""The one exception that users cause: bad input, said in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input. The message is one line: what was got, and what is allowed.

    The command line prints it as it is and exits with status 2.
    """


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
