"""What is wrong with a whole run, as `Results.load` and `Results.save` see it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from tl_reward.results.disk.plain import count_fault, short
from tl_reward.results.disk.relations import entry_fault
from tl_reward.results.disk.types import fault_of, provenance_fault


def run_fault(provenance: Any, sections: Any, tensors: Mapping[str, Tensor]) -> str | None:
    """Types, too many entries, or an entry's tensors are not as it says; None where nothing is wrong."""
    if fault := provenance_fault(provenance) or count_fault(sections) or fault_of(sections):
        return fault
    for section, entries in sections.items():
        # Of a section that this version does not know, nothing is told by its type.
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            return f"{short(section)} is no section"
        if not entries:
            return f"{short(section)} has no entry"
        for name, entry in entries.items():
            fault = entry_fault(section, entry, lambda key, prefix=f"{section}/{name}/": tensors.get(prefix + key))
            if fault is not None:
                return in_entry(section, name, fault)
    return None


def in_entry(section: str, name: str, fault: str | None) -> str | None:
    """A fault, with the entry that it is in."""
    return f"{section} of {short(name)!r}: {fault}" if fault else None
