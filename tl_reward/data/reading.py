"""How many pairs were read, and how many left out, and why: what every analysis says beside its numbers."""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from typing_extensions import TypedDict


class ReadingJson(TypedDict):
    """A `Reading`."""

    given: int
    left_out: dict[str, int]
    noted: dict[str, int]
    template_date: str | None


class Reading(NamedTuple):
    """What became of the pairs that a function was given, on their way into the model.

    Attributes:
        given: the pairs that the function was given.
        left_out: how many of them it left out, by reason.
        noted: what is to be known of those it read, such as "read as equal": two sides of the very same tokens, so that their margin is 0;
            and how many are so.
        template_date: the date that the chat template got as today's (`text.TEMPLATE_DATE`), or None where it asks for none.
    """

    given: int
    left_out: Mapping[str, int] = {}
    noted: Mapping[str, int] = {}
    template_date: str | None = None

    @property
    def dropped(self) -> int:
        """How many pairs were left out in all."""
        return sum(self.left_out.values())

    def __add__(self, other: object) -> "Reading":  # that of a tuple would join the fields
        """Of two lots of pairs together."""
        if not isinstance(other, Reading):
            return NotImplemented
        left_out, noted = (dict(Counter(a) + Counter(b)) for a, b in ((self.left_out, other.left_out), (self.noted, other.noted)))
        return Reading(self.given + other.given, left_out, noted, self.template_date or other.template_date)

    def to_json(self) -> ReadingJson:
        return {"given": self.given, "left_out": dict(self.left_out), "noted": dict(self.noted), "template_date": self.template_date}


def in_words(reading: ReadingJson) -> str:
    """What is to be known of a reading, in a line; "" where there is nothing.

    >>> in_words(Reading(45, {"longer than 1,024 tokens (max_length)": 36}, {"read as equal": 1}).to_json())
    '36 of 45 pairs left out: 36 longer than 1,024 tokens (max_length). Of the 9 read: 1 read as equal.'
    """
    parts = []
    given, out = reading["given"], sum(reading["left_out"].values())
    if out:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in reading["left_out"].items())
        parts.append(f"{out:,} of {given:,} pairs left out: {reasons}.")
    if reading["noted"]:
        parts.append(f"Of the {given - out:,} read: {', '.join(f'{count:,} {what}' for what, count in reading['noted'].items())}.")
    if reading["template_date"]:
        parts.append(f"Today is {reading['template_date']} for the chat template.")
    return " ".join(parts)
