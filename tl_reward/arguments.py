"""What an argument may be: of which type, by its annotation, and a number by its name, which means one thing everywhere."""

import inspect
import math
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from tl_reward.errors import InputError, shown


class Range(NamedTuple):
    """From `low` to `high`, both among them unless `above`: then `low` is not."""

    low: float
    high: float = math.inf
    above: bool = False

    def holds(self, value: Any) -> bool:
        finite = is_whole(value) or math.isfinite(value)  # a whole number may be too large for a float
        return bool(finite and (self.low < value if self.above else self.low <= value) and value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "a finite number"
        if math.isinf(self.high):
            return f"{'a finite number above' if self.above else 'at least'} {self.low}"
        return f"in {'(' if self.above else '['}{self.low}, {self.high}]"


_FROM_1 = Range(1)
RANGES: Mapping[str, Range] = {
    **dict.fromkeys(("max_tokens", "max_length", "limit", "find_limit", "steps", "most", "count", "jobs"), _FROM_1),
    **dict.fromkeys(("draws", "top", "random", "show"), Range(0, 10**6)),
    **dict.fromkeys(("fraction", "fractions"), Range(0, 1, above=True)),
    "max_memory_gb": Range(0, above=True),
    "factor": Range(-math.inf),
    "seed": Range(0, 2**63 - 1),  # what torch and numpy both take
    "port": Range(0, 65535),
}


def check_range(name: str, value: Any) -> None:
    """Checks a number, or a list of them, against the range of that name; what has no range, or is no number, passes.

    Raises:
        InputError: a number outside the range, not a number (nan) or infinite; no fraction, or one twice among several.
    """
    given = list(value) if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)) else [value]
    label = "fraction" if name == "fractions" else name
    for each in given:
        if name in RANGES and _is_number(each) and not RANGES[name].holds(each):
            raise InputError(f"{label} must be {RANGES[name]}, got {each}")
    if name == "fractions":
        twice = [each for i, each in enumerate(given) if each in given[:i]]
        if twice or not given:
            raise InputError(f"fractions must differ, got {shown(twice[0])} twice" if twice else "fractions must not be empty")


def check_argument(label: str, value: Any, hint: Any) -> None:
    """Raises InputError where a value is not of the type of an annotation, or is a number outside the range of its name."""
    problem = next(_problems(label, value, hint), None)
    if problem is not None:
        raise InputError(problem)
    check_range(label, value)


def check_fields(instance: Any) -> None:
    """`check_argument` for every field of a dataclass: what it says in `__post_init__` before anything else."""
    hints = inspect.get_annotations(type(instance))
    for each in fields(instance):
        if each.init and each.name in hints:
            check_argument(each.name, getattr(instance, each.name), hints[each.name])


def _problems(label: str, value: Any, hint: Any) -> Iterator[str]:
    """What is wrong with a value; nothing where it is of the type, or the type is one that this does not know."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [next(_problems(label, value, each), None) for each in inner]
        if None not in found:
            # Where a type looked into the value, its label is longer, and it says more.
            deep = [problem for problem in found if problem and not problem.startswith(f"{label} ")]
            alone = found[:1] if len(inner) == 2 and inner[1] is type(None) else []
            yield next(filter(None, (*deep, *alone)), _wrong(label, hint, value))
    elif origin is Literal:
        if not any(isinstance(value, type(each)) and isinstance(each, bool) == isinstance(value, bool) and value == each for each in inner):
            yield _wrong(label, hint, value)
    elif origin in (Sequence, list):
        yield from _problems_of_list(label, value, inner[0])
    elif origin in (Mapping, dict):
        if not isinstance(value, Mapping):
            yield _wrong(label, hint, value)
        else:
            for key, each in value.items():
                yield from _problems(f"{label}[{shown(key)}]", each, inner[1])
    elif not _is_of(value, hint, origin):
        yield _wrong(label, hint, value)


def _problems_of_list(label: str, value: Any, inner: Any) -> Iterator[str]:
    if isinstance(value, (str, bytes, Mapping)) or not (hasattr(value, "__len__") and hasattr(value, "__getitem__")):
        hint = " by itself: put it in brackets" if hasattr(value, "hooks") else ""
        yield f"{label} must be a list, got {shown(value)}{hint}"
    else:
        for i, each in enumerate(value):
            yield from _problems(f"{label}[{i}]", each, inner)


def _is_of(value: Any, hint: Any, origin: Any) -> bool:
    if hint is int:
        return is_whole(value)
    if hint is float:
        return _is_number(value)
    if hint is None or hint is type(None):
        return value is None
    if origin is Callable:
        return callable(value)
    if hasattr(hint, "array_type"):  # jaxtyping's; who needs a shape says itself which
        return isinstance(value, hint.array_type)
    if not isinstance(hint, type) or origin is not None:
        return True
    return isinstance(value, hint) and not (isinstance(value, type) and hint is not type)  # a class may look like what it makes


def is_whole(value: Any) -> bool:
    """A whole number, of numpy and torch too; True and False are none."""
    value = _scalar(value)
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    value = _scalar(value)
    return isinstance(value, Real) and not isinstance(value, bool)


def _scalar(value: Any) -> Any:
    """What a tensor or an array of no dimensions holds; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value


def _wrong(label: str, hint: Any, value: Any) -> str:
    got = f"the class {value.__name__} itself" if isinstance(value, type) else shown(value)
    if getattr(hint, "__name__", None) == "Intervention":
        return f"{label} must have hooks(batch), got {got}; make one of a function with @tl_reward.intervention(site)"
    return f"{label} must be {in_words(hint)}, got {got}"


_NAMES: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "True or False",
    "NoneType": "None",
    "Callable": "a function",
    "Mapping": "a dictionary",
    "Sequence": "a list",
    "list": "a list",
    "HookedRewardModel": "a reward model (tl_reward.load gives one)",
    "Source": "Source(model) or patch_between(model, other)",
    "dtype": "a torch.dtype",
}


def in_words(hint: Any) -> str:
    """A type in words.

    >>> in_words(int | None), in_words(Literal["a", "b", "c"]), in_words(Literal["a", "b"] | float), in_words(tuple[int, ...])
    ('a whole number or None', 'one of a, b, c', 'one of a, b, or a number', 'a whole number, or several')
    """
    origin = get_origin(hint)
    if origin is tuple:
        return f"{in_words(get_args(hint)[0])}, or several"
    if origin is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if origin in (Union, types.UnionType):
        parts = [in_words(each) for each in get_args(hint)]
        return f"{', '.join(parts[:-1])}{',' if parts[0].startswith('one of') else ''} or {parts[-1]}"
    if hasattr(hint, "array_type"):
        return f"a {hint.array_type.__name__.lower()}"
    name = getattr(origin or hint, "__name__", str(hint))
    return _NAMES.get(name, f"a {name}")
