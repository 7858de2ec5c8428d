"""Numbers and names as the sentences of findings have them. A name is a stranger's text: one line, and not a long one."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from tl_reward.measures.intervals import FEW, bracket_text
from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson, ScoresJson, ScoreSummaryJson
from tl_reward.results.sections import AblationEntry, ModelPatchingEntry, SetsEntry

MOST = 4  # clauses of one sentence


def clipped(text: str, most: int = 60) -> str:
    """
    >>> clipped("he\\x1b[31mlp \\u202e a\\nb")
    'he[31mlp a b'
    """
    line = " ".join("".join(each for each in text if each.isspace() or unicodedata.category(each)[0] != "C").split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def percent(share: float) -> str:
    """
    >>> percent(0.714), percent(0.004)
    ('71 %', '0.4 %')
    """
    return f"{100 * share:.{1 if 0 < abs(share) < 0.02 else 0}f} %"


def span(low: float, high: float) -> str:
    """
    >>> span(0.48, 0.531), span(0.2143, 0.2143)
    ('48 to 53 %', '21 %')
    """
    one, other = percent(low), percent(high)
    return other if one == other else f"{one.removesuffix(' %')} to {other}"


def with_interval(value: EstimateJson | MaybeEstimateJson) -> str:
    """A share as per cent.

    >>> estimate = {"value": 0.714, "low": 0.571, "high": 0.857, "n": 42}
    >>> with_interval(estimate), with_interval(estimate | {"n": 3})
    ('71 % [57, 86]', '71 % [57, 86]*')
    """
    low, high = (None if end is None else 100 * end for end in (value.get("low"), value.get("high")))
    return f"{percent(value['value'] or 0)} {bracket_text(low, high, value['n'], '.0f')}"


def to_digits(value: EstimateJson | MaybeEstimateJson, form: str = ".2f") -> str:
    return f"{value['value'] or 0:{form}} {bracket_text(value.get('low'), value.get('high'), value['n'], form)}"


def starred(text: str) -> str:
    """What the star of an interval means, for a text that has one."""
    return f" *: over fewer than {FEW}, so that the interval is rough." if "]*" in text else ""


def each_named(entry: ScoresJson) -> Mapping[str, ScoreSummaryJson]:
    """The scores of each objective; none where some pairs name no objective, so that these are not left out in silence."""
    parts = entry["objectives"]
    return parts if sum(part["pairs"] for part in parts.values()) == entry["pairs"] else {}


def number_of(count: int, what: str) -> str:
    """
    >>> number_of(1, "prompt"), number_of(1200, "prompt")
    ('1 prompt', '1,200 prompts')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def found_by_tested(entries: Iterable[AblationEntry | SetsEntry | ModelPatchingEntry]) -> str:
    """A caution, where neurons were tested on pairs that found them, or where nobody recorded which did."""
    said = {}
    for entry in entries:
        both, tested = entry["tested_pairs_that_found"], pairs_of(entry["clean"]["pairs"], entry["dataset"])
        if both is None:
            said[f" CAUTION: it is not recorded which pairs found the neurons that were tested on {tested}."] = None
        elif both:
            said[f" CAUTION: {both:,} of all {tested} that were tested also found the neurons."] = None
    return "".join(said)


def pairs_of(count: int | None, dataset: str, prompts: int | None = None, objective: str = "") -> str:
    """How many pairs, where that is given, and which.

    >>> pairs_of(42, "embedded helpful, test", 42), pairs_of(80, "mine", 60, "helpful")
    ('42 embedded helpful test pairs', '80 helpful pairs of mine (60 prompts)')
    """
    split = re.fullmatch(r"([\w ]+), (find|tune|test|train)", clipped(dataset))
    named = f"{split[1]} {split[2]} pairs" if split and not objective else f"{clipped(objective)} pairs of {clipped(dataset)}".strip()
    counted = named if count is None else f"{count:,} {named}"
    return counted if prompts is None or prompts == count else f"{counted} ({number_of(prompts, 'prompt')})"


def units(site: str, count: int = 0) -> str:
    """
    >>> units("mlp_post"), units("attn_z", 1)
    ('neurons', 'attention head')
    """
    return f"{'attention head' if 'attn_z' in site else 'neuron'}{'' if count == 1 else 's'}"


def listed(parts: Sequence[str], *, most: int = MOST, comma: str = ", ") -> str:
    """
    >>> listed(["a", "b", "c"]), listed(["a", "b", "c"], most=2), listed(["a", "b"], comma="; ")
    ('a, b and c', 'a, b and 1 more', 'a; b')
    """
    if len(parts) > most:
        return f"{comma.join(parts[:most])} and {len(parts) - most:,} more"
    return comma.join(parts) if comma != ", " or len(parts) < 2 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def share_of_all(fraction: float) -> str:
    """
    >>> share_of_all(0.1), share_of_all(0.005)
    ('10 %', '0.5 %')
    """
    return f"{100 * fraction:g} %"


def counted(looked_at: int, clear: int, corrected: str = "with intervals made wider for {}", *, among: int | None = None) -> str:
    """What every rule ends with: of how many it speaks, and what that does to the interval, or the p-value, of each.

    Args:
        corrected: what is done for as many as there are, which stand in the place of its braces; "" where nothing is.
        among: how many intervals or p-values these have together, where it is more than one each.

    >>> counted(4, 1), counted(2, 1, among=62), counted(1, 1)
    ('Looked at: 4, with intervals made wider for 4 (Bonferroni); clear: 1.', \
'Looked at: 2, with intervals made wider for 62 (Bonferroni); clear: 1.', 'Looked at: 1; clear: 1.')
    """
    among = among or looked_at
    how = f", {corrected.format(f'{among:,}')} (Bonferroni)" if among > 1 and corrected else ""
    return f"Looked at: {looked_at:,}{how}; clear: {clear:,}."


def others(looked_at: int, clear: int) -> str:
    """That not all of those looked at are as the sentence says: nobody is to take a part for the whole."""
    left = looked_at - clear
    return "" if left <= 0 else f" The other {left:,} of {looked_at:,} looked at {'does' if left == 1 else 'do'} not meet this rule."
