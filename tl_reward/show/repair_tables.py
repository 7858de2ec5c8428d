"""A repair as tables in a terminal: what else moved comes first, then the evidence, then how the edit was chosen."""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from tl_reward.measures.json_types import ComparedJson, PairedJson
from tl_reward.results.sections import RepairEntry
from tl_reward.show.console import print_table
from tl_reward.show.how_made import how_made
from tl_reward.show.repairs import (
    MEANING,
    also_worse,
    before_after,
    biases,
    chance,
    claims,
    clipped,
    form_of,
    how_chosen,
    label_of,
    number,
    power,
    sizes,
    tested_on,
    with_interval,
)

_FIRST = ("reversed", "worse", "better", "moved", "no clear change")


def print_repair(name: str, entry: RepairEntry, console: Console) -> None:
    console.print(f"Repair: {name}", style="bold")
    console.print(" ".join([biases(entry), also_worse(entry)]).strip())
    if entry["chosen"] is not None:
        console.print(claims(entry))
    if entry["chosen"] is not None:
        _print_shifts(name, entry, console)
    _print_evidence(name, entry, console)
    for said in (MEANING, how_chosen(entry), power(entry), sizes(entry), how_made({"precision": entry["precision"]})):
        console.print(said)


def _print_shifts(name: str, entry: RepairEntry, console: Console) -> None:
    """Every bias, and of the other figures those that moved to the better or to the worse; the rest are counted."""
    rows = [(tested, each) for tested, shifts in entry["shifts"].items() for each in shifts]
    shown, left = [], []
    for row in rows:
        (shown if row[1]["good"] == "near 0" or row[1]["verdict"] in ("better", "worse") else left).append(row)
    if shown:
        table = Table(
            *(Column(head, no_wrap=True) for head in ("tested on", "figure", "before → after", "change [95 %]", "verdict")),
            title=f"What else moved: {name}",
        )  # fmt: skip
        for tested, each in sorted(shown, key=lambda row: _FIRST.index(row[1]["verdict"])):
            cells = before_after(each, form_of(each)), with_interval(each["difference"]), each["verdict"]
            table.add_row(clipped(tested, 20), each["name"], *cells)
        print_table(table, console)
        console.print("The change of a bias is that of its size, whatever its sign.")
    if rows:
        moved = sum(each["verdict"] == "moved" for _, each in left)
        console.print(
            f"Of {len(left)} other figures, {len(left) - moved} show no clear change, and {moved} moved where neither way is better, such "
            f"as the mean reward. {chance(entry)}"
        )


def _print_evidence(name: str, entry: RepairEntry, console: Console) -> None:
    """A table a set, so that the names of sets need no column."""
    for each in tested_on(entry):
        table = Table(
            *(Column(head, no_wrap=True) for head in ("edit or model", "accuracy", "difference [95 %]", "verdict", "margin, difference")),
            title=f"{clipped(each.name)} ({each.kind}): {name}",
        )  # fmt: skip
        random = [row for row in each.controls if row["kind"] == "random"]
        others = [row for row in each.controls if row["kind"] != "random"]
        table.add_row("no edit" if entry["chosen"] is None else "the repair", *_cells(each.repaired))
        if random:
            table.add_row(f"random, draws: {len(random)}", *_cells_of_draws(random))
        for row in others:
            table.add_row(clipped(row["name"] if row["kind"] == "uniform" else label_of(row)), *_cells(row))
        print_table(table, console)


def _cells(row: ComparedJson) -> tuple[str, ...]:
    return (
        before_after(row["accuracy"]), with_interval(row["accuracy"]["difference"]), row["verdict"],
        with_interval(row["margin"]["difference"], "+.2f"),
    )  # fmt: skip


def _cells_of_draws(rows: Sequence[ComparedJson]) -> tuple[str, ...]:
    """The range of all draws; no single draw has a claim to be shown."""
    counts = Counter(row["verdict"] for row in rows)
    verdict = ", ".join(f"{count} {said}" for said, count in counts.items()) if len(counts) > 1 else rows[0]["verdict"]
    after = _range([row["accuracy"]["after"]["value"] for row in rows], ".3f")
    return (
        f"{number(rows[0]['accuracy']['before']['value'], '.3f')} → {after}",
        _range_of([row["accuracy"] for row in rows], "+.3f"), verdict, _range_of([row["margin"] for row in rows], "+.2f"),
    )  # fmt: skip


def _range_of(values: Sequence[PairedJson], form: str) -> str:
    return _range([value["difference"]["value"] for value in values], form)


def _range(values: Sequence[float | None], form: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    low, high = f"{min(known):{form}}", f"{max(known):{form}}"
    return low if low == high else f"{low} to {high}"
