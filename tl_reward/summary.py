"""A run as tables in a terminal."""

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


def _estimate(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
