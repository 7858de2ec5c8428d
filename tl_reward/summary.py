"""A run as tables in a terminal."""

from rich.console import Console
from rich.table import Table

from tl_reward.results import Results


def summary(results: Results, console: Console) -> None:
    """Prints a run's sections as tables."""
    if "scores" in results.sections:
        table = Table("model", "data set", "pairs", "accuracy [95 % interval]", "mean margin", title="Scores")
        for entry in results.sections["scores"].values():
            accuracy, margin = entry["accuracy"], entry["mean_margin"]
            cells = f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]", f"{margin['value']:+.3f}"
            table.add_row(entry["model"], entry["dataset"], str(entry["pairs"]), *cells)
        console.print(table)
    if "discovery" in results.sections:
        table = Table("model", "found on", "pairs", "tokens", "scores", title="Neurons")
        for name, entry in results.sections["discovery"].items():
            table.add_row(name, entry["dataset"], str(entry["pairs"]), f"{entry['tokens']:,}", ", ".join(entry["computed"]))
        console.print(table)
    for name, entry in results.sections.get("overlap", {}).items():
        table = Table("models", "shared", "Jaccard", "chance", "chance, layers matched", "p", title=f"Overlap: {name}")
        for pair in entry["pairs"]:
            numbers = (f"{pair[key]:.3f}" for key in ("jaccard", "chance", "chance_by_layer"))
            table.add_row(f"{pair['a']} – {pair['b']}", str(pair["shared"]), *numbers, f"{pair['p_value']:.1g}")
        console.print(table)
        if "regions" in entry:
            console.print(", ".join(f"{region}: {count}" for region, count in entry["regions"].items()))
    for name, entry in results.sections.get("ablation", {}).items():
        table = Table("zeroed", "neurons", "accuracy [95 % interval]", "random draws", title=f"Ablation: {name}")
        clean = entry["clean"]["accuracy"]
        table.add_row("none", "0", f"{clean['value']:.3f} [{clean['low']:.3f}, {clean['high']:.3f}]", "")
        for point in entry["points"]:
            accuracy = point["ranked"]["accuracy"]
            drawn = ", ".join(f"{v:.3f}" for v in point["random_accuracy"]) or "none: a layer is over half full"
            cell = f"{accuracy['value']:.3f} [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"
            table.add_row(f"top {point['fraction']:.0%}", str(point["neurons"]), cell, drawn)
        console.print(table)
        ties = [f"{p['fraction']:.0%}: {p['ties_at_cut']}" for p in entry["points"] if p["ties_at_cut"]]
        if ties:
            console.print(f"ties across the cut (the choice among them is arbitrary): {', '.join(ties)}")
