"""How many pairs were read, and how many left out, and why: what every analysis says beside its numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from typing_extensions import TypedDict

from tl_reward.errors import InputError, did_you_mean


@dataclass
class Label:
    """A label that is asked for, a split or an objective, beside those that the rows of a source name. Rows that name none are taken for
    rows of it, unless others name labels, and all of them another one: then it is more likely misspelt.

    >>> label = Label("split", "tset")
    >>> label.takes("test"), label.takes(None)
    (False, True)
    >>> label.check("a.jsonl")
    Traceback (most recent call last):
    tl_reward.errors.InputError: a.jsonl: no split 'tset'; it has test; did you mean test?
    """

    kind: str
    asked: str | None
    others: set[str] = field(default_factory=set)
    met: int = 0
    unnamed: int = 0

    def takes(self, named: object) -> bool:
        """Whether a row that names this label, or None, is one that was asked for."""
        if self.asked is None:
            self.others |= set() if named is None else {str(named)}
            return True
        if named is None:
            self.unnamed += 1
            return True
        self.met += named == self.asked
        self.others |= set() if named == self.asked else {str(named)}
        return named == self.asked

    def check(self, source: str) -> None:
        """Raises InputError where rows name labels, and none of them that which was asked for."""
        if self.asked is not None and self.others and not self.met:
            lacks = f"split {self.asked!r}" if self.kind == "split" else f"{self.asked} pairs"
            raise InputError(f"{source}: no {lacks}; it has {', '.join(sorted(self.others))}{did_you_mean(self.asked, self.others)}")

    def said(self) -> list[str]:
        """What is to be known of the rows that name none, and of a source that is read whole."""
        if self.asked is None and self.kind == "split" and len(self.others) > 1:
            return [f"all splits, {' and '.join(sorted(self.others))}, are read: split= chooses one"]
        return (
            [f"{self.unnamed:,} {'rows' if self.kind == 'split' else 'pairs'} name no {self.kind}, and are taken for {self.asked!r}"]
            if self.unnamed
            else []
        )


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
