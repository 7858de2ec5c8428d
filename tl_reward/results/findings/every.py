"""What did a run find? At most eight plain sentences, each by a rule that does not depend on which of them would please."""

from collections.abc import Callable

from tl_reward.measures.intervals import FEW
from tl_reward.results.findings.edits import repaired, sets_zeroed, top_zeroed
from tl_reward.results.findings.estimates import edited_alone, estimates_hold
from tl_reward.results.findings.finding import Finding
from tl_reward.results.findings.neurons import answers_told_apart, in_conflict, shared_neurons
from tl_reward.results.findings.patching import decided_at, moves_most, read_out_holds, restored
from tl_reward.results.findings.preferences import prefer_chosen, prefer_rejected
from tl_reward.results.sections import Sections

MOST = 8
# By importance, and with the sections that they look at: what was changed and tested comes before what was only measured.
RULES: dict[Callable[[Sections], Finding | None], str] = {
    repaired: "repair",
    prefer_rejected: "scores",
    prefer_chosen: "scores",
    top_zeroed: "ablation",
    sets_zeroed: "sets",
    restored: "model_patching",
    in_conflict: "tension",
    shared_neurons: "overlap",
    moves_most: "patching",
    read_out_holds: "patching",
    decided_at: "lens",
    estimates_hold: "attribution",
    edited_alone: "effects",
    answers_told_apart: "discovery",
}


def findings_of(sections: Sections) -> list[Finding]:
    """The first eight of what the rules find, in their fixed order; where none finds anything, one that says so.

    Args:
        sections: `Results.sections`; they are as `Results.load` takes them.
    """
    found = [finding for rule in RULES if (finding := rule(sections)) is not None]
    return found[:MOST] or [_nothing(sections)]


def _nothing(sections: Sections) -> Finding:
    looked_at = [section for section in dict.fromkeys(RULES.values()) if section in sections]
    if not looked_at:
        return Finding(
            "No finding: this run holds nothing that a rule of findings looks at.",
            f"Rules look at {', '.join(dict.fromkeys(RULES.values()))}.",
            (),
        )
    return Finding(
        "No finding: nothing in this run meets a rule of findings.",
        f"Rules looked at {', '.join(looked_at)}. Intervals over fewer than {FEW} prompts are taken for none.",
        (),
    )
