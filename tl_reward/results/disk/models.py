"""Which models a run says that it is about, and whether two of one name are one. It reads JSON, and no model."""

from collections.abc import Mapping
from typing import Any

from tl_reward.errors import InputError
from tl_reward.results.disk.folder import named
from tl_reward.results.disk.plain import short

# What two models of one name have to share to be one; paths differ from machine to machine.
_SAME = ("weights", "architecture", "layers", "d_model", "d_mlp", "heads", "readout", "template")


def both_models(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The models that two provenances tell of. Raises InputError where they call two models by one name."""
    first, second = ({} if not isinstance(each, dict) else each for each in (one.get("models"), other.get("models")))
    for label in second:
        helps = "two runs hold models of that name: keep them apart, or run one again as NAME=MODEL"
        compare(label, known(first, label), known(second, label), helps)
    return {**first, **second}


def known(models: Any, label: str) -> Mapping[str, Any] | None:
    """What a provenance tells of a model; None where it tells nothing."""
    found = models.get(label) if isinstance(models, Mapping) else None
    return found if isinstance(found, Mapping) else None


def compare(label: str, told: Mapping[str, Any] | None, given: Mapping[str, Any] | None, helps: str) -> None:
    """Raises InputError where two models of one name are not one; `helps` ends the message."""
    if told is None or given is None:
        return
    differ = [key for key in _SAME if told.get(key) != given.get(key)]
    if {"output"} <= told.keys() & given.keys() and told["output"] != given["output"]:  # one without a choice goes with each
        differ.append("output")
    if differ:
        raise InputError(f"{short(label)} is {_words(told)} there and {_words(given)} here ({', '.join(differ)} differ): {helps}")


def _words(origin: Mapping[str, Any]) -> str:
    path = named(str(origin.get("path") or "made in memory")) + (", edited in memory" if origin.get("edited") else "")
    sizes = f"{origin.get('layers')} layers of {origin.get('d_mlp')} neurons"
    output = f", output {short(origin['output'])}" if "output" in origin else ""
    return f"{path} ({short(origin.get('architecture'))}, {sizes}, weights {str(origin.get('weights'))[:8]}{output})"
