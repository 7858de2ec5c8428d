"""What does a report say first? Ten sentences of the verdicts: what agrees, what differs, what remains open, with links to the rows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tl_reward.study.findings.claims import TOPICS, WORDS, Verdict, Word, in_order, said

_SAYS: Mapping[Word, tuple[str, str]] = dict(
    zip(WORDS, (("agrees", "agree"), ("differs", "differ"), ("remains open", "remain open")), strict=True)
)


class Part(NamedTuple):
    """A piece of a sentence, and the rows of the table of claims that it is about."""

    text: str
    rows: tuple[int, ...] = ()


Sentence = tuple[Part, ...]


def sentences(verdicts: Sequence[Verdict]) -> list[Sentence]:
    """One of all claims, and one of each topic."""
    numbered = [*enumerate(in_order(verdicts), 1)]
    by_topic = {topic: [(row, verdict) for row, verdict in numbered if verdict.topic == topic] for topic in TOPICS}
    return [(Part(said(verdicts)),), *(_of_topic(topic, found) for topic, found in by_topic.items())]


def _of_topic(topic: str, found: Sequence[tuple[int, Verdict]]) -> Sentence:
    parts = [Part(f"{topic[0].upper()}{topic[1:]}: of {len(found)} claims")]
    for i, word in enumerate(WORDS):
        rows = tuple(row for row, verdict in found if verdict.judged.word == word)
        lead = (" ", ", ", ", and ")[i]
        parts.append(Part(f"{lead}{len(rows) or 'none'} {_SAYS[word][len(rows) != 1]}", rows))
    return (*parts, *_why_open([verdict for _, verdict in found if verdict.judged.word == WORDS[2]]), Part("."))


def _why_open(left: Sequence[Verdict]) -> list[Part]:
    """What open claims lack, and how wide the others' intervals are; and what the margin says of these."""
    wide = [verdict for verdict in left if verdict.ours is not None]
    reasons = []
    if len(left) > len(wide):
        reasons.append(f"{len(left) - len(wide)} for want of models or data")
    if wide:
        widest = max((verdict.ours.high - verdict.ours.low) / 2 for verdict in wide if verdict.ours is not None)
        reasons.append(f"{len(wide)} for want of rows, at up to ±{widest:.3f}")
    beside = [verdict.judged_by_margin.word for verdict in wide if verdict.judged_by_margin is not None]
    decided = len(beside) - beside.count(WORDS[2])
    by_margin = f"; by margin {beside.count(WORDS[0])} of these would agree and {beside.count(WORDS[1])} differ" if decided else ""
    return [Part(f" ({' and '.join(reasons)}{by_margin})")] if reasons else []
