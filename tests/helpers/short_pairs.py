"""Pairs of a few words, of which two share a prompt, in turn helpful and harmless."""

from tl_reward.data.pairs import Message, PreferencePair

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
