"""A run as tables in a terminal."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Column, Table

from tl_reward.measures.json_types import EstimateJson, MaybeEstimateJson, ScoresJson
from tl_reward.results.findings.every import findings_of
from tl_reward.results.findings.words import share_of_all
from tl_reward.results.sections import (
    AblationEntry,
    AttributionEntry,
    DiscoveryEntry,
    EffectsEntry,
    LensEntry,
    Made,
    ModelPatchingEntry,
    OverlapEntry,
    PatchingEntry,
    ScoresEntry,
    SetsEntry,
    TensionEntry,
    Tested,
)
from tl_reward.results.store import Results
from tl_reward.show.console import print_table
from tl_reward.show.how_made import how_made
from tl_reward.show.intervals import NOTE, any_few, bracket
from tl_reward.show.notes import notes_of
from tl_reward.show.repair_tables import print_repair


def summary(results: Results, console: Console) -> None:
    """Prints a run's sections as tables."""
    have = results.sections
    _print_each(have.get("repair"), print_repair, console)
    if "scores" in have:
        _print_scores(have["scores"], console)
    if "discovery" in have:
        _print_discovery(have["discovery"], console)
    _print_each(have.get("overlap"), _print_overlap, console)
    _print_each(have.get("attribution"), _print_attribution, console)
    _print_each(have.get("effects"), _print_effects, console)
    _print_each(have.get("tension"), _print_tension, console)
    _print_each(have.get("sets"), _print_sets, console)
    _print_each(have.get("patching"), _print_patching, console)
    _print_each(have.get("model_patching"), _print_model_patching, console)
    _print_each(have.get("lens"), _print_lens, console)
    _print_each(have.get("ablation"), _print_ablation, console)
    _print_notes(results, console)


def print_findings(results: Results, console: Console) -> None:
    """What was found, in the sentences of the page and of `results.json`."""
    console.print("\nFindings", style="bold")
    for finding in findings_of(results.sections):
        console.print(f"- {finding.sentence}", highlight=False)


def _print_notes(results: Results, console: Console) -> None:
    for note in notes_of(results):
        console.print(note)
    if any_few(results.sections):
        console.print(NOTE)


Entry = TypeVar("Entry")


def _print_each(entries: Mapping[str, Entry] | None, show: Callable[[str, Entry, Console], None], console: Console) -> None:
    for name, entry in (entries or {}).items():
        show(name, entry, console)


def _print_scores(entries: Mapping[str, ScoresEntry], console: Console) -> None:
    table = Table("model", "data set", "pairs", Column("accuracy [95 %]", no_wrap=True), "best of n", "margin", title="Scores")
    for entry in entries.values():
        best = f"{entry['best_of_n']['value']:.3f}" if entry["best_of_n"] else "–"
        pairs = f"{entry['pairs']} ({entry['dropped']} dropped)" if entry["dropped"] else str(entry["pairs"])
        cells = _estimate(entry["accuracy"]), best, f"{entry['mean_margin']['value']:+.3f}"
        table.add_row(entry["model"], entry["dataset"], pairs, *cells)
    print_table(table, console)


def _print_discovery(entries: Mapping[str, DiscoveryEntry], console: Console) -> None:
    table = Table("model", "found on", "pairs", "tokens", "at", "scores", title="Neurons")
    for name, entry in entries.items():
        sites, scores = (sorted(set(part)) for part in zip(*(key.split("/") for key in entry["computed"]), strict=True))
        cells = str(entry["pairs"]), f"{entry['tokens']:,}", "\n".join(sites), "\n".join(scores)
        table.add_row(name, entry["dataset"], *cells)
    print_table(table, console)


def _print_overlap(name: str, entry: OverlapEntry, console: Console) -> None:
    table = Table("models", "shared", "Jaccard", "chance", "chance, layers matched", "p", title=f"Overlap: {name}")
    for pair in entry["pairs"]:
        numbers = (f"{number:.3f}" for number in (pair["jaccard"], pair["chance"], pair["chance_by_layer"]))
        p = f"{pair['p_value']:.1g}" if pair["p_value"] else "<1e-300"
        table.add_row(f"{pair['a']} – {pair['b']}", str(pair["shared"]), *numbers, p)
    print_table(table, console)
    for model, thirds in entry["depth"].items():
        console.print(f"{model}: early / middle / late third of the layers {' / '.join(f'{share:.2f}' for share in thirds)}")
    ties = {model: count for model, count in entry["ties_at_cut"].items() if count}
    if ties:
        console.print(f"ties across the cut (the choice among them is arbitrary): {ties}")
    if "regions" in entry:
        console.print(", ".join(f"{region}: {count}" for region, count in entry["regions"].items()))


def _print_ablation(name: str, entry: AblationEntry, console: Console) -> None:
    table = Table("zeroed", "neurons", Column("accuracy [95 %]", no_wrap=True), "random draws", title=f"Ablation: {name}")
    table.add_row("none", "0", _estimate(entry["clean"]["accuracy"]), "")
    # Where other shares have random sets, this one has none because a layer is over half full; else perhaps none were asked for.
    none = "none: a layer is over half full" if any(point["random_accuracy"] for point in entry["points"]) else "none drawn"
    for point in entry["points"]:
        drawn = ", ".join(f"{v:.3f}" for v in point["random_accuracy"]) or none
        table.add_row(f"top {share_of_all(point['fraction'])}", str(point["neurons"]), _estimate(point["ranked"]["accuracy"]), drawn)
    print_table(table, console)
    _print_made(entry, console)
    _print_caution(entry, console)
    ties = [f"{share_of_all(p['fraction'])}: {p['ties_at_cut']}" for p in entry["points"] if p["ties_at_cut"]]
    if ties:
        console.print(f"ties across the cut (the choice among them is arbitrary): {', '.join(ties)}")


def _print_attribution(name: str, entry: AttributionEntry, console: Console) -> None:
    table = Table(
        "neuron", "sample", *entry["methods"], Column("exact [95 %]", no_wrap=True),
        title=f"Effect of one neuron on the margin: {name}",
    )  # fmt: skip
    for row in entry["exact"][:10]:
        estimated = (f"{row['estimated'][method]:+.5f}" for method in entry["methods"])
        table.add_row(row["name"], "random" if row["drawn"] else "top", *estimated, _signed(row["margin"]))
    print_table(table, console)
    console.print(
        f"The {min(10, len(entry['exact']))} largest of {len(entry['exact'])} that were edited, each alone (kind: {entry['kind']}), as "
        f"layer.neuron at {entry['site']}. Positive: the edit lowers the margin, in reward units."
        + (" The gain of patching a neuron is minus that." if entry["kind"] == "patch" else "")
    )
    console.print(f"Exact effects: one run for each neuron and each of {entry['pairs']} pairs. {how_made(entry)}".strip())
    for key, label in (("agreement", "top and random neurons"), ("agreement_drawn", "random neurons alone")):
        found = {method: each[key] for method, each in entry["methods"].items()}
        count = next(iter(found.values()))["neurons"]
        sizes = list(next(iter(found.values()))["precision"])
        table = Table(
            "method", "Spearman", "Pearson", "same sign", *(f"precision at {k}" for k in sizes),
            title=f"Agreement with exact effects, {count} {label}: {name}",
        )  # fmt: skip
        for method, each in found.items():
            cells = (_short(value) for value in (each["spearman"], each["pearson"], each["sign"], *each["precision"].values()))
            table.add_row(f"{method} (best)" if method == entry["best"] and len(found) > 1 else method, *cells)
        print_table(table, console)


def _print_effects(name: str, entry: EffectsEntry, console: Console) -> None:
    objectives = list(entry["effects"][0]["by_objective"])
    table = Table(
        "neurons", Column("margin lost [95 %]", no_wrap=True), *(f"{objective} margin" for objective in objectives), "accuracy lost",
        title=f"Ablated alone: {name}",
    )  # fmt: skip
    for row in entry["effects"]:
        parts = (_signed(row["by_objective"][objective]) for objective in objectives)
        table.add_row(row["name"], _signed(row["margin"]), *parts, _short(row["accuracy"]))
    print_table(table, console)
    console.print(f"{entry['pairs']} pairs, at {entry['site']}. Positive: ablating lowers the margin, in reward units.")
    _print_made(entry, console)


def _print_tension(name: str, entry: TensionEntry, console: Console) -> None:
    table = Table("neurons that raise the margin of", "count", title=f"Tension: {name}")
    for label, coords in entry["quadrants"].items():
        table.add_row(label, f"{len(coords):,}")
    print_table(table, console)
    pairs = ", ".join(f"{count} pairs of {objective}" for objective, count in entry["pairs"].items())
    console.print(
        f"Effects by {entry['method']} at {entry['site']} on {pairs}; counted are those clear on both (false discovery rate 5 %)."
    )
    for label, value in (("all neurons", entry["conflict"]), ("clear ones", entry["conflict_clear"])):
        chance = f"chance {value['chance']:.3f} [{value['low']:.3f}, {value['high']:.3f}], p {value['p_value']:.2g}"
        console.print(f"in conflict, of {value['neurons']:,} {label}: {value['share']:.3f} ({chance})")


def _print_sets(name: str, entry: SetsEntry, console: Console) -> None:
    objectives = list(entry["clean"]["objectives"])
    heads = [f"{objective} accuracy" for objective in objectives] or ["accuracy"]
    table = Table("zeroed", "neurons", *heads, "random sets", "share of accuracy lost", title=f"Sets zeroed: {name}")

    def cells(scores: ScoresJson) -> list[str]:
        return [_short(scores["objectives"][objective]["accuracy"]) for objective in objectives] or [_short(scores["accuracy"])]

    table.add_row("none", "0", *cells(entry["clean"]), "", "")
    for label, point in entry["sets"].items():
        drawn = point["random_by_objective"].values() if objectives else [point["random_accuracy"]]
        random = "; ".join(", ".join(f"{value:.2f}" for value in values) or "–" for values in drawn)
        table.add_row(label, str(point["neurons"]), *cells(point["ranked"]), random, _short(point["relative_drop"]))
    print_table(table, console)
    console.print(
        "Random sets: the accuracy of each draw of as many neurons of the same layers, objective by objective. Share lost: of the clean "
        "accuracy over all pairs; negative where zeroing raises it."
    )
    _print_made(entry, console)
    _print_caution(entry, console)


def print_cautions(results: Results, console: Console) -> None:
    """What no reader may miss, for who asked for no tables."""
    for section in ("ablation", "sets", "model_patching"):
        for entry in results.sections.get(section, {}).values():
            _print_caution(entry, console)


def _print_made(entry: Made, console: Console) -> None:
    if how_made(entry):
        console.print(how_made(entry))


def _print_caution(entry: Tested, console: Console) -> None:
    if entry["tested_pairs_that_found"]:
        console.print(f"CAUTION: {entry['tested_pairs_that_found']} of the tested pairs were used to find the neurons")


def _print_patching(name: str, entry: PatchingEntry, console: Console) -> None:
    cells = sorted(entry["cells"], key=lambda cell: -cell["noising"]["value"] - cell["denoising"]["value"])[:12]
    table = Table(
        "site", "layer", "tokens", Column("noising [95 %]", no_wrap=True), Column("denoising [95 %]", no_wrap=True),
        title=f"Share of the reward gap moved within a pair: {name}",
    )  # fmt: skip
    for cell in cells:
        site = cell["kind"] if cell["unit"] is None else f"{cell['kind']}, head {cell['unit']}"
        layer = "the set" if cell["layer"] is None else str(cell["layer"])
        table.add_row(site, layer, str(cell["where"]), _short(cell["noising"]), _short(cell["denoising"]))
    print_table(table, console)
    aligned = {key: sum(values) for key, values in entry["aligned"].items()}
    alone = aligned["chosen_alone"] + aligned["rejected_alone"]
    console.print(
        f"The {len(cells)} of {len(entry['cells'])} patches that move most, pairs: {entry['pairs']}. Noising: the chosen run patched from "
        "the rejected one; denoising: the other way round. Tokens: -1 is the read-out. Aligned from there back: "
        f"{aligned['aligned']:,} tokens on each side; {alone:,} have no counterpart."
    )
    if entry["agreement"]:
        console.print(f"Attribution patching against these: Spearman {_short(entry['agreement']['spearman'])}.")


def _print_model_patching(name: str, entry: ModelPatchingEntry, console: Console) -> None:
    table = Table("patched", "accuracy", "recovered", "kept", title=f"Patched from another model: {name}")
    table.add_row("none", _short(entry["clean"]["accuracy"]), "", "")
    for point in entry["points"]:
        figures = (_short(point["ranked"]["accuracy"]), _short(point["recovered"]), _short(point["kept"]))
        table.add_row(f"top {point['fraction']:.1%} ({point['neurons']:,})", *figures)
        if point["random_accuracy"]:
            drawn = (point["random_accuracy"], point["random_recovered"], point["random_kept"])
            table.add_row("  random", *map(_drawn, drawn))
    table.add_row("the source itself", _short(entry["source"]["accuracy"]), "", "")
    print_table(table, console)
    console.print(
        f"Recovered: of the {entry['lost']} pairs that {entry['source_model']} has right and {entry['model']} by itself wrong, the share "
        f"right when patched. Kept: the same of the pairs that {entry['model']} by itself has right. Random: each draw of as many neurons "
        "of the same layers."
    )
    _print_caution(entry, console)


def _print_lens(name: str, entry: LensEntry, console: Console) -> None:
    table = Table("layers run", Column("accuracy [95 %]", no_wrap=True), "margin", "pairs decided", title=f"Reward lens: {name}")
    last = len(entry["accuracy"]) - 1
    for depth in sorted({round(last * i / 6) for i in range(7)}):
        decided = sum(at <= depth for at in entry["decided_at_depth"]) / entry["pairs"]
        table.add_row(str(depth), _estimate(entry["accuracy"][depth]), f"{entry['mean_margin'][depth]['value']:+.3f}", f"{decided:.2f}")
    print_table(table, console)
    console.print(
        f"The reward head, read from the residual stream after some of the {last} layers. Decided: the margin keeps the sign of the last "
        "row from there on."
    )


def _drawn(values: Sequence[float | None]) -> str:
    return ", ".join(f"{value:.2f}" for value in values if value is not None) or "–"


def _signed(value: EstimateJson) -> str:
    return f"{value['value']:+.5f} {bracket(value, '+.5f')}"


def _short(value: EstimateJson | MaybeEstimateJson) -> str:
    if value["value"] is None:
        return "undefined"
    return f"{value['value']:.2f} {bracket(value)}"


def _estimate(value: EstimateJson) -> str:
    return f"{value['value']:.3f} {bracket(value, '.3f')}"
