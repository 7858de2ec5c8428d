"""A run as tables in a terminal."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

from tl_reward.results import Results


def summary(results: Results, console: Console) -> None:
    """Prints a run's sections as tables."""
    if "scores" in results.sections:
        table = Table("model", "data set", "pairs", Column("accuracy [95 %]", no_wrap=True), "best of n", "margin", title="Scores")
        for entry in results.sections["scores"].values():
            best = f"{entry['best_of_n']['value']:.3f}" if entry["best_of_n"] else "–"
            pairs = f"{entry['pairs']} ({entry['dropped']} dropped)" if entry["dropped"] else str(entry["pairs"])
            cells = _estimate(entry["accuracy"]), best, f"{entry['mean_margin']['value']:+.3f}"
            table.add_row(entry["model"], entry["dataset"], pairs, *cells)
        console.print(table)
    if "discovery" in results.sections:
        table = Table("model", "found on", "pairs", "tokens", "at", "scores", title="Neurons")
        for name, entry in results.sections["discovery"].items():
            sites, scores = (sorted(set(part)) for part in zip(*(key.split("/") for key in entry["computed"]), strict=True))
            cells = str(entry["pairs"]), f"{entry['tokens']:,}", "\n".join(sites), "\n".join(scores)
            table.add_row(name, entry["dataset"], *cells)
        console.print(table)
    for name, entry in results.sections.get("overlap", {}).items():
        table = Table("models", "shared", "Jaccard", "chance", "chance, layers matched", "p", title=f"Overlap: {name}")
        for pair in entry["pairs"]:
            numbers = (f"{pair[key]:.3f}" for key in ("jaccard", "chance", "chance_by_layer"))
            table.add_row(
                f"{pair['a']} – {pair['b']}", str(pair["shared"]), *numbers, f"{pair['p_value']:.1g}" if pair["p_value"] else "<1e-300"
            )
        console.print(table)
        for model, thirds in entry["depth"].items():
            console.print(f"{model}: early / middle / late third of the layers {' / '.join(f'{share:.2f}' for share in thirds)}")
        ties = {model: count for model, count in entry["ties_at_cut"].items() if count}
        if ties:
            console.print(f"ties across the cut (the choice among them is arbitrary): {ties}")
        if "regions" in entry:
            console.print(", ".join(f"{region}: {count}" for region, count in entry["regions"].items()))
    for name, entry in results.sections.get("attribution", {}).items():
        _attribution(name, entry, console)
    for name, entry in results.sections.get("ablation", {}).items():
        table = Table("zeroed", "neurons", Column("accuracy [95 %]", no_wrap=True), "random draws", title=f"Ablation: {name}")
        table.add_row("none", "0", _estimate(entry["clean"]["accuracy"]), "")
        for point in entry["points"]:
            drawn = ", ".join(f"{v:.3f}" for v in point["random_accuracy"]) or "none: a layer is over half full"
            cells = str(point["neurons"]), _estimate(point["ranked"]["accuracy"]), drawn
            table.add_row(f"top {point['fraction']:.0%}", *cells)
        console.print(table)
        if entry["tested_pairs_that_found"]:
            console.print(f"CAUTION: {entry['tested_pairs_that_found']} of the tested pairs were used to find the neurons")
        ties = [f"{p['fraction']:.0%}: {p['ties_at_cut']}" for p in entry["points"] if p["ties_at_cut"]]
        if ties:
            console.print(f"ties across the cut (the choice among them is arbitrary): {', '.join(ties)}")


def _attribution(name: str, entry: dict[str, Any], console: Console) -> None:
    table = Table(
        "layer", "neuron", "sample", "estimated", Column("exact [95 %]", no_wrap=True),
        title=f"Effect of zeroing one neuron on the margin: {name}",
    )  # fmt: skip
    for row in entry["exact"][:10]:
        exact = row["margin"]
        cells = f"{row['estimated']:+.4f}", f"{exact['value']:+.4f} [{exact['low']:+.4f}, {exact['high']:+.4f}]"
        table.add_row(str(row["layer"]), str(row["neuron"]), "random" if row["drawn"] else "top", *cells)
    console.print(table)
    console.print(f"The 10 largest of {len(entry['exact'])} that were zeroed. Positive: zeroing lowers the margin, in reward units.")
    for label, found in (("top and random", entry["agreement"]), ("random alone", entry["agreement_drawn"])):
        precision = ", ".join(f"{value['value']:.2f} of the top {k}" for k, value in found["precision"].items())
        console.print(
            f"{entry['method']} against exact, {found['neurons']} neurons ({label}): Spearman {_estimate(found['spearman'])}, "
            f"Pearson {_estimate(found['pearson'])}, same sign {_estimate(found['sign'])}, precision {precision}"
        )


def _estimate(value: dict[str, float]) -> str:
    if value["value"] is None:
        return "undefined"
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
