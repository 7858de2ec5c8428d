"""What users cause: bad input, said in one line."""

import difflib
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


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

    >>> did_you_mean("maxtoken", ["max_tokens", "overlong"]), did_you_mean("--base", ["--adapter-base"]), did_you_mean("x", ["overlong"])
    ('; did you mean max_tokens?', '; did you mean --adapter-base?', '')
    """
    bare = {each.lstrip("-"): each for each in known}  # dashes are alike in all options
    near = [each for each in bare if each.endswith(f"-{given.lstrip('-')}")]  # a part of it: base, for adapter-base
    near += difflib.get_close_matches(given.lstrip("-"), list(bare), n=1)
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


def summary_of(self: Any) -> str:
    """An object of named parts in one short line, which is its repr: small parts as they are, of large ones how large they are."""
    names = getattr(self, "_fields", None) or [name for name, each in self.__dataclass_fields__.items() if each.repr]
    text = ", ".join(f"{name}={_summary(getattr(self, name))}" for name in names)
    return f"{type(self).__name__}({text if len(text) <= 440 else f'{text[:440]}…'})"


def _summary(value: Any) -> str:
    """
    >>> _summary({"a": 1, "b": 2}), _summary(["x"] * 100), _summary(()), _summary("left")
    ('{a, b}', '100 of str', '()', "'left'")
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(str(key) for key in [*value][:3])}{', …' if len(value) > 3 else ''}}}"
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return f"{len(value)} of {type(value[0]).__name__}" if value else "()"
    own_text = type(value).__str__ is not object.__str__ and hasattr(value, "_fields")  # such as a number with its interval
    return str(value) if own_text and len(str(value)) <= 60 else shown(value)


# Keywords of functions, as options of commands: names with an underscore, but not within a path, and two settings of a keyword.
_KEYWORD = re.compile(r"(?<![\w/\\.-])(max_tokens|max_memory_gb|max_length|data_dir|drop_bad)(?![\w/\\(.-])")
_COLUMNS, _COLUMN = re.compile(r"columns=\{([^{}]*)\}"), re.compile(r'"(\w+)": ("[^"]*"|…)')
_SETTINGS = {
    'on_bad="drop"': "--drop-bad",
    "overwrite=True": "--overwrite",
    "base=…": "--adapter-base …",
    "(site= says which)": "(--site says which, --other-model takes those of another output)",
    "template=…": "--template …",
    'head="token:0"': "--head token:0",
    'head="token:Yes-No"': "--head token:Yes-No",
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
    message = _COLUMNS.sub(lambda found: "--columns " + " ".join(_option(*each) for each in _COLUMN.findall(found[1])), message)
    return _KEYWORD.sub(lambda found: f"--{found[1].replace('_', '-')}", message)


def _option(ours: str, theirs: str) -> str:
    """A column as the command line takes it, in quotes where its name has spaces."""
    option = f"{ours}={theirs.strip(chr(34))}"
    return f'"{option}"' if " " in option else option


@contextmanager
def one_line_errors(program: str) -> Iterator[None]:
    """Ends a program that meets an `InputError` with that line on standard error and status 2, instead of a traceback."""
    try:
        yield
    except InputError as error:
        print(f"{program}: {as_options(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2) from None
