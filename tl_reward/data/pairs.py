"""Preference pairs: what they are, and how a row of each schema becomes some.

A pair holds two transcripts, chosen and rejected. Every schema is read into the same form, messages with roles, so that the text a
model sees is written in one place only (`tl_reward.data.encoding`).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tl_reward.errors import InputError

Role = Literal["system", "user", "assistant"]
Objective = Literal["helpful", "harmless", "mixed"]
Overlong = Literal["drop", "left", "error"]  # what to do with a pair of which a side has more tokens than the model may be given

OBJECTIVES: tuple[Objective, ...] = ("helpful", "harmless", "mixed")
SCHEMAS = {
    "transcripts": "chosen, rejected: text with turns opened by '\\n\\nHuman:' and '\\n\\nAssistant:' (HH-RLHF, RMB)",
    "responses": "prompt, chosen, rejected: text (RewardBench, embedded pairs)",
    "messages": "chosen, rejected: lists of {role, content}, with or without a prompt of that form (TRL)",
    "best-of-n": "prompt, chosen, rejected: a list of texts on each side (RM-Bench, RewardBench 2)",
}
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
}
_TURN = re.compile(r"\n\n(Human|Assistant):")


class Message(NamedTuple):
    role: Role
    content: str


Transcript = tuple[Message, ...]


class BadPair(InputError):
    """A pair that says nothing: a side is empty, or both are equal. `load_pairs` can leave such pairs out."""


@dataclass(frozen=True)
class PreferencePair:
    """Two transcripts, of which `chosen` is the better one.

    `objective` is what the preference is about ("helpful" or "harmless"), `subset` the task within it. Pairs that come from one
    best-of-n row share a `group`: the row counts as right when every pair in it does. A transcript may end with an assistant turn that
    says nothing, as some of HH-RLHF's do.
    """

    id: str
    chosen: Transcript
    rejected: Transcript
    objective: str | None = None
    subset: str | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        for side in ("chosen", "rejected"):
            transcript: Transcript = getattr(self, side)
            if not transcript or transcript[-1].role != "assistant":
                last = transcript[-1].role if transcript else "nothing"
                raise InputError(f"pair {self.id}: {side} must end with an assistant message, got {last}")
        if self.chosen == self.rejected:
            raise BadPair(f"pair {self.id}: chosen and rejected are equal")


def parse_transcript(text: str) -> Transcript:
    """Splits a transcript with turns opened by `\\n\\nHuman:` and `\\n\\nAssistant:` into messages.

    One space after the colon belongs to the marker; the rest of the text is kept as it is.

    >>> parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant: Hello.")
    (Message(role='user', content='Hi'), Message(role='assistant', content='Hello.'))
    """
    head, *turns = _TURN.split(text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n"))
    if head.strip() or not turns:
        raise InputError(f"a transcript must open with '\\n\\nHuman:' or '\\n\\nAssistant:', got {text[:40]!r}")
    return tuple(
        Message("user" if speaker == "Human" else "assistant", content.removeprefix(" "))
        for speaker, content in zip(turns[::2], turns[1::2], strict=True)
    )


def check_unique_ids(pairs: Iterable[PreferencePair], source: str) -> None:
    """Raises InputError where two pairs share an id: reports, groups and intervals would mix them up."""
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise InputError(f"{source}: two pairs have the id {pair.id!r}; ids must be unique")
        seen.add(pair.id)


def pairs_of_row(row: Any, default_id: str) -> list[PreferencePair]:
    """The pairs of one row; its schema is told by the keys and by the types of `chosen` and `rejected`.

    Raises:
        BadPair: a side is empty, or both are equal.
        InputError: an unknown schema, or a message of another form than {role, content}.
    """
    if not isinstance(row, Mapping) or not {"chosen", "rejected"} <= set(row):
        found = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise InputError(f"unknown schema: found {found}; known: " + "; ".join(f"{k} ({v})" for k, v in SCHEMAS.items()))
    name = str(row["id"]) if row.get("id") is not None else default_id
    chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
    # RM-Bench on the hub calls it a domain.
    found = {"objective": row.get("objective"), "subset": row.get("domain") if row.get("subset") is None else row["subset"]}
    labels = {key: None if value is None else str(value) for key, value in found.items()}
    for side in ("chosen", "rejected"):
        if not row[side]:
            raise BadPair(f"pair {name}: {side} is empty")
    if _texts(chosen) and _texts(rejected):
        if prompt is None:
            raise InputError("a best-of-n row needs a prompt beside its lists of responses")
        good = [_transcript(prompt, text, f"pair {name}: chosen") for text in chosen]
        bad = [_transcript(prompt, text, f"pair {name}: rejected") for text in rejected]
        return [PreferencePair(f"{name}/{i}-{j}", a, b, **labels, group=name) for i, a in enumerate(good) for j, b in enumerate(bad)]
    good, bad = (_transcript(prompt, row[side], f"pair {name}: {side}") for side in ("chosen", "rejected"))
    return [PreferencePair(name, good, bad, **labels)]


def _texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, str) for item in value)


def _transcript(prompt: Any, side: Any, label: str) -> Transcript:
    """A transcript from a prompt (text, messages or none) and a side (transcript, response, or messages)."""
    if isinstance(side, str):
        if not side.strip():
            raise BadPair(f"{label} is empty")
        if prompt is None or side.startswith("\n\nHuman:"):
            return parse_transcript(side)
        if isinstance(prompt, str) and prompt.rstrip().endswith("\n\nAssistant:"):
            side = side.removeprefix(" ")  # the space after the marker
        return (*_prompt(prompt), Message("assistant", side))
    messages = _messages(side)
    if not messages[-1].content.strip():
        raise BadPair(f"{label} is empty")
    opening = () if prompt is None else _prompt(prompt)
    return messages if messages[: len(opening)] == opening else (*opening, *messages)


def _prompt(value: Any) -> Transcript:
    if not isinstance(value, str):
        return _messages(value)
    if not value.startswith("\n\nHuman:"):
        return (Message("user", value),)
    messages = parse_transcript(value)
    # A prompt may open the answer's turn; the answer itself follows from the side.
    return messages[:-1] if messages[-1].role == "assistant" and not messages[-1].content.strip() else messages


def _messages(value: Any) -> Transcript:
    if not isinstance(value, (list, tuple)):
        raise InputError(f"expected text or a list of {{role, content}}, got {type(value).__name__}")
    messages: list[Message] = []
    for item in value:
        role, content = (item.get("role"), item.get("content")) if isinstance(item, Mapping) else (None, None)
        if not isinstance(role, str) or role not in _ROLES or not isinstance(content, str):
            raise InputError(f"a message must hold a role ({', '.join(_ROLES)}) and text as content, got {str(item)[:60]!r}")
        messages.append(Message(_ROLES[role], content))
    return tuple(messages)


def data_hash(pairs: Sequence[PreferencePair]) -> str:
    """sha256 over the texts of the pairs, in their order: the same whatever file or hub they came from."""
    return hashlib.sha256("\n".join(map(pair_hash, pairs)).encode()).hexdigest()


def pair_hash(pair: PreferencePair) -> str:
    """The first 16 hex digits of a sha256 over the texts of a pair."""
    row = [[list(m) for m in pair.chosen], [list(m) for m in pair.rejected]]
    return hashlib.sha256(json.dumps(row, ensure_ascii=True).encode()).hexdigest()[:16]
