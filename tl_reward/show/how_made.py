"""How figures were made, in words: in which precision, and what says that this is enough."""

from tl_reward.results.sections import Made


def how_made(entry: Made) -> str:
    """One or two sentences; empty for a run that does not say."""
    if "precision" not in entry:
        return ""
    found = entry["precision"]
    if not found["margins"]:
        products = "" if found["dtype"] == found["own"] else f", its matrix products in {found['dtype']}"
        return f"Computed in {found['own']}{products}{': half precision is no faster here' if found['asked'] else ''}."
    compared = f"{found['margins']} margins in both precisions differ by at most {found['largest']:.2g} reward units"
    if found["error"] is not None and found["correlation"] is not None:
        compared += f" ({found['error']:.2g} standard deviations, root mean square; rank correlation {found['correlation']:.3f})"
    compared += "".join(f"; {name}: rank correlation {value:.3f}" for name, value in found.get("figures", {}).items())
    if found["dtype"] == found["own"]:
        return f"Computed in {found['dtype']}, since half precision does not agree: {compared}."
    return f"Computed in {found['own']}, its matrix products in {found['dtype']}: {compared}."
