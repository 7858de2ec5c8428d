"""Short pairs for repairs: every prompt a different one, every answer a few words."""

import random
from collections.abc import Iterator

from tl_reward.data.pairs import Message, PreferencePair

WORDS = ("yes", "no", "tea", "why", "because", "I", "will", "not", "the", "help", "a", "kettle")


def pair(name: str, prompt: str, chosen: str, rejected: str, **labels: str | None) -> PreferencePair:
    def side(answer: str) -> tuple[Message, Message]:
        return Message("user", prompt), Message("assistant", answer)

    return PreferencePair(name, side(chosen), side(rejected), **labels)


def answers(seed: str, count: int) -> list[str]:
    """Different ones, of one to six words."""
    drawn = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        found[" ".join(drawn.choices(WORDS, k=drawn.randint(1, 6)))] = None
    return [*found]


def plain_pairs(tag: str, prompts: int = 10, *, subsets: int = 1) -> list[PreferencePair]:
    """Two pairs a prompt, which have the chosen answer in common, and a subset by the prompt."""
    return [
        pair(f"{i}/{j}", f"{tag} {i}?", *_two(f"{tag}{i}", j), subset=f"s{i % subsets}" if subsets > 1 else None)
        for i in range(prompts)
        for j in range(2)
    ]


def _two(seed: str, j: int) -> tuple[str, str]:
    chosen, *rejected = answers(seed, 3)
    return chosen, rejected[j]


def styled_rows(tag: str, prompts: int = 10) -> list[PreferencePair]:
    """Rows as RM-Bench has them: three answers a side, of rising length, and a pair of each two."""
    return [*_styled(tag, prompts)]


def _styled(tag: str, prompts: int) -> Iterator[PreferencePair]:
    for i in range(prompts):
        six = answers(f"{tag}{i}", 6)
        chosen, rejected = sorted(six[:3], key=len), sorted(six[3:], key=len)
        for a in range(3):
            for b in range(3):
                yield pair(f"{i}/{a}-{b}", f"{tag} {i}?", chosen[a], rejected[b], group=str(i))


def rows_of_many(tag: str, prompts: int = 10, rejected: int = 16) -> list[PreferencePair]:
    """One chosen answer against many, so that a best of 16 can be drawn."""
    found = []
    for i in range(prompts):
        chosen, *others = answers(f"{tag}{i}", rejected + 1)
        found += [pair(f"{i}/{j}", f"{tag} {i}?", chosen, other, group=str(i)) for j, other in enumerate(others)]
    return found
