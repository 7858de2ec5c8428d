"""Pairs of a few words, of which two share a prompt, in turn helpful and harmless; and embedded pairs cut short."""

from collections.abc import Sequence
from dataclasses import replace

from tl_reward.data.pairs import Message, Objective, PreferencePair
from tl_reward.data.readers import load_pairs

TEXTS = [("Hi", "Hello!", "Go."), ("Hi", "Hello there.", "No"), ("What is tea?", "A drink.", "I do not know."), ("Bye", "See you.", "Ok")]
SHORT_PAIRS = [
    PreferencePair(
        f"{objective}:{i}",
        (Message("user", prompt), Message("assistant", good)),
        (Message("user", prompt), Message("assistant", bad)),
        objective=objective,
    )
    for i, (prompt, good, bad) in enumerate(TEXTS)
    for objective in [("helpful", "harmless")[i % 2]]
]


def embedded_pairs(split: str, limit: int, objective: Objective | None = None) -> list[PreferencePair]:
    """The embedded pairs, cut short."""
    return cut_short(load_pairs("embedded", split=split, objective=objective, limit=limit))


def cut_short(pairs: Sequence[PreferencePair]) -> list[PreferencePair]:
    """The pairs, each message cut to some 15 to 45 letters, so that a transcript takes 70 to 110 bytes in place of 340: what is compared
    with all transcripts one by one needs several lengths, not long ones."""
    return [
        replace(pair, chosen=_cut(pair.chosen, 15 + 11 * i % 31), rejected=_cut(pair.rejected, 15 + (7 + 17 * i) % 31))
        for i, pair in enumerate(pairs)
    ]


def _cut(messages: tuple[Message, ...], last: int) -> tuple[Message, ...]:
    """The prompt, which both sides share, to one length; the answer to another."""
    *prompt, answer = messages
    return (*(message._replace(content=message.content[:25]) for message in prompt), answer._replace(content=answer.content[:last]))
