"""How figures of edited models were made, in words: in which precision, and what says that this is enough."""

from tl_reward.results.sections import Made


def how_made(entry: Made) -> str:
    """One or two sentences; empty for a run that does not say."""
    if "precision" not in entry:
        return ""
    found = entry["precision"]
    if not found["asked"]:
        return f"Computed in {found['dtype']}."
    if not found["margins"]:
        return f"Computed in {found['dtype']}: half precision is no faster here."
    compared = f"{found['margins']} margins in both precisions differ by at most {found['largest']:.2g} reward units"
    if found["error"] is not None and found["correlation"] is not None:
        compared += f" ({found['error']:.2g} standard deviations, root mean square; rank correlation {found['correlation']:.3f})"
    if found["dtype"] == found["own"]:
        return f"Computed in {found['dtype']}, since half precision does not agree: {compared}."
    return f"The model without an edit in {found['own']}, the edited ones in {found['dtype']}: {compared}."
