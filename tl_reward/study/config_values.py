"""What may a value of a config be: a name that becomes a folder's, a share of all neurons, a half-width?"""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from tl_reward.errors import InputError
from tl_reward.neurons import check_fraction

T = TypeVar("T")


def _folder_name(name: str) -> str:
    if not name or not all(c.isalnum() or c in "-_. " for c in name) or name[0] in ". " or name[-1] in ". ":
        raise InputError(f"a name may hold letters, digits, spaces, '-', '_' and '.', the last two not at its ends, got {name!r}")
    if name.partition(".")[0].rstrip().upper() in _DEVICES:
        raise InputError(f"a name may not be one that Windows keeps for a device, got {name!r}")
    if len(name.encode()) > LONGEST_NAME:
        raise InputError(f"a name may have {LONGEST_NAME} bytes, got {len(name.encode())} ({name[:20]}…)")
    return name


LONGEST_NAME = 80  # two of them, and what else is in a cell's name, make a file's name of at most 255
_DEVICES = ("CON", "PRN", "AUX", "NUL", *(f"{kind}{i}" for kind in ("COM", "LPT") for i in range(10)))


def as_files(name: str) -> str:
    """Equal where Windows and macOS would take two names for one file's."""
    return unicodedata.normalize("NFC", name).casefold()


def check_apart(key: str, names: Iterable[str]) -> None:
    first: dict[str, str] = {}
    for name in names:
        if name != first.setdefault(as_files(name), name):
            raise InputError(f"{key} must differ in more than capital letters, got {first[as_files(name)]!r} and {name!r}")


def _share(value: float) -> float:
    check_fraction(value)
    return value


def share_or_zero(value: float) -> float:
    return value and _share(value)


def each_once(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("once", "must name each share once, got {got}", {"got": ", ".join(map(str, values))})
    return values


def by_benchmark(value: Any) -> Any:
    return {ALL: value} if isinstance(value, int | float) else value


def asked_of(values: Mapping[str, T] | None, test: str) -> T | None:
    """What is asked of a benchmark, by its name or of all."""
    return None if values is None else values.get(test, values.get(ALL))


def without_seed(training: Any) -> Any:
    if isinstance(training, Mapping) and "seed" in training:
        raise PydanticCustomError("seed", "takes no seed: list them under seeds")
    return training


Name = Annotated[str, AfterValidator(_folder_name)]  # of bases and benchmarks: it becomes a folder's
Shares = Annotated[tuple[Annotated[float, AfterValidator(_share)], ...], AfterValidator(each_once)]
FromZero = Annotated[int, Field(ge=0)]
FromOne = Annotated[int, Field(ge=1)]
HalfWidth = Annotated[float, Field(gt=0, le=0.5)]
ALL = ""  # a limit of every benchmark that has none of its own
SharesOrZero = Annotated[tuple[Annotated[float, AfterValidator(share_or_zero)], ...], AfterValidator(each_once)]
