"""Which claims can a config's rows decide, and how many rows would decide the others? Asked before anything is computed.

The half-width of a claim's interval is the one that the claim's own code gives on stand-in scores of the config's rows (`stand_in`). A
number is decided where it is at most twice its tolerance. A difference is decided where it is below half of the study's effect, whether
that effect is there or none is; where the study gives no effect, below `expected.EFFECT`. Where scores are at hand, it is also said whether
the rule would decide if the value stayed as they have it. Intervals narrow with the square root of the prompts.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.console import Console

from tl_reward.measures.intervals import Estimate
from tl_reward.study.compute.inputs import Inputs
from tl_reward.study.expected import ACCURACY, CHANGED, CHANGED_AT_RANDOM, EFFECT
from tl_reward.study.findings.claims import NEURONS, PROMPTS, Claim, Verdict, claims, judge
from tl_reward.study.matrix import Matrix
from tl_reward.study.power.stand_in import stand_in
from tl_reward.study.rows import FEWEST

Word = Literal["yes", "as it stands", "no", "needs no rows", "not spoken to"]


class Power(NamedTuple):
    """What a config can say of a claim.

    Attributes:
        word: whether the rule will decide it. "as it stands": where the value stays as scores at hand have it. "needs no rows": a number
            of neurons, decided once these are found.
        half_width: of its interval, in the claim's unit; nan where there is none.
        decides_at: the half-width below which it is decided.
        prompts: that the interval is over; needed: how many would decide it.
    """

    claim: Claim
    word: Word
    half_width: float = math.nan
    decides_at: float = math.nan
    prompts: int = 0
    needed: int = 0
    lacks: str = ""


def decides_at(claim: Claim) -> float:
    if claim.kind == "number":
        return 2 * claim.tolerance
    return EFFECT if claim.study is None else abs(claim.study) / 2


def power_of(verdict: Verdict, at_hand: Verdict | None = None) -> Power:
    """Of a claim as it is judged on stand-ins, and as it is judged on what is at hand."""
    claim, ours = verdict.claim, verdict.ours
    if ours is None:
        return Power(claim, "not spoken to", lacks=verdict.lacks)
    if verdict.basis == NEURONS:
        return Power(claim, "needs no rows")
    assert verdict.basis == PROMPTS
    half, limit = (ours.high - ours.low) / 2, decides_at(claim)
    needed = max(FEWEST, math.ceil(ours.n * (half / limit) ** 2))
    enough = ours.n >= FEWEST and half < limit
    known = at_hand.ours if at_hand is not None else None
    stays = known is not None and ours.n >= FEWEST and _decided(claim, known.value, half)
    return Power(claim, "yes" if enough else "as it stands" if stays else "no", half, limit, ours.n, needed)


def _decided(claim: Claim, value: float, half: float) -> bool:
    return judge(claim, Estimate(value, value - half, value + half, FEWEST)).word != "cannot be tested here"


def powers(inputs: Inputs, out: Path) -> list[Power]:
    """Of every claim, in the order of `claims`. Runs no model."""
    made = stand_in(inputs, out)
    at_hand = claims(made.at_hand) if made.at_hand.scores else [None] * len(claims(Matrix()))
    return [power_of(verdict, known) for verdict, known in zip(claims(made.matrix), at_hand, strict=True)]


def print_power(inputs: Inputs, out: Path, console: Console) -> None:
    """Prints what each claim's interval will be, which cannot be decided, and what would decide them."""

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False)

    found = powers(inputs, out)
    say("Claims (decided; half-width of the interval, and below which it decides; prompts, and those that would decide):")
    for each in found:
        if each.word in ("yes", "as it stands", "no"):
            needed = "" if each.word == "yes" else f", needs about {each.needed:,}"
            say(f"  {each.word:13} ±{each.half_width:.3f} of ±{each.decides_at:.3f}, {each.prompts:,} prompts{needed}: {each.claim.text}")
    say(summary(found))
    say(
        "Half-widths are those that the claims' own code gives on stand-ins: of scores at hand where there are some, else of rows that are "
        f"right at {ACCURACY:g} and change sides at {CHANGED:g} (random neurons: {CHANGED_AT_RANDOM:g}). A difference of which the study "
        f"has no figure is measured by {EFFECT:g}. A yes is no promise: a true value between none and the study's effect may stay open."
    )


def summary(found: Sequence[Power]) -> str:
    count = {word: sum(each.word == word for each in found) for word in ("yes", "as it stands", "no", "needs no rows", "not spoken to")}
    drawn = count["yes"] + count["as it stands"] + count["no"]
    stands = f", {count['as it stands']} if ours stay as they are at hand" if count["as it stands"] else ""
    return (
        f"Of {len(found)} claims, {drawn + count['needs no rows']} can be spoken to by this config's models and data: "
        f"{count['needs no rows'] + count['yes']} will be decided ({count['needs no rows']} of them are of neurons, which need no rows)"
        f"{stands}, {count['no']} not."
    )
