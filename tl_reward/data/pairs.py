"""Preference pairs: what they are, and how a row of each schema becomes some.

A pair holds two transcripts, chosen and rejected. Every schema is read into the same form, messages with roles, so that the text a
model sees is written in one place only (`tl_reward.data.encoding`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, Literal, get_args

from tl_reward.data.messages import (
    MESSAGES_AS_TEXT,
    BadPair,
    Message,
    Role,
    Transcript,
    has_turns,
    is_unicode,
    parse_transcript,
    read_messages,
    shown_short,
)
from tl_reward.errors import InputError

__all__ = (  # what else of a pair is made of: from here, as everything of pairs
    "ATTRIBUTES",
    "OBJECTIVES",
    "BadPair",
    "Message",
    "Objective",
    "Overlong",
    "PreferencePair",
    "Role",
    "Transcript",
    "check_unique_ids",
    "data_hash",
    "faults_of",
    "label_of",
    "labels_of",
    "pair_hash",
    "pairs_of_row",
    "pairs_of_sides",
    "parse_transcript",
)

# What a preference is about: of published pairs, and of answers that were rated by several attributes, by their published names.
Objective = Literal["helpful", "harmless", "mixed", "helpfulness", "correctness", "coherence", "complexity", "verbosity",
    "instruction_following", "honesty", "truthfulness"]  # fmt: skip
Overlong = Literal["drop", "left", "error"]  # what to do with a pair of which a side has more tokens than the model may be given

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)
ATTRIBUTES = OBJECTIVES[3:]
ECHO = 20  # characters of a prompt that responses do not all begin with by chance


@dataclass(frozen=True)
class PreferencePair:
    """Two transcripts, of which `chosen` is the better one.

    `objective` is what the preference is about ("helpful" or "harmless"), `subset` the task within it. Pairs that come from one
    best-of-n row share a `group`: the row counts as right when every pair in it does. A transcript may end with an assistant turn that
    says nothing, as some of HH-RLHF's do. `where` is the file and row that it was read from, for messages; pairs are equal without it.

    Transcripts may be given as lists, and messages as {role, content}.

    Raises:
        InputError: an id or a label that is no text, a side that is no list of messages or does not end with the assistant's, text that
            UTF-8 cannot hold (half of a surrogate pair).
    """

    id: str
    chosen: Transcript
    rejected: Transcript
    objective: str | None = None
    subset: str | None = None
    group: str | None = None
    where: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        _check_id(self.id)
        for name in ("objective", "subset", "group"):
            label = getattr(self, name)
            if label is not None and not (isinstance(label, str) and is_unicode(label)):
                raise InputError(f"pair {self.id}: {name} must be text or None, got {shown_short(label)}")
        for side in ("chosen", "rejected"):
            with _said_of(f"pair {self.id}: {side}"):
                transcript = read_messages(getattr(self, side))
            object.__setattr__(self, side, transcript)
            if not transcript or transcript[-1].role != "assistant":
                last = transcript[-1].role if transcript else "nothing"
                raise InputError(f"pair {self.id}: {side} must end with an assistant message, got {last}")
        if self.chosen == self.rejected:
            raise BadPair(f"pair {self.id}: chosen and rejected are equal", "the sides are equal")

    @property
    def faults(self) -> tuple[str, ...]:
        """What is odd about it and yet allowed; `load_pairs` and runs say how many pairs have each."""
        # A list of what holds, in a fixed order.
        blank = not any(message.content.strip() for message in self.chosen[:-1])
        return tuple(
            name
            for name, holds in (
                ("with two sides of different prompts", self.chosen[:-1] != self.rejected[:-1]),
                ("with a blank prompt", blank),
                ("with a NUL character", any("\0" in message.content for message in (*self.chosen, *self.rejected))),
            )
            if holds
        )


def _check_id(name: Any) -> None:
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise InputError(f"a pair's id must be printable text, got {shown_short(name)}")


def faults_of(pairs: Sequence[PreferencePair]) -> Counter[str]:
    """What is odd about some pairs, and how many are so."""
    found = Counter(fault for pair in pairs for fault in pair.faults)
    found["there more than once"] = len(pairs) - len({(pair.chosen, pair.rejected) for pair in pairs})
    return +found


def check_unique_ids(pairs: Iterable[PreferencePair], source: str) -> None:
    """Raises InputError where two pairs, or a pair and a best-of-n row, share an id: reports, groups and intervals would mix them up."""
    pairs = list(pairs)
    seen: dict[str, str | None] = {}
    for pair in pairs:
        if not isinstance(pair, PreferencePair):
            made = "tl_reward.pairs_from makes them of rows, tl_reward.load_pairs of files"
            raise InputError(f"{source} must be PreferencePairs, got {type(pair).__name__}; {made}")
        if pair.id in seen:
            places = f" ({seen[pair.id]} and {pair.where})" if seen[pair.id] and pair.where else ""
            raise InputError(f"{source}: two pairs have the id {pair.id!r}{places}; ids must be unique")
        seen[pair.id] = pair.where
    if both := next((pair.group for pair in pairs if pair.group in seen and pair.group != pair.id), None):
        raise InputError(f"{source}: {both!r} is the id of a pair and of a best-of-n row; ids must be unique")


def pairs_of_row(row: Any, default_id: str, where: str | None = None) -> list[PreferencePair]:
    """The pairs of one row that holds `chosen` and `rejected`; what else it may hold: `prompt`, `system`, `id`, `objective`, `subset`. The
    rows of every other schema are read by `tl_reward.data.schemas.registry`.

    Args:
        where: the file and row, which the pairs keep.

    Raises:
        BadPair, InputError: as `pairs_of_sides`; a row without one of the sides.
    """
    if not isinstance(row, Mapping) or not {"chosen", "rejected"} <= set(row):
        found = ", ".join(map(str, row))[:200] if isinstance(row, Mapping) else type(row).__name__
        raise InputError(f"a row must hold chosen and rejected, got {found}")
    return pairs_of_sides(
        label_of("id", row.get("id")) or default_id,
        row.get("prompt"),
        row["chosen"],
        row["rejected"],
        system=row.get("system"),
        where=where,
        **labels_of(row),
    )


def pairs_of_sides(
    name: str,
    prompt: Any,
    chosen: Any,
    rejected: Any,
    *,
    system: Any = None,
    objective: str | None = None,
    subset: str | None = None,
    group: str | None = None,
    where: str | None = None,
) -> list[PreferencePair]:
    """One pair, or every pair of a chosen with a rejected one where both sides are lists of texts (best-of-n).

    A prompt that the sides hold too is there once in what the model reads: where they begin with it (behind a system turn, or with other
    spaces around it), or end with it before the answer.

    Args:
        name: the pair's id.
        prompt: text, messages, or none where the sides hold it.
        chosen, rejected: a transcript as text, the text of an answer, messages, or a list of texts.
        system: the text of a system turn before everything else.

    Raises:
        BadPair: a side is empty, or both are equal.
        InputError: a message of another form than {role, content}, a prompt of which it is not certain whether the sides hold it, a system
            turn beside another one.
    """
    _check_id(name)
    for side, value in (("chosen", chosen), ("rejected", rejected)):
        if not value or value != value:  # nan, which a table has for what is not there
            raise BadPair(f"pair {name}: {side} is empty", "a side is empty")
    listed = _texts(chosen) and _texts(rejected)
    if listed and prompt is None:
        raise InputError("a best-of-n row needs a prompt beside its lists of responses")
    good, bad = (
        [_behind(system, _transcript(prompt, text, label), label) for text in (value if listed else [value])]
        for label, value in ((f"pair {name}: chosen", chosen), (f"pair {name}: rejected", rejected))
    )
    _refuse_echo(prompt, [*chosen, *rejected] if listed else [chosen, rejected], name)
    if not listed:
        return [PreferencePair(name, good[0], bad[0], objective, subset, group, where)]
    return [
        PreferencePair(f"{name}/{i}-{j}", a, b, objective, subset, group or name, where)
        for i, a in enumerate(good)
        for j, b in enumerate(bad)
    ]


def _behind(system: Any, transcript: Transcript, label: str) -> Transcript:
    """A transcript with a system turn before it; as it is where it has that one, or where there is none."""
    if system is None or (isinstance(system, float) and system != system) or (isinstance(system, str) and not system.strip()):
        return transcript
    if not isinstance(system, str):
        raise InputError(f"system must be text, got {shown_short(system)}")
    first = transcript[0]
    if first.role != "system":
        return (Message("system", system), *transcript)
    if first.content.strip() != system.strip():
        raise InputError(
            f"{label} begins with a system turn of its own ({shown_short(first.content)}) beside the column system: leave one out"
        )
    return transcript


def labels_of(row: Mapping[Any, Any]) -> dict[str, str | None]:
    """The objective and the subset that a row names."""
    # RM-Bench on the hub calls it a domain.
    found = {"objective": row.get("objective"), "subset": row.get("domain") if row.get("subset") is None else row["subset"]}
    return {key: label_of(key, value) for key, value in found.items()}


def label_of(key: str, value: Any) -> str | None:
    """Ids and labels are text or whole numbers; what a table leaves out is None, or nan."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if isinstance(value, bool) or not isinstance(value, (str, Real)):
        raise InputError(f"{key} must be text or a number, got {shown_short(value)}")
    return str(value)


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _transcript(prompt: Any, side: Any, label: str) -> Transcript:
    """A transcript from a prompt (text, messages or none) and a side (transcript, response, or messages)."""
    whole = True  # the side is messages, or text with turns of its own; else the text of the answer
    if isinstance(side, str):
        if not side.strip():
            raise BadPair(f"{label} is empty", "a side is empty")
        if MESSAGES_AS_TEXT.match(side):
            why = f"{label} is a list of messages that was written as text: read it first (json.loads, ast.literal_eval)"
            raise BadPair(why, "a side is a list of messages that was written as text")
        whole = prompt is None or has_turns(side)
        if isinstance(prompt, str) and prompt.rstrip().endswith("\n\nAssistant:"):
            side = side.removeprefix(" ")  # the space after the marker
    with _said_of(label):
        messages = read_messages(side) if not isinstance(side, str) else parse_transcript(side) if whole else (Message("assistant", side),)
    if not isinstance(side, str) and not messages[-1].content.strip():
        raise BadPair(f"{label} is empty", "a side is empty")
    blank = isinstance(prompt, str) and not prompt.strip() and messages[0].role != "assistant"
    if prompt is None or blank:
        return messages
    with _said_of("prompt"):
        asked = _prompt(prompt)
    return _joined(asked, messages, label)


@contextmanager
def _said_of(label: str) -> Iterator[None]:
    """Says of what a complaint is that names only what is wrong."""
    try:
        yield
    except BadPair as error:
        raise BadPair(f"{label}: {error}", error.reason) from None
    except InputError as error:
        raise InputError(f"{label}: {error}") from None


def _joined(prompt: Transcript, side: Transcript, label: str) -> Transcript:
    """The prompt before a side, or the side alone where it holds the prompt already."""
    said, asked = ([Message(role, content.strip()) for role, content in messages] for messages in (side, prompt))
    turns, question = (_without_system(messages) for messages in (said, asked))
    if said[: len(asked)] == asked or said[-1 - len(asked) : -1] == asked:
        return side
    if question and turns[: len(question)] == question and (said == turns or asked == question):
        return side if asked == question else (*prompt[: len(asked) - len(question)], *side)  # one of them has a system turn besides
    again = next((content for role, content in said[:-1] if content and (role, content) in asked), None)
    if again is not None:
        raise InputError(f"{label} holds a part of the prompt ({shown_short(again)}) and not the whole: leave one of the two out")
    before, after = prompt[-1].role if prompt else "nothing", side[0].role
    if before == after or (before != "nothing" and after == "system"):
        raise InputError(
            f"{label} begins with a message of the {after} that is not in the prompt, which ends with one of the {before}: put them "
            "into one list, or leave the prompt out"
        )
    return (*prompt, *side)


def _without_system(messages: list[Message]) -> list[Message]:
    first = next((i for i, (role, _) in enumerate(messages) if role != "system"), len(messages))
    return messages[first:]


def _refuse_echo(prompt: Any, sides: Sequence[Any], name: str) -> None:
    """Responses may repeat a few words of the prompt; where each of them begins with all of it, they may be whole transcripts."""
    text = prompt.strip() if isinstance(prompt, str) else ""
    if len(text) >= ECHO and all(isinstance(side, str) and not has_turns(side) and side.lstrip().startswith(text) for side in sides):
        raise InputError(
            f"pair {name}: every response begins with the text of the prompt ({shown_short(text)}), which the model would read twice: "
            "take it out of the responses"
        )


def _prompt(value: Any) -> Transcript:
    if not isinstance(value, str):
        return read_messages(value)
    if not has_turns(value):
        return (Message("user", value),)
    messages = parse_transcript(value)
    # A prompt may open the answer's turn; the answer itself follows from the side.
    return messages[:-1] if messages[-1].role == "assistant" and not messages[-1].content.strip() else messages


def data_hash(pairs: Sequence[PreferencePair]) -> str:
    """sha256 over the texts of the pairs, in their order: the same whatever file or hub they came from. Raises InputError for rows."""
    if not all(isinstance(pair, PreferencePair) for pair in pairs):
        raise InputError("data must be PreferencePairs; tl_reward.pairs_from makes them of rows, tl_reward.load_pairs of files")
    return hashlib.sha256("\n".join(map(pair_hash, pairs)).encode()).hexdigest()


def pair_hash(pair: PreferencePair) -> str:
    """The first 16 hex digits of a sha256 over the texts of a pair."""
    row = [[list(m) for m in pair.chosen], [list(m) for m in pair.rejected]]
    return hashlib.sha256(json.dumps(row, ensure_ascii=True).encode()).hexdigest()[:16]
