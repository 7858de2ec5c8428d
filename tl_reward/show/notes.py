"""What is to be known of the pairs and neurons behind a run's numbers, and of how these were made: said under tables and on the page."""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from tl_reward.data.reading import in_words
from tl_reward.results.store import Results
from tl_reward.show.how_made import how_made


def notes_of(results: Results) -> Iterator[str]:
    """Of every section, the pairs that it left out, by reason, what is odd about the rest, and the output that neurons were found by, where
    it is not the tested one; of every model, its precision. What is said of several in the same words is said once."""
    names: dict[str, list[str]] = {}
    for section, entries in cast(Mapping[str, Mapping[str, Any]], results.sections).items():
        for name, entry in entries.items():
            by = entry.get("found_by_output")
            read = in_words(entry["reading"]) if "reading" in entry else ""
            for said in (read, f"its neurons were found by another output, {by}" if by else ""):
                if said:
                    names.setdefault(said, []).append(f"{section} of {name}")
    for said, those in names.items():
        yield f"{'; '.join(those)}: {said}"
    precisions: dict[str, list[str]] = {}
    for label, model in results.provenance.get("models", {}).items():
        if said := how_made(model):
            precisions.setdefault(said, []).append(label)
    for said, labels in precisions.items():
        yield f"{', '.join(labels)}: {said}"
