"""What a page shows of a repair: whether it serves all objectives, what else moved, and how the edit was chosen."""

from collections.abc import Iterator, Mapping

from tl_reward.results.sections import RepairEntry
from tl_reward.results.store import Results
from tl_reward.show import plots
from tl_reward.show.how_made import how_made
from tl_reward.show.intervals import NOTE, any_few
from tl_reward.show.page.panel import NeuronLink, Panel, shows
from tl_reward.show.plots.repair import ACROSS, height_of
from tl_reward.show.repairs import (
    MEANING,
    also_worse,
    biases,
    biases_in_a_line,
    chance,
    clipped,
    gates_in_words,
    how_chosen,
    power,
    power_on_objectives,
    share_edited,
    sizes,
    verdicts,
)


@shows("repair", each=True)
def panels_of_repair(results: Results, entries: Mapping[str, RepairEntry]) -> Iterator[Panel]:
    """Three a repair; one that edits nothing has moved nothing."""
    for name, entry in entries.items():
        number = [*results.section("repair")].index(name)
        few = (NOTE,) if any_few(entry) else ()
        yield _evidence(results, name, entry, number, few)
        if entry["chosen"] is not None:
            yield from _shifts(results, name, entry, few)
        if entry["tried"]:
            figure = plots.repair_path(results, name)
            yield Panel(
                f"How was the edit chosen? {name}",
                "Each mark is a candidate on the tune pairs: the accuracy it gains, averaged over objectives. The ring is the chosen one.",
                figure,
                height_of(figure),
                (
                    "Crosses lose more than tolerated on an objective. Small marks were tried on a part of the tune pairs alone: the best "
                    "of these were tried on all of them. Grey: all neurons scaled alike, a control and no candidate.",
                    how_chosen(entry),
                    *few,
                ),
            )


def _evidence(results: Results, name: str, entry: RepairEntry, number: int, few: tuple[str, ...]) -> Panel:
    many = "both" if len(entry["objectives"]) == 2 else f"all {len(entry['objectives'])}"
    figure, link = plots.repair_evidence(results, name), None
    if entry["chosen"] is None:
        caption = f"No neuron is edited: no candidate passed on the tune pairs. {power_on_objectives(entry)}"
    else:
        caption = f"{biases_in_a_line(entry)} {verdicts(entry)}"
        link = NeuronLink(entry["model"], f"repair:{number}", f"Show the {len(entry['neurons']):,} edited neurons in the table")
    edit = f"The edit: {share_edited(entry)}, each multiplied by {gates_in_words(entry)}." if entry["neurons"] else ""
    said = (
        edit,
        how_chosen(entry),
        power(entry) if entry["neurons"] else "",
        MEANING,
        sizes(entry),
        how_made({"precision": entry["precision"]}),
        *few,
    )
    return Panel(
        f"Can few edits serve {many} objectives better? {name}", caption, figure, height_of(figure), tuple(filter(None, said)), link
    )


def _shifts(results: Results, name: str, entry: RepairEntry, few: tuple[str, ...]) -> Iterator[Panel]:
    tested = [each for each, shifts in entry["shifts"].items() if shifts]
    for start in range(0, len(tested), ACROSS):
        part = tested[start : start + ACROSS]
        figure = plots.repair_shifts(results, name, part)
        yield Panel(
            f"What else did the repair move? {name}" + (f", {', '.join(clipped(each) for each in part)}" if len(tested) > ACROSS else ""),
            "Each line runs from before (open) to after (filled, with its 95 % interval). A repair often swaps one bias for another.",
            figure,
            height_of(figure),
            tuple(filter(None, (biases(entry), also_worse(entry), f"{chance(entry)} {_READING}", *few))),
        )


_READING = (
    "A bias is better when its size has clearly fallen, and reversed when its interval has changed sides of 0. A figure of which neither "
    "way is better can only be said to have moved; each of these has a scale of its own, and its numbers beside it."
)
