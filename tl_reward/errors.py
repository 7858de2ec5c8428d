"""What users cause: bad input, said in one line."""

import difflib
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input. The message is one line: what was got, and what is allowed.

    The command line prints it as it is, with its options in the place of keywords, and exits with status 2.
    """


class OutOfMemory(InputError):
    """There was too little memory. The message says in one line for what, what there was, and what would help."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: on a GPU, on a CPU, or in Python itself.

    >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("CUDA error: out of memory")), is_out_of_memory(OSError())
    (True, True, False)
    """
    if isinstance(error, MemoryError | OutOfMemory) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True  # torch's own kind, without torch
    # Of torch on a CPU, of Apple's GPU, and of CUDA's libraries.
    said = ("can't allocate memory", "not enough memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


class Lacking(InputError):
    """A run has no entry of a section, such as "discovery", that is needed."""

    def __init__(self, message: str, section: str) -> None:
        super().__init__(message)
        self.section = section


class UnknownOption(InputError, TypeError):
    """A keyword that a function does not take. It is a `TypeError` too, as Python's own is for such a call."""


def check_keywords(given: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises UnknownOption for the first keyword that is not known, and names the nearest one that is.

    >>> check_keywords(["dtyp"], ["dtype", "device"], "load")
    Traceback (most recent call last):
    tl_reward.errors.UnknownOption: load() has no option 'dtyp'; did you mean dtype? (known: dtype, device)
    """
    for name in given:
        if name not in known:
            raise UnknownOption(f"{where}() has no option {name!r}{did_you_mean(name, known)} (known: {', '.join(known) or 'none'})")


def first_line(error: BaseException) -> str:
    """What an error says, in one line; its kind where it says nothing.

    >>> first_line(OSError("no such file\\nsee the log")), first_line(KeyError())
    ('no such file', 'KeyError')
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known name that is most like it, or nothing.

    >>> did_you_mean("maxtoken", ["max_tokens", "overlong"]), did_you_mean("x", ["overlong"])
    ('; did you mean max_tokens?', '')
    """
    bare = {each.lstrip("-"): each for each in known}  # dashes are alike in all options
    near = difflib.get_close_matches(given.lstrip("-"), list(bare), n=1)
    return f"; did you mean {bare[near[0]]}?" if near else ""


def shown(value: object) -> str:
    """A value as a message shows it: its type, and what it is where that is short.

    >>> shown("long"), shown([1] * 50), shown(None)
    ("'long'", 'list', 'None')
    """
    if isinstance(value, (str, bytes, int, float, type(None))):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}…"
    return type(value).__name__


# Keywords of functions, as options of commands: names with an underscore, but not within a path, and two settings of a keyword.
_KEYWORD = re.compile(r"(?<![\w/\\.-])(max_tokens|max_memory_gb|max_length|data_dir|drop_bad)(?![\w/\\(.-])")
_SETTINGS = {
    'on_bad="drop"': "--drop-bad",
    "overwrite=True": "--overwrite",
    "with output= (": "with --output (",
    'columns={"prompt": …, "chosen": …, "rejected": …}': "--columns prompt=… chosen=… rejected=…",
}


def as_options(message: str) -> str:
    """A message as a command says it: with its options in the place of keywords.

    >>> as_options("max_length must be at least 1; see runs/max_length")
    '--max-length must be at least 1; see runs/max_length'
    """
    for setting, option in _SETTINGS.items():
        message = message.replace(setting, option)
    return _KEYWORD.sub(lambda found: f"--{found[1].replace('_', '-')}", message)


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends a program that meets an `InputError` with that line on standard error and status 2, instead of a traceback."""
    try:
        yield
    except InputError as error:
        print(f"{program}: {as_options(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2) from None
