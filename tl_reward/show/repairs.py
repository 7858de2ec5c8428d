"""What a run's repair says, in words: the same in a terminal and on the page. Names of data sets and models in it are a stranger's text."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tl_reward.measures.json_types import ComparedJson, MaybeEstimateJson, PairedJson, ShiftJson
from tl_reward.results.findings.edits import biases_counted
from tl_reward.results.findings.words import clipped as one_line
from tl_reward.results.sections import RepairEntry
from tl_reward.show.intervals import bracket, ends


class TestedOn(NamedTuple):
    """An objective's test pairs, or a protected set: the repair there, and what could have done the same."""

    name: str
    protected: bool
    repaired: ComparedJson
    controls: list[ComparedJson]

    @property
    def kind(self) -> str:
        return "protected" if self.protected else "objective"


def tested_on(entry: RepairEntry) -> list[TestedOn]:
    """Objectives first, then protected sets."""
    rows = [row for row in entry["evidence"] if row["kind"] == "repaired"]
    return [
        TestedOn(
            row["tested"],
            row["protected"],
            row,
            [other for other in entry["evidence"] if other["tested"] == row["tested"] and other != row],
        )
        for row in sorted(rows, key=lambda row: row["protected"])
    ]


def label_of(row: ComparedJson) -> str:
    """What is beside the model as it is: the repair, or a control."""
    told = {"repaired": "the repair", "random": "random neurons instead", "uniform": "all neurons alike"}
    return told.get(row["kind"], f"model {row['name']}")


def share_edited(entry: RepairEntry) -> str:
    """How many neurons are edited, of how many."""
    every = entry["shape"][0] * entry["shape"][1]
    return f"{len(entry['neurons']):,} of {every:,} neurons ({100 * len(entry['neurons']) / max(1, every):.1f} %)"


def gates_in_words(entry: RepairEntry) -> str:
    """What the edited neurons are multiplied by."""
    low, high = min(entry["gates"]), max(entry["gates"])
    return f"{low:g}" if low == high else f"{low:.2g} to {high:.2g}"


def biases(entry: RepairEntry, *, most: int = 4) -> str:
    """Whether a bias was reversed, got worse, or none did: what a reader has to know first.

    Args:
        most: how many are named of each kind.
    """
    if entry["chosen"] is None:
        return "Nothing is edited, so nothing else moved."
    measured = [(tested, each) for tested, each in _shifts(entry) if each["good"] == "near 0"]
    if not measured:
        return "Whether a bias moved is not known: none was measured."
    said = []
    for verdict, what in (("reversed", "reversed"), ("worse", "worse")):
        if found := [each for each in measured if each[1]["verdict"] == verdict]:
            said.append(f"{len(found)} of {len(measured)} figures of bias {_is(found)} {what}: {_listed(found, most)}.")
    return " ".join(said) or f"Of {len(measured)} figures of bias, none was reversed or clearly got worse."


def also_worse(entry: RepairEntry, *, most: int = 4) -> str:
    """Figures of which a high one is good, such as the accuracy on a part, that fell; empty where none did."""
    found = [each for each in _shifts(entry) if each[1]["good"] == "high" and each[1]["verdict"] == "worse"]
    return f"Also worse: {_listed(found, most)}." if found else ""


def _is(found: Sequence[object]) -> str:
    return "is" if len(found) == 1 else "are"


def _shifts(entry: RepairEntry) -> Iterator[tuple[str, ShiftJson]]:
    for tested, shifts in entry["shifts"].items():
        yield from ((tested, each) for each in shifts)


def _listed(found: Sequence[tuple[str, ShiftJson]], most: int) -> str:
    parts = [f'"{clipped(each["name"])}" on {clipped(tested)} ({before_after(each, form_of(each, 2))})' for tested, each in found[:most]]
    return ", ".join(parts) + (f", and {len(found) - most} more" if len(found) > most else "")


def claims(entry: RepairEntry) -> str:
    """What the repair does to the accuracy on each objective and protected set, in a line."""
    of = [
        f"{clipped(each.name)} {with_interval(each.repaired['accuracy']['difference'])}, {each.repaired['verdict']}"
        for each in tested_on(entry)
    ]
    return f"Accuracy: {'; '.join(of)}."


def chance(entry: RepairEntry) -> str:
    """How many figures of a battery move by chance."""
    count = sum(map(len, entry["shifts"].values()))
    return f"Of {count} figures, each with an interval of 95 %, about {count / 20:.0f} would move clearly by chance alone."


def verdicts(entry: RepairEntry) -> str:
    """On which pairs the repair is better, worse, or neither, in a line."""
    told = {"better": "clearly more accurate on", "worse": "clearly less accurate on", "no clear change": "no clear change on"}
    parts = []
    for verdict, what in told.items():
        names = [clipped(each.name, 20) for each in tested_on(entry) if each.repaired["verdict"] == verdict]
        if names:
            parts.append(f"{what} {', '.join(names[:2])}{f' and {len(names) - 2} more' if len(names) > 2 else ''}")
    said = "; ".join(parts)
    return f"{said[:1].upper()}{said[1:]}."


def biases_in_a_line(entry: RepairEntry) -> str:
    """What `biases` says, without names."""
    return biases_counted(entry) or biases(entry)


def how_chosen(entry: RepairEntry) -> str:
    """How many candidates there were, the rule, and which one it chose."""
    count = sum(each["way"] != "uniform" for each in entry["tried"])
    if entry["chosen"] is None:
        found = nothing_chosen(entry)
    else:
        found = f"Chosen: {entry['chosen']}, which is {share_edited(entry)}, each multiplied by {gates_in_words(entry)}."
    rule = f"The rule: {entry['rule']} Tolerated: {entry['tolerance']:g}."
    return f"{count:,} candidates were tried on the tune pairs. {rule} {found}"


def nothing_chosen(entry: RepairEntry) -> str:
    return f"No candidate improved the tune pairs on average without a loss of more than {entry['tolerance']:g} on an objective."


def power(entry: RepairEntry) -> str:
    """How small a change the test could have seen: the half-width of its intervals. Where no pair changed sides, and where nothing is
    edited, a paired difference has no width: then that of the accuracy itself."""
    of = [f"{_known(each)} on {clipped(each.name)} ({each.repaired['accuracy']['before']['n']:,} prompts)" for each in tested_on(entry)]
    if entry["chosen"] is None:
        return f"The test knows accuracy to {', '.join(of)} (95 % intervals): it could hardly have seen a smaller gain."
    return f"The test knows differences of accuracy to {', '.join(of)} (95 % intervals): it could hardly have seen smaller ones."


def power_on_objectives(entry: RepairEntry) -> str:
    """The same of a repair that edits nothing, in a line."""
    of = [f"{_known(each)} on {clipped(each.name, 20)}" for each in tested_on(entry) if not each.protected]
    return f"The test knows accuracy to {', '.join(of[:2])}{', and others' if len(of) > 2 else ''}."


def _known(each: TestedOn) -> str:
    accuracy = each.repaired["accuracy"]
    width = half_width(accuracy["difference"]) or half_width(accuracy["before"])
    return "an unknown degree" if width is None else f"±{width:.3f}"


def half_width(value: MaybeEstimateJson) -> float | None:
    found = ends(value)
    return None if found is None else (found[1] - found[0]) / 2


def sizes(entry: RepairEntry) -> str:
    """How many pairs and prompts each split has."""
    splits: dict[str, list[str]] = {}
    for each in entry["splits"]:
        splits.setdefault(each["split"], []).append(f"{clipped(each['name'])} {each['pairs']:,} ({each['prompts']:,})")
    said = [f"{split}: {', '.join(parts)}" for split, parts in splits.items()]
    return f"Pairs (prompts): {'; '.join(said)}."


MEANING = (
    "Accuracy is the share of pairs in which the chosen answer gets more reward. Differences are paired, with 95 % bootstrap intervals "
    "over prompts; the verdict says on which side of 0 that of accuracy is, where flipping the signs of prompts' changes agrees (p at most "
    "0.05). Margins are in standard deviations of each model's own rewards, so that a mere rescaling is no gain. Random: the same gates on "
    "other neurons of the same layers. Uniform: all MLP neurons scaled alike, by the factor that did best on the tune pairs."
)


def form_of(shift: ShiftJson, digits: int = 3) -> str:
    """A bias has a sign that matters."""
    return f"+.{digits}f" if shift["good"] == "near 0" else f".{digits}f"


def before_after(value: PairedJson | ShiftJson, form: str = ".3f") -> str:
    """
    >>> before_after({"before": {"value": 0.5, "n": 9}, "after": {"value": 0.625, "n": 9}, "difference": {"value": 0.125, "n": 9}})
    '0.500 → 0.625'
    """
    return f"{number(value['before']['value'], form)} → {number(value['after']['value'], form)}"


def with_interval(value: MaybeEstimateJson, form: str = "+.3f") -> str:
    return f"{number(value['value'], form)} {bracket(value, form)}"


def number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def clipped(text: str, most: int = 40) -> str:
    """A stranger's text in one line of a sentence or a label."""
    return one_line(text, most)
