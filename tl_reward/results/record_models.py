"""Which model a run means by a name: a name is a folder's last part, and two folders may end alike."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tl_reward.errors import InputError
from tl_reward.results.disk.folder import named

if TYPE_CHECKING:
    from tl_reward.model.reward_model import HookedRewardModel
    from tl_reward.results.store import Results

# What two models of one name have to share to be one; paths differ from machine to machine.
_SAME = ("weights", "architecture", "layers", "d_model", "d_mlp", "heads")


def record_model(results: "Results", label: str, model: "HookedRewardModel") -> None:
    """Keeps in a run's provenance which model it calls `label`: path, architecture, sizes and a hash of the weights. `check_model` and
    `Results.merge` compare with that.

    Raises:
        InputError: the run calls another model by that name.
    """
    models = results.provenance.setdefault("models", {})
    _compare(label, _known(models, label), model.origin.to_json(), "this run holds another model of that name: use another name for one")
    models[label] = model.origin.to_json()


def check_model(results: "Results", label: str, model: "HookedRewardModel", *, other_model: bool = False) -> None:
    """Refuses a model for which rankings, effects, means or sets of a run are not. Runs written before models were recorded tell nothing,
    and pass.

    Args:
        label: what the run calls the model.
        other_model: take them all the same.

    Raises:
        InputError: the run's `label` has other weights, or another shape or architecture.
    """
    if not other_model:
        helps = "its neurons are not this one's; with other_model=True (--other-model) they are taken all the same"
        _compare(label, _known(results.provenance.get("models"), label), model.origin.to_json(), helps)


def both_models(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The models that two provenances tell of. Raises InputError where they call two models by one name."""
    first, second = ({} if not isinstance(each, dict) else each for each in (one.get("models"), other.get("models")))
    for label in second:
        _compare(label, _known(first, label), _known(second, label), "two runs hold models of that name: keep them apart")
    return {**first, **second}


def _known(models: Any, label: str) -> Mapping[str, Any] | None:
    found = models.get(label) if isinstance(models, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _compare(label: str, told: Mapping[str, Any] | None, given: Mapping[str, Any] | None, helps: str) -> None:
    if told is None or given is None:
        return
    differ = [key for key in _SAME if told.get(key) != given.get(key)]
    if differ:
        raise InputError(f"{label} is {_words(told)} there and {_words(given)} here ({', '.join(differ)} differ): {helps}")


def _words(origin: Mapping[str, Any]) -> str:
    path = named(str(origin.get("path") or "made in memory"))
    sizes = f"{origin.get('layers')} layers of {origin.get('d_mlp')} neurons"
    return f"{path} ({origin.get('architecture')}, {sizes}, weights {str(origin.get('weights'))[:8]})"
