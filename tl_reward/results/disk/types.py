"""Whether the JSON of a run is of the types that its sections have."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from tl_reward.results.disk.plain import short
from tl_reward.results.sections import Provenance, Sections

_adapter = cache(TypeAdapter)  # made at the first run that is read, and once


def provenance_fault(provenance: Any) -> str | None:
    """As `fault_of`, of a run's provenance."""
    return _fault(Provenance, provenance, "provenance")


def fault_of(sections: Any) -> str | None:
    """The first thing that the sections of a run lack, or that is of another type than theirs, and where; None where there is none."""
    return _fault(Sections, sections, "sections")


def _fault(kind: type, value: Any, what: str) -> str | None:
    try:
        _adapter(kind).validate_python(value, strict=True)  # as JSON has it: "6" is no number
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = [short(part) for part in first["loc"]]
        entry = " of ".join([place[0], repr(place[1])] if len(place) > 1 else place) or what
        said = "is missing" if first["type"] == "missing" else f"is wrong: {first['msg'][0].lower()}{first['msg'][1:]}"
        return f"{entry}: {' '.join(['.'.join(place[2:]), said]).strip()}"
    return None
