"""What a schema is: the keys that tell it, and a pure function from its rows to comparisons. Also the fields that rows have in common."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeVar

from tl_reward.data.messages import BadPair, shown_short
from tl_reward.errors import InputError

Row = Mapping[str, Any]
T = TypeVar("T")


class Comparison(NamedTuple):
    """Two answers to a prompt, of which `chosen` is the better one: what `pairs_of_sides` makes a pair of.

    Attributes:
        part: the end of the pair's id, where a row gives several.
        objective, subset: of this comparison; None where the row's own labels hold.
    """

    prompt: Any
    chosen: Any
    rejected: Any
    system: Any = None
    objective: str | None = None
    subset: str | None = None
    part: str = ""


class LeftOut(NamedTuple):
    """A comparison that says nothing of which answer is better, and why: "the vote is a tie"."""

    reason: str


Read = Iterator[Comparison | LeftOut]


class Schema(NamedTuple):
    """Rows of one form, as they are published.

    Attributes:
        name: what messages and the guide call it.
        keys: the keys that a row of it has; others may be there too.
        read: the comparisons of a row, or of the rows that are read together.
        pairs: what becomes a pair, in a sentence.
        published: where rows are published in this form.
        id: the key of a row's id, where it is another than "id".
        together: a key: consecutive rows that have one value of it are read together, as answers to one prompt.
        ranked: the pairs of a row are a ranking, and share a group: the row counts as right where all of them are.
        by: the same for objectives that a row has besides, and of which it gives pairs only where one is asked for.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Sequence[Row]], Read]
    pairs: str
    published: str
    id: str = "id"
    together: str | None = None
    ranked: bool = False
    by: Mapping[str, Callable[[Sequence[Row]], Read]] = {}


def one_row(read: Callable[[Row], Read]) -> Callable[[Sequence[Row]], Read]:
    """For a schema that needs a single row to make a comparison."""
    return lambda rows: read(rows[0])


def said_by(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def answer(text: str) -> list[dict[str, str]]:
    """The text of an answer as it stands, whatever it begins with."""
    return [said_by("assistant", text)]


def question(text: str) -> list[dict[str, str]]:
    """The text of a prompt as it stands."""
    return [said_by("user", text)]


def text_at(row: Row, key: str) -> str:
    """Raises BadPair where it is empty, InputError where it is no text."""
    value = row.get(key)
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        raise BadPair(f"{key} is empty", "a side is empty" if key not in PROMPTS else "the prompt is empty")
    if not isinstance(value, str):
        raise InputError(f"{key} must be text, got {shown_short(value)}")
    return value


PROMPTS = ("prompt", "question", "history", "instruction", "input", "post", "article")


def prompt_at(row: Row) -> Any:
    """The prompt of a row: text, which may be a transcript, or messages."""
    value = row.get("prompt")
    return value if isinstance(value, (list, tuple)) and value else text_at(row, "prompt")


def list_at(row: Row, key: str, least: int = 1) -> list[Any]:
    value = row.get(key)
    if not isinstance(value, (list, tuple)) or len(value) < least:
        raise InputError(f"{key} must be a list of at least {least}, got {shown_short(value)}")
    return list(value)


def one_of(row: Row, key: str, allowed: Mapping[Any, T]) -> T:
    """What a label stands for. Whole numbers may come as text, as a table has them, as 1.0, or as a truth.

    Raises:
        InputError: a label that is not among those allowed.
    """
    value = row.get(key)
    number = number_of(value)
    for each in (number, value) if number is not None else (value,):
        if isinstance(each, (str, int, float)) and each in allowed:
            return allowed[each]
    raise InputError(f"{key} must be one of {listed(allowed)}, got {shown_short(value)}")


def number_at(row: Row, key: str, least: float | None = None, most: float | None = None) -> float:
    """Raises InputError where it is no finite number, or outside of its range."""
    number = number_of(row.get(key))
    inside = number is not None and (least is None or least <= number) and (most is None or number <= most)
    if number is None or not inside:
        span = f"a number from {least:g} to {most:g}" if least is not None and most is not None else "a number"
        raise InputError(f"{key} must be {span}, got {shown_short(row.get(key))}")
    return number


def number_of(value: Any) -> float | None:
    """A finite number, or the text of one; None for all else."""
    try:
        number = float(value) if isinstance(value, (str, Real)) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and abs(number) < float("inf") else None


def is_missing(value: Any) -> bool:
    """What a table leaves out is None, or nan."""
    return value is None or (isinstance(value, float) and value != value)


def listed(names: Collection[Any]) -> str:
    return ", ".join(map(str, names))
